from urllib.parse import parse_qs, urlsplit

from failscape.web.access import Access


def token_of(link: str) -> str:
    return parse_qs(urlsplit(link).query)["token"][0]


def test_a_token_opens_one_browser_and_another_link_is_announced() -> None:
    links: list[str] = []
    access = Access(["http://127.0.0.1:8765", "http://localhost:8765"], announce=links.append)
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
    access = Access(["http://127.0.0.1:8765"])
    token = token_of(access.link())
    for wrong in ("", token[:-1], token + "x", "\udcff"):
        assert access.exchange(wrong) is None
        assert not access.knows_session(wrong)
    # A token is not a session.
    assert not access.knows_session(token)


def test_names() -> None:
    access = Access(["http://127.0.0.1:8765", "https://Example.org", "http://[::1]:8765"])
    assert access.cookie == "failscape-8765"
    for host in ("127.0.0.1:8765", "example.ORG", "example.org:443", "[::1]:8765"):
        assert access.knows_host(host)
    for wrong in (
        "",
        "127.0.0.1",
        "127.0.0.1:8766",
        "evil.example:8765",
        "example.org:80",
        "example.org:8765",
        "[::1]",
    ):
        assert not access.knows_host(wrong)
    for origin in ("http://127.0.0.1:8765", "https://EXAMPLE.org", "https://example.org:443", "http://[::1]:8765"):
        assert access.knows_origin(origin)
    for wrong in ("null", "http://example.org", "https://127.0.0.1:8765", "https://example.org:80", "http://[::1]"):
        assert not access.knows_origin(wrong)
    assert access.is_encrypted("example.org:443")
    assert not access.is_encrypted("127.0.0.1:8765")


def test_ports_that_browsers_leave_out() -> None:
    plain, encrypted = Access(["http://127.0.0.1:80"]), Access(["https://labels.example:443"])
    assert plain.link().startswith("http://127.0.0.1/enter?token=")
    assert encrypted.link().startswith("https://labels.example/enter?token=")
    assert (plain.cookie, encrypted.cookie) == ("failscape-80", "failscape-443")
    assert plain.knows_host("127.0.0.1")
    assert plain.knows_host("127.0.0.1:80")
    assert Access(["http://[::1]:80"]).knows_host("[::1]")
    assert Access(["http://[::1]"]).knows_host("[::1]:80")
    assert encrypted.knows_host("labels.example:443")
