import json
from pathlib import Path

import pytest

from failscape.errors import StorageError
from failscape.training.log import LossWindow, RunLog


def test_records_after_the_kept_bytes_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with RunLog(path, keep=0) as log:
        log.write("losses", 1, {"loss": 0.5})
        kept = log.sync()
        log.write("losses", 2, {"loss": 0.25})

    with RunLog(path, keep=kept) as log:
        log.write("losses", 3, {"loss": 0.125})

    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"event": "losses", "images": 1, "loss": 0.5},
        {"event": "losses", "images": 3, "loss": 0.125},
    ]


def test_a_full_disk_is_a_storage_error() -> None:
    with RunLog(Path("/dev/full"), keep=0) as log, pytest.raises(StorageError, match="No space left"):
        log.write("losses", 1, {})


def test_window_weights_by_images_and_begins_anew() -> None:
    window = LossWindow()
    window.add({"loss": 1.0}, 30)
    window.add({"loss": 5.0}, 10)

    assert window.take() == {"loss": 2.0}

    window.add({"loss": 7.0}, 3)
    assert window.take() == {"loss": 7.0}


def test_a_loss_of_some_steps_is_averaged_over_those() -> None:
    window = LossWindow()
    window.add({"loss": 1.0, "penalty": 6.0}, 10)
    for _ in range(3):
        window.add({"loss": 1.0}, 10)

    assert window.take() == {"loss": 1.0, "penalty": 6.0}

    window.add({"loss": 2.0}, 10)
    assert window.take() == {"loss": 2.0}
