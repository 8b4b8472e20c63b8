import platform
import subprocess
import sys

import pytest

from failscape.training.memory import keep_freed_memory

# Takes and frees blocks of 4 MiB, a step of a training in small, and prints the page faults of the later rounds.
_SCRIPT = """
import resource, sys, torch
from failscape.training.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
def step():
    for _ in range(20):
        parts = [torch.ones(2**20) for _ in range(4)]
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[bool, int]:
    # A mapping threshold of one's own keeps glibc from adapting it, so that the comparison is always the same.
    run = subprocess.run(
        [sys.executable, "-c", _SCRIPT, how],
        env={"MALLOC_MMAP_THRESHOLD_": "131072", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, count = run.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has what is set")
def test_freed_memory_is_taken_again_without_asking_the_system() -> None:
    kept, few = faults("keep")
    _, many = faults("leave")
    assert kept
    # 80 blocks of 1,024 pages.
    assert many > 40_000
    assert few < 0.05 * many


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory.__wrapped__() is False
