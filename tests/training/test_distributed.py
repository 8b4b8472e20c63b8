import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from failscape.errors import TrainingError
from failscape.storage import read_tensors
from failscape.training import GANSettings, start_run
from failscape.training.adversarial import AdaptiveAugmentation
from failscape.training.augmentation import jitter
from failscape.training.distributed import Workers, find_device, process_group, workers
from failscape.training.guidance import guarded

SCRIPT = Path(__file__).with_name("sharing.py")
VARYING = {"seconds", "images_per_second"}


class TestShares:
    def test_cover_the_batch_in_order(self) -> None:
        rows = torch.arange(12)
        shares = [rows[Workers(rank=rank, world=3).share_of(12)] for rank in range(3)]
        assert torch.equal(torch.cat(shares), rows)
        assert {len(share) for share in shares} == {4}

    def test_must_be_even(self) -> None:
        with pytest.raises(
            TrainingError, match=r"3 processes can share evenly, but got one of 64 images.*multiples of 3"
        ):
            Workers(rank=0, world=3).share_of(64)

    def test_of_a_draw_are_rows_of_one_draw_for_all(self) -> None:
        def draw(n: int) -> Tensor:
            return torch.randn(n, 5, generator=torch.Generator().manual_seed(0))

        shares = [Workers(rank=rank, world=3).mine(draw, 4) for rank in range(3)]
        assert torch.equal(torch.cat(shares), draw(12))


@pytest.mark.parametrize("change", ["jitter", "guarded", "augmentation"])
def test_two_processes_change_images_as_one_does(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def changed(part: Tensor, group: Workers) -> Tensor:
        for module in ("adversarial", "augmentation", "guidance"):
            monkeypatch.setattr(f"failscape.training.{module}.workers", lambda: group)
        augmentation = AdaptiveAugmentation()
        augmentation.probability = 0.5
        rng = torch.Generator().manual_seed(1)
        return {"jitter": jitter, "guarded": guarded, "augmentation": augmentation}[change](part, rng=rng)

    whole = changed(x, Workers())
    parts = [changed(x[8 * rank : 8 * rank + 8], Workers(rank=rank, world=2)) for rank in range(2)]

    assert not torch.equal(whole, x)
    torch.testing.assert_close(torch.cat(parts), whole)


def test_without_torchrun_there_is_one_process() -> None:
    with process_group("cpu") as group:
        assert group == workers() == Workers(rank=0, world=1)
        assert group.agree(lambda: 7) == group.in_turn(lambda: 7) == 7
        value = torch.rand(3)
        assert torch.equal(group.mean(value), value)


class TestDevice:
    def test_of_a_processor_is_always_there(self) -> None:
        assert find_device("cpu") == torch.device("cpu")

    def test_of_a_graphics_card_may_be_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        with pytest.raises(TrainingError, match=r"'cuda:1', but this PyTorch .* finds none. Train with --device cpu"):
            find_device("cuda:1")

    @pytest.mark.parametrize(
        ("name", "rank", "found"), [("cuda", "0", 0), ("cuda", "1", 1), ("cuda:1", None, 1), ("cuda", None, 0)]
    )
    def test_of_each_process_is_its_own(
        self, name: str, rank: str | None, found: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        if rank is not None:
            monkeypatch.setenv("WORLD_SIZE", "2")
            monkeypatch.setenv("LOCAL_RANK", rank)
        assert find_device(name) == torch.device("cuda", found)

    def test_must_be_among_those_of_the_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        with pytest.raises(TrainingError, match="up to number 2, but this machine has 2"):
            find_device("cuda:2")
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(TrainingError, match="'cuda' for several processes"):
            find_device("cuda:1")


def records(folder: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key not in {"event", *VARYING}}
        for line in lines
        if line["event"] == event
    ]


# One start of the processes serves all, because torch takes seconds to import in each of them.
def test_two_processes_do_what_one_does_and_end_together(
    gan_settings: GANSettings, stripes_file: Path, tmp_path: Path
) -> None:
    # So slow that a rounding which tips a leaky ReLU over its kink, as happens by chance, is not amplified beyond the
    # bound below. Gradients that are not shared still are, from the second step.
    changes = {"data": str(stripes_file), "validation": str(stripes_file), "bf16": False, "learning_rate": 5e-4}
    settings = gan_settings.model_copy(update=changes | {"perceive": True})
    (tmp_path / "settings.toml").write_text(settings.to_toml())
    alone = start_run(settings, tmp_path / "alone")

    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, SCRIPT, tmp_path / "settings.toml", tmp_path],
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]

    # The loss curve, with every part of a step on, and the evaluations.
    together = Path(told[0]["folder"])
    for event in ("losses", "evaluation"):
        expected, got = records(alone, event), records(together, event)
        assert len(expected) == len(got) == {"losses": 12, "evaluation": 2}[event]
        for record, other in zip(expected, got, strict=True):
            assert record == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert {"r1", "r2", "guidance", "encoder_latent"} <= records(together, "losses")[-3].keys()

    # One folder with one of each file; what was resumed by both ends with the same bits.
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == ["00001-gan"]
    assert records(together, "start")[0]["processes"] == records(together, "resume")[0]["processes"] == 2
    again, first = read_tensors(together / "generator.safetensors"), read_tensors(tmp_path / "generator.safetensors")
    assert all(torch.equal(again[name], first[name]) for name in first)
    assert sorted(path.name for path in (together / "samples").iterdir()) == ["000000096.png", "000000192.png"]

    # Both are told the same, and nothing is left behind that could not be.
    assert told[0].pop("turns") == 0
    assert told[1].pop("turns") == 1
    assert told[0] == told[1]
    assert told[0]["world"] == 2
    assert told[0]["nan"].startswith("TrainingError: Expected finite")
    last = max(int(path.stem) for path in tmp_path.glob("nan/*/checkpoints/*.json"))
    assert f"after {last + 16} images" in told[0]["nan"]
    assert told[0]["vae"].startswith("TrainingError: Expected one process for the training of a vae, but got 2.")
    assert told[0]["odd"].startswith("TrainingError: Expected batches that 2 processes can share evenly")
    assert told[0]["first"] == "DataError: Expected what only the first process looks for."
    assert not (tmp_path / "vae").exists()
    assert not (tmp_path / "odd").exists()
