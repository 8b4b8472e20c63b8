from urllib.parse import parse_qs, urlsplit

from failscape.web.access import Access


def token_of(link: str) -> str:
    return parse_qs(urlsplit(link).query)["token"][0]


def test_a_token_opens_one_browser_and_another_link_is_announced() -> None:
    links: list[str] = []
    access = Access(["127.0.0.1:8765", "localhost:8765"], announce=links.append)
    link = access.link()
    assert link.startswith("http://127.0.0.1:8765/enter?token=")
    session = access.exchange(token_of(link))
    assert session is not None
    assert access.knows_session(session)
    assert access.exchange(token_of(link)) is None
    assert len(links) == 1
    second = access.exchange(token_of(links[0]))
    assert second not in (None, session)


def test_what_was_not_given_out_is_not_known() -> None:
    access = Access(["127.0.0.1:8765"])
    token = token_of(access.link())
    for wrong in ("", token[:-1], token + "x", "\udcff"):
        assert access.exchange(wrong) is None
        assert not access.knows_session(wrong)
    # A token is not a session.
    assert not access.knows_session(token)


def test_hosts() -> None:
    access = Access(["127.0.0.1:8765", "Example.org:443"])
    assert access.cookie == "failscape-8765"
    assert access.knows_host("127.0.0.1:8765")
    assert access.knows_host("example.ORG:443")
    for wrong in ("", "127.0.0.1", "127.0.0.1:8766", "evil.example:8765", "example.org"):
        assert not access.knows_host(wrong)
