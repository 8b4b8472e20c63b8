import platform
import subprocess
import sys

import pytest

from failscape.training.memory import keep_freed_memory

# Takes and frees blocks of 4 MiB, a step of a training in small, and prints the page faults of the later rounds. Pages
# are small, so that each counts, and glibc does not adapt.
_SCRIPT = """
import ctypes, os, resource, sys, torch
from failscape.training.memory import keep_freed_memory
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)
if sys.argv[1] == "leave":
    ctypes.CDLL(None).mallopt(-3, 131072)
elif sys.argv[1] == "refuse":
    os.environ["MALLOC_TRIM_THRESHOLD_"] = "131072"
kept = False if sys.argv[1] == "leave" else keep_freed_memory()
def step():
    for _ in range(20):
        parts = [torch.ones(2**20) for _ in range(4)]
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[bool, int]:
    run = subprocess.run([sys.executable, "-c", _SCRIPT, how], capture_output=True, text=True, check=True)
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
    assert not faults("refuse")[0]


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory.__wrapped__() is False
