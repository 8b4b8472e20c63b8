import socket
import subprocess
import sys
from pathlib import Path

import pytest

from failscape.cli import main
from failscape.web.server import known_origins


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_machines_must_be_allowed(toy_run: Path, host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(toy_run), "--host", host]) == 2
    message = capsys.readouterr().err
    assert f"but got --host {host}" in message
    assert "--allow-remote" in message


def test_a_port_that_is_taken(toy_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", str(toy_run), "--port", str(taken.getsockname()[1])]) == 2
    assert "Choose another with --port" in capsys.readouterr().err


def test_a_run_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path / "nothing")]) == 2
    assert "Expected a run folder" in capsys.readouterr().err
    assert main(["serve", "latest", "--out", str(tmp_path)]) == 2
    assert "there is none. Run `failscape demo`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("box", "http://box:8765"),
        ("box:80", "http://box:80"),
        ("[fd00::1]", "http://[fd00::1]:8765"),
        ("labels.example:443", "https://labels.example:443"),
        ("https://labels.example", "https://labels.example"),
        ("https://labels.example:8443/", "https://labels.example:8443"),
        ("HTTP://box", "http://box"),
    ],
)
def test_a_name_comes_first_and_says_how_it_is_reached(name: str, origin: str) -> None:
    assert known_origins("127.0.0.1", 8765, [name])[0] == origin


@pytest.mark.parametrize("name", ["", "ftp://box", "https://", "https://box/path", "me@box", "::1", "a b", "box:port"])
def test_what_is_no_name_is_refused(toy_run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(toy_run), "--port", "0", f"--name={name}"]) == 2
    assert f"but got {name!r}. Give the name" in capsys.readouterr().err


def test_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    known = known_origins("::1", 8765, ["box"])
    own = {"http://[::1]:8765", "http://localhost:8765", "http://127.0.0.1:8765"}
    assert {"http://box:8765"} | own == set(known)
    remote = known_origins("0.0.0.0", 8765, [])
    assert f"http://{socket.gethostname()}:8765" in remote
    assert "http://0.0.0.0:8765" not in remote
    # A machine that nothing resolves the name of.
    monkeypatch.setattr(socket, "gethostname", lambda: "nobody.invalid")
    assert "http://nobody.invalid:8765" in known_origins("0.0.0.0", 8765, [])


def test_a_missing_extra_is_named(toy_run: Path) -> None:
    for missing in ("fastapi", "uvicorn"):
        code = (
            f"import sys; sys.modules[{missing!r}] = None; from failscape.cli import main; sys.exit(main(sys.argv[1:]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "serve", str(toy_run)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2
        assert "pip install 'failscape[web]'" in done.stderr
        assert done.stderr.count("failscape: error: ") == 1


def test_help_imports_neither_torch_nor_fastapi() -> None:
    code = (
        "import sys; from failscape.cli import main; main(sys.argv[1:]); "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'fastapi', 'uvicorn', 'sqlalchemy')))"
    )
    for arguments in (["--help"], ["serve", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0
        assert "serve" in done.stdout
