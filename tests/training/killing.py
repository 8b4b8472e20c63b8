"""Trains in children and kills them with SIGKILL; a script of its own for `test_resume.py`.

Run as `killing.py SETTINGS OUT STRIDE`. `OUT/reference` is trained without a kill. With a stride from 1, `OUT/K`
is killed just before the K-th time that it opens, renames or removes a file of its own, for every K that there is
in steps of the stride, and then resumed. With stride 0, `OUT/0` is killed after random times again and again.
Prints a JSON list with, for each kill, the images that the log had reached and those of the checkpoint left.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from failscape.metrics import frechet_distance, rank_correlation
from failscape.storage import latest_run_folder
from failscape.training import read_settings, resume_run, start_run
from failscape.training.checkpoint import has_checkpoint, load_checkpoint

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir"}


def begin_or_resume(settings_file: Path, out: Path) -> None:
    folder = latest_run_folder(out) if out.exists() else None
    if folder is not None and (folder / "train.toml").exists():
        resume_run(folder)
    else:
        start_run(read_settings(settings_file), out)


def fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:  # noqa: BLE001 - a child must never go on as its parent
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def was_killed(child: int) -> bool:
    """Wait for a child; end this script if it failed by itself."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        sys.exit("a training failed")
    return status == -signal.SIGKILL


def kill_at_event(number: int, out: Path) -> None:
    left = number

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in EVENTS and str(arguments[0]).startswith(str(out)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def records(out: Path) -> list[dict[str, Any]]:
    folder = latest_run_folder(out) if out.exists() else None
    if folder is None or not (folder / "log.jsonl").exists():
        return []
    lines = (folder / "log.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def reached(out: Path) -> int:
    return max((record["images"] for record in records(out)), default=0)


def saved(out: Path) -> int:
    folder = latest_run_folder(out) if out.exists() else None
    if folder is None or not has_checkpoint(folder / "checkpoints"):
        return 0
    return load_checkpoint(folder / "checkpoints")[0]


def kill_at_instants(settings: Path, out: Path, stride: int) -> list[tuple[int, int]]:
    kills: list[tuple[int, int]] = []
    for number in itertools.count(1, stride):
        folder = out / str(number)

        def doomed(number: int = number, folder: Path = folder) -> None:
            kill_at_event(number, folder)
            begin_or_resume(settings, folder)

        if not was_killed(fork(doomed)):
            break
        kills.append((reached(folder), saved(folder)))
        was_killed(fork(partial(begin_or_resume, settings, folder)))
    return kills


def kill_at_moments(settings: Path, out: Path, longest: float) -> list[tuple[int, int]]:
    rng = random.Random(0)
    for attempt in itertools.count():
        kills = kill_until_done(settings, out / str(attempt), longest, rng)
        if kills:
            return kills
        # The machine was busier when the reference was timed than it is now: the training ended before any kill.
        longest /= 2
    raise AssertionError


def kill_until_done(settings: Path, folder: Path, longest: float, rng: random.Random) -> list[tuple[int, int]]:
    kills: list[tuple[int, int]] = []
    for _ in range(10):
        child = fork(partial(begin_or_resume, settings, folder))
        time.sleep(rng.uniform(0.1, 0.6) * longest)
        os.kill(child, signal.SIGKILL)
        if not was_killed(child):
            return kills
        kills.append((reached(folder), saved(folder)))
    was_killed(fork(partial(begin_or_resume, settings, folder)))
    return kills


def import_what_is_imported_late() -> None:
    """Spare each child the second that torch takes to import its compiler for the first optimiser, and torchmetrics."""
    rank_correlation(torch.arange(3.0), torch.arange(3.0))
    frechet_distance(torch.eye(3), torch.eye(3))
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    torch.optim.AdamW([parameter], fused=True).step()


def main() -> None:
    torch.set_num_threads(1)
    settings, out, stride = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    import_what_is_imported_late()
    start = time.perf_counter()
    was_killed(fork(partial(begin_or_resume, settings, out / "reference")))
    seconds = time.perf_counter() - start
    kills = kill_at_instants(settings, out, stride) if stride else kill_at_moments(settings, out, seconds)
    sys.stdout.write(json.dumps(kills))


if __name__ == "__main__":
    main()
