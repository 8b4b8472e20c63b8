import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from failscape.errors import CheckpointError, StorageError
from failscape.training.checkpoint import has_checkpoint, load_checkpoint, restore_layout, save_checkpoint


def state_at(images: int) -> dict[str, Any]:
    return {"weights": torch.full((5, 4), float(images)), "images": images}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse to grow any file beyond `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def same(first: Any, second: Any) -> bool:
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def test_any_state_comes_back_with_its_types(tmp_path: Path) -> None:
    network = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=1 / 3)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {
        "optimizer": optimizer.state_dict(),
        "rng": torch.Generator().manual_seed(7).get_state(),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
        "scalar": torch.tensor(3),
        "empty": {},
        "nested": [(1, 2.5, None), {"a": [True, "text"], 4: ()}],
        "infinite": [float("inf"), float("-inf")],
        "tensor": "a name that means something inside",
    }

    save_checkpoint(tmp_path, 640, state)
    images, loaded = load_checkpoint(tmp_path)

    assert images == 640
    assert same(loaded, state)


def test_tied_weights_come_back(tmp_path: Path) -> None:
    weight = torch.arange(6.0)

    save_checkpoint(tmp_path, 1, {"a": weight, "b": weight.view(2, 3), "c": weight[2:4]})

    _, loaded = load_checkpoint(tmp_path)
    assert same(loaded, {"a": weight, "b": weight.view(2, 3), "c": weight[2:4]})


def test_keeps_the_previous_and_removes_older_and_half_written(tmp_path: Path) -> None:
    for images in (5, 100, 2000):
        (tmp_path / f".{images:012d}.safetensors.1.tmp").write_bytes(b"killed")
        save_checkpoint(tmp_path, images, state_at(images))

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{images:012d}.{suffix}" for images in (100, 2000) for suffix in ("json", "safetensors")
    ]


@pytest.mark.parametrize("suffix", ["safetensors", "json"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "missing"])
def test_a_broken_checkpoint_falls_back_to_the_one_before(
    suffix: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for images in (100, 200):
        save_checkpoint(tmp_path, images, state_at(images))
    broken = tmp_path / f"000000000200.{suffix}"
    content = bytearray(broken.read_bytes())
    if damage == "missing":
        broken.unlink()
    elif damage == "flipped":
        # The last digit in the manifest is that of "images" in the state; in the tensors, of a weight.
        place = max(k for k, byte in enumerate(content) if byte in b"0123456789") if suffix == "json" else -1
        content[place] ^= 1
        broken.write_bytes(content)
    else:
        broken.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")

    with caplog.at_level(logging.WARNING):
        images, state = load_checkpoint(tmp_path)

    assert images == 100
    assert same(state, state_at(100))
    # Without its manifest a checkpoint was never completed: nothing to warn of.
    assert ("200 images is broken" in caplog.text) == (damage != "missing" or suffix != "json")


def test_no_intact_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is none"):
        load_checkpoint(tmp_path)
    assert not has_checkpoint(tmp_path / "missing")

    save_checkpoint(tmp_path, 100, state_at(100))
    (tmp_path / "000000000100.safetensors").write_bytes(b"")

    assert has_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="all are broken"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("fitting", [[], ["000000000100.safetensors"]])
def test_a_full_disk_leaves_the_earlier_checkpoint_whole(fitting: list[str], tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 100, state_at(100))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    # Room for nothing, or for the tensors but not for the manifest.
    limit = max((len(before[name]) for name in fitting), default=0)
    assert limit < len(before["000000000100.json"])

    with pytest.raises(StorageError) as caught, largest_file(limit):
        save_checkpoint(tmp_path, 200, state_at(200))

    assert "\n" not in str(caught.value)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert load_checkpoint(tmp_path)[0] == 100
    assert not list(tmp_path.glob("*.tmp"))


def test_moments_get_the_layout_of_their_parameters(tmp_path: Path) -> None:
    network = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    network(torch.rand(1, 2, 5, 5)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path, 1, {"optimizer": optimizer.state_dict()})
    expected = optimizer.state[network.weight]["exp_avg"].clone()
    assert not expected.is_contiguous()

    optimizer.load_state_dict(load_checkpoint(tmp_path)[1]["optimizer"])
    restore_layout(optimizer)

    moment = optimizer.state[network.weight]["exp_avg"]
    assert moment.stride() == network.weight.stride()
    assert torch.equal(moment, expected)
