"""What several processes do together; a script of its own for `test_distributed.py`, started by torchrun.

Run as `sharing.py SETTINGS OUT`. Trains in `OUT/whole`; loses the last checkpoint and resumes; trains into a loss of
NaN; and tries what is refused. Each process writes what it was told into `OUT/RANK.json`.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from failscape.errors import DataError, FailscapeError
from failscape.training import GANSettings, VAESettings, read_settings, resume_run, start_run
from failscape.training.distributed import process_group


def message_of(work: Callable[[], object]) -> str:
    try:
        work()
    except FailscapeError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def refuse() -> None:
    raise DataError("Expected what only the first process looks for.")


def main() -> None:
    settings, out = read_settings(Path(sys.argv[1])), Path(sys.argv[2])
    assert isinstance(settings, GANSettings)
    vae = VAESettings(data=settings.data, validation="none", images=32, batch=16, hidden=(4,))
    diverging = {"learning_rate": 1e3, "checkpoint_every": 16, "r1": 0.0, "r2": 0.0, "guidance_full": 0.0}
    with process_group("cpu") as group:
        told: dict[str, object] = {"world": group.world}
        folder = start_run(settings, out / "whole")
        told["folder"] = str(folder)
        told["turns"] = group.in_turn(lambda: group.rank)

        # As after a kill between two checkpoints.
        if group.first:
            for path in (folder / "checkpoints").glob("000000000192.*"):
                path.unlink()
            for path in folder.glob("generator.*"):
                path.rename(out / path.name)
        resume_run(folder)

        told["nan"] = message_of(partial(start_run, settings.model_copy(update=diverging), out / "nan"))
        told["vae"] = message_of(partial(start_run, vae, out / "vae"))
        odd = settings.model_copy(update={"images": 193})
        told["odd"] = message_of(partial(start_run, odd, out / "odd"))
        told["first"] = message_of(partial(group.agree, refuse))
        (out / f"{group.rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
