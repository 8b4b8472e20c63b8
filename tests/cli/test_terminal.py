import os
import pty
import sys
from contextlib import suppress
from io import TextIOWrapper

import pytest

from failscape.cli.terminal import fail, progress


def test_a_terminal_shows_every_message_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, typed = pty.openpty()
    os.set_blocking(shown, False)
    with TextIOWrapper(os.fdopen(typed, "wb", buffering=0), write_through=True) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress() as show:
            show("step 1 of 2, [bold]a")
            show("step 2 of 2")
        monkeypatch.undo()
        text = ""
        with suppress(BlockingIOError):
            while True:
                text += os.read(shown, 2**16).decode()
    os.close(shown)
    assert "step 1 of 2, [bold]a" in text
    assert "step 2 of 2" in text


def test_elsewhere_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as show:
        show("step 1 of 2")
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_a_failure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail("Expected x,\n  but got y.") == 2
    assert capsys.readouterr().err == "failscape: error: Expected x, but got y.\n"
