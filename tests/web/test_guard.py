"""What stands before every page, tried on each route that there is, over a real socket."""

import re
import socket
from pathlib import Path

import httpx
import pytest
from starlette.routing import Mount, WebSocketRoute
from tests.web.conftest import CLASSES, Served, serving

from failscape.labels import LabelStore
from failscape.web.guard import BODY_LIMIT, HEADERS, UPLOAD_LIMIT

# What a refusal may not contain: anything of the run.
SECRETS = (*CLASSES, "toy")


def routes(served: Served) -> list[tuple[str, str]]:
    """Return method and address of every route, with identifiers that exist in place of its parameters."""
    assert not any(isinstance(route, Mount | WebSocketRoute) for route in served.app.routes)
    run = next(iter(served.site.runs.values()))
    with LabelStore(run.folder) as store:
        project = store.projects()[0]
        image = store.images(project.id)[0].id
    known = {"run_id": run.id, "project_id": project.id, "image_id": image, "name": "web.css", "number": "1"}
    known |= {"key": _a_mistake(served), "which": "original", "kind": "csv", "case_id": "0" * 16}
    # FastAPI's own list of routes, those of included routers among them.
    paths = served.app.openapi()["paths"]
    return [
        (method.upper(), re.sub(r"{(\w+)}", lambda found: known.get(found[1], "1"), path))
        for path, methods in paths.items()
        for method in methods
    ]


def _a_mistake(served: Served) -> str:
    """Return the key of a mistake that has an example."""
    run = next(iter(served.site.runs.values()))
    step = served.site.mistakes.steps(run)[1]
    every = served.site.mistakes.of(run, step, patience=30.0).every
    return next(each.key for each in every if each.example is not None)


def try_each(served: Served, client: httpx.Client, headers: dict[str, str]) -> dict[tuple[str, str], httpx.Response]:
    answers = {}
    for method, path in routes(served):
        asked = {"/enter": "token=guess", "/history": "labeller=Ada", "/at": "part=0.5"}
        query = next((f"?{values}" for end, values in asked.items() if path.endswith(end)), "")
        answers[method, path] = client.request(method, path + query, headers=headers)
    assert len(answers) > 8
    return answers


def check_refused(answers: dict[tuple[str, str], httpx.Response], status: int) -> None:
    assert {place: answer.status_code for place, answer in answers.items()} == dict.fromkeys(answers, status)
    for answer in answers.values():
        assert not any(secret in answer.text for secret in SECRETS)
        assert "set-cookie" not in answer.headers
        check_headers(answer)


def check_headers(answer: httpx.Response) -> None:
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for name, value in HEADERS.items():
        assert answer.headers[name] == value


def test_every_route_can_be_reached_by_who_was_let_in(toy_server: Served) -> None:
    with toy_server.client() as client:
        answers = try_each(toy_server, client, {"Sec-Fetch-Site": "same-origin"})
    for (method, path), answer in answers.items():
        check_headers(answer)
        if method == "GET" and path != "/enter":
            # Nothing is labelled and nothing kept, so there is nothing to export.
            expected = (422,) if "/export/" in path else (200, 303)
            assert answer.status_code in expected, (path, answer.text)
        elif method == "POST":
            # Without a body none of them does anything, but the route was reached.
            assert answer.status_code == 422, (path, answer.text)
        elif method == "DELETE":
            # What is not there needs no removal.
            assert answer.status_code == 200, (path, answer.text)


def test_no_route_answers_a_stranger(toy_server: Served) -> None:
    with toy_server.client(let_in=False) as client:
        check_refused(try_each(toy_server, client, {}), 401)
        check_refused(try_each(toy_server, client, {"Cookie": f"{toy_server.access.cookie}=guess"}), 401)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:8765"])
def test_no_route_answers_to_a_foreign_name(toy_server: Served, host: str) -> None:
    with toy_server.client() as client:
        check_refused(try_each(toy_server, client, {"Host": host}), 400)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        # A page of another port of this machine, to which browsers send the same cookies.
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    ],
)
def test_no_route_answers_another_site(toy_server: Served, headers: dict[str, str]) -> None:
    with toy_server.client() as client:
        check_refused(try_each(toy_server, client, headers), 403)


def test_what_changes_something_must_state_its_origin(toy_server: Served) -> None:
    with toy_server.client() as client:
        del client.headers["Origin"]
        answers = try_each(toy_server, client, {})
    changing = {place: answer for place, answer in answers.items() if place[0] != "GET"}
    assert {method for method, _ in changing} == {"POST", "DELETE"}
    check_refused(changing, 403)


def test_the_link_gives_a_cookie_that_scripts_and_other_sites_do_not_get(toy_server: Served) -> None:
    with toy_server.client(let_in=False) as client:
        link = toy_server.access.link()
        # Another site can neither use the link nor use it up.
        assert client.get(link, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        answer = client.get(link)
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"{toy_server.access.cookie}=")
        assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
        assert answer.headers["location"] == "/"
        assert client.get("/").status_code == 303
        assert client.get(link).status_code == 401


