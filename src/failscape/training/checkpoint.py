"""Checkpoints that survive a crash at any instant.

A checkpoint is `NUMBER.safetensors` with every tensor and then `NUMBER.json`, the manifest, with all else and
the SHA-256 of both parts. The manifest is written last: without it the tensors do not count. The checkpoint
before is kept, so that one broken file loses an interval and not the training.
"""

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from failscape.errors import CheckpointError, WeightsError
from failscape.storage import digest, read_json, read_tensors, write_json, write_tensors

_log = logging.getLogger(__name__)


def save_checkpoint(folder: Path, images: int, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, then remove all but it and the one before.

    Args:
        folder: of this training's checkpoints alone.
        images: seen so far; names the checkpoint.
        state: dictionaries, lists and tuples, nested at will, of tensors, numbers, strings, booleans, None.

    Raises:
        StorageError: if it cannot be written; the checkpoints before are untouched.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _encode(dict(state), "", tensors)
    weights, manifest = folder / f"{images:012d}.safetensors", folder / f"{images:012d}.json"
    write_tensors(weights, tensors)
    sums = {weights.name: digest(weights), "state": _digest_of(skeleton)}
    write_json(manifest, {"images": images, "sha256": sums, "state": skeleton})
    _remove_older(folder, images)


def load_checkpoint(folder: Path) -> tuple[int, dict[str, Any]]:
    """Read the newest intact checkpoint.

    Returns:
        The images seen, and the state as it was saved.

    Raises:
        CheckpointError: if there is none.
    """
    numbers = _numbers(folder)
    for number in reversed(numbers):
        try:
            return number, _read(folder, number)
        except WeightsError as error:
            _log.warning("Checkpoint at %d images is broken; trying the one before. %s", number, error)
    raise CheckpointError(
        f"Expected an intact checkpoint in {folder}, but {'all are broken' if numbers else 'there is none'}. "
        "Restore the folder from a copy, or start the training again in a new one."
    )


def has_checkpoint(folder: Path) -> bool:
    """Tell whether a checkpoint was ever completed here, intact or not."""
    return bool(_numbers(folder))


def _read(folder: Path, number: int) -> dict[str, Any]:
    weights, manifest = folder / f"{number:012d}.safetensors", folder / f"{number:012d}.json"
    content = read_json(manifest)
    try:
        sums, skeleton = content["sha256"], content["state"]
        if not weights.is_file() or digest(weights) != sums[weights.name] or _digest_of(skeleton) != sums["state"]:
            raise WeightsError(f"Expected the sums written in {manifest.name}, but the content has others.")
        state = _decode(skeleton, read_tensors(weights))
    except (KeyError, TypeError, OSError) as error:
        raise WeightsError(f"Expected a complete manifest in {manifest.name}, but got: {error!r}.") from error
    assert isinstance(state, dict)
    return state


def _numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal())


def _remove_older(folder: Path, images: int) -> None:
    kept = {images, *[number for number in _numbers(folder) if number < images][-1:]}
    names = {f"{number:012d}{suffix}" for number in kept for suffix in (".safetensors", ".json")}
    # Manifests first, so that none is ever left to promise tensors that are gone. What cannot be removed does
    # no harm. Temporary files of killed writes go too.
    for path in sorted(folder.iterdir(), key=lambda path: path.suffix != ".json"):
        if path.name not in names:
            with suppress(OSError):
                path.unlink()


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return `value` as JSON that keeps all types, and put its tensors into `tensors` under their paths."""
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, Mapping):
        return {"dict": [[key, _encode(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{path}/{k}", tensors) for k, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    assert value is None or isinstance(value, bool | int | float | str), f"{path}: {type(value).__name__}"
    return value


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in content}
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    return float(content)


def _digest_of(skeleton: Any) -> str:
    return hashlib.sha256(json.dumps(skeleton).encode()).hexdigest()


def restore_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lay the moments of an optimiser out in memory as its parameters are.

    Files hold them in plain order, but a fused step over `channels_last` parameters takes equal layouts for
    granted.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