def test_a_large_body_is_refused_however_it_comes(toy_server: Served) -> None:
    with toy_server.client() as client:
        path = next(path for method, path in routes(toy_server) if method == "POST" and path.endswith("/labels"))
        for content in (b"x" * (BODY_LIMIT + 1), iter([b"x" * 1000] * 100)):
            answer = client.post(path, content=content)
            assert answer.status_code == 413
            check_headers(answer)
        assert client.post(path, content=b"x" * BODY_LIMIT).status_code == 422
        # Refused by what it announces, before it has come.
        with socket.create_connection(toy_server.base.removeprefix("http://").split(":")) as raw:
            cookie = f"{toy_server.access.cookie}={client.cookies[toy_server.access.cookie]}"
            host = toy_server.base.removeprefix("http://")
            head = f"Host: {host}\r\nOrigin: {toy_server.base}\r\nCookie: {cookie}\r\nContent-Length: {UPLOAD_LIMIT}"
            raw.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n\r\n".encode())
            raw.settimeout(10)
            assert raw.recv(100).startswith(b"HTTP/1.1 413 ")


def test_no_path_reaches_a_file(toy_server: Served, toy_run: Path) -> None:
    run = toy_server.run
    tries = [
        "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static/../web.css%00", "/static/htmx.min.js/..",
        f"{run}/label/images/..%2f..%2flabels.sqlite", f"{run}/label/images/{toy_run}", f"{run}/steps/01-edge-cases",
        f"/runs/{toy_run.name}/overview", f"/runs/..%2f{toy_run.name}/overview", f"{run}/steps/-1", f"{run}/steps/99",
        f"{run}/label/../../../../etc/passwd", "/runs/%00/overview",
    ]  # fmt: skip
    with toy_server.client() as client:
        for path in tries:
            answer = client.get(path)
            assert answer.status_code in (404, 422), (path, answer.status_code)
            assert "root:" not in answer.text
            assert str(toy_run.parent) not in answer.text


def test_nothing_else_is_served(toy_server: Served) -> None:
    with toy_server.client() as client:
        for path in ("/docs", "/redoc", "/openapi.json", "/favicon.ico"):
            assert client.get(path).status_code == 404
        assert client.get("/static/web.css").headers["content-type"].startswith("text/css")
        assert client.request("TRACE", "/").status_code in (403, 405)


def test_errors_say_what_to_do_and_never_repeat_what_came(toy_server: Served) -> None:
    with toy_server.client() as client:
        body = {"labeller": "<script>", "tab": "t", "count": 5, "queue": "<b>x</b>"}
        answer = client.post(f"{toy_server.run}/label/nothing/next", json=body)
        assert answer.status_code == 422
        assert answer.json()["error"].startswith("Expected another value of queue: ")
        assert "<b>" not in answer.text
        answer = client.get(f"{toy_server.run}/label/<img src=x>", headers={"Accept": "text/html"})
        assert answer.status_code == 404
        assert "there is none called" in answer.text
        assert "<img" not in answer.text


def test_two_servers_do_not_share_sessions(toy_server: Served, toy_run: Path) -> None:
    with serving([toy_run]) as other, toy_server.client() as client:
        cookie = client.cookies[toy_server.access.cookie]
        with other.client(let_in=False) as stranger:
            stranger.cookies.set(other.access.cookie, cookie)
            assert stranger.get("/").status_code == 401
        assert other.access.cookie != toy_server.access.cookie
        assert cookie not in client.get("/", follow_redirects=True).text


@pytest.mark.parametrize("host", ["labels.example", "labels.example:443"])
@pytest.mark.parametrize("name", ["https://labels.example", "https://labels.example:443", "labels.example:443"])
def test_behind_a_proxy_with_tls(toy_run: Path, name: str, host: str) -> None:
    """What a browser and the proxy say, which leave out the default port or do not."""
    with serving([toy_run], names=[name]) as served, served.client(let_in=False) as client:
        address, _, query = served.access.link().partition("?")
        assert address == "https://labels.example/enter"
        answer = client.get(f"/enter?{query}", headers={"Host": host, "Sec-Fetch-Site": "none"})
        assert answer.status_code == 303
        _, *flags = answer.headers["set-cookie"].lower().split("; ")
        assert {"secure", "httponly"} <= set(flags)
        path = next(path for method, path in routes(served) if method == "POST" and path.endswith("/next"))
        asked = {"Host": host, "Sec-Fetch-Site": "same-origin", "Cookie": answer.headers["set-cookie"].split(";")[0]}
        for origin, status in (("https://labels.example", 422), ("http://labels.example", 403)):
            assert client.post(path, json={}, headers=asked | {"Origin": origin}).status_code == status
