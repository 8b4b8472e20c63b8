"""Writing and reading files so that a crash, a full disk or a hostile file does no harm.

Everything is written to a temporary file beside its target, synced, and renamed, so a reader sees the old
file or the new one and never half of either. Weights are safetensors with a JSON file of the same name beside
them; nothing that is read can run code.
"""

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from importlib.resources import as_file
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from failscape.errors import SpecError, StorageError, WeightsError

FORMAT_VERSION = 1
_PICKLE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin"}
_MAX_JSON_BYTES = 64 * 2**20
_RUN_FOLDER = re.compile(r"(\d{5,})-([A-Za-z0-9][A-Za-z0-9._-]*)")


def asset_names(folder: Traversable, suffix: str) -> list[str]:
    """Return the names of a folder's files with a suffix, without it, sorted; of the package's own or any other."""
    return sorted(entry.name.removesuffix(suffix) for entry in folder.iterdir() if entry.name.endswith(suffix))


@contextmanager
def located_model(spec: str | Path, assets: Traversable, kinds: str) -> Iterator[Path]:
    """Yield where a model that the package embeds, or that failscape saved, lies.

    Args:
        spec: `embedded:NAME`, or a folder or file.
        assets: the folder of the embedded ones.
        kinds: what may be named beside these, for the message.

    Raises:
        SpecError: if the spec names nothing.
    """
    text = str(spec)
    if text.startswith("embedded:"):
        name, names = text.removeprefix("embedded:"), asset_names(assets, ".json")
        if name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"Did you mean embedded:{near[0]}?" if near else "Name one of these."
            raise SpecError(f"Expected one of embedded:{', embedded:'.join(names)}, but got {text!r}. {hint}")
        with as_file(assets) as folder:
            yield folder / f"{name}.safetensors"
        return
    path = Path(text)
    if not path.exists():
        raise SpecError(
            f"Expected a {kinds}, but {text!r} is none of these and no such path exists. Check the spelling and the "
            "current folder."
        )
    yield path


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; sync it and rename it to `target` when the block ends well.

    Raises:
        StorageError: if the file cannot be written (read-only folder, full disk).
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        temporary.replace(target)
        _sync(target.parent)
    except OSError as error:
        raise StorageError(
            f"Expected to write {target}, but got: {error.strerror or error}. "
            "Free some space or choose another folder; what was there before is untouched."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(target: Path, content: bytes) -> None:
    """Replace `target` by `content` in one step."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_json(target: Path, content: Mapping[str, Any]) -> None:
    """Replace `target` by `content` as indented JSON in one step."""
    write_bytes(target, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_json(source: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        WeightsError: if the file is missing, too large, not JSON, or not an object.
    """
    try:
        if source.stat().st_size > _MAX_JSON_BYTES:
            raise WeightsError(f"Expected {source} to be a small JSON file, but it is larger than 64 MiB.")
        content = json.loads(source.read_bytes())
    except OSError as error:
        raise WeightsError(f"Expected a readable file {source}, but got: {error.strerror}. Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"Expected JSON in {source}, but got: {error}. Save it again.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"Expected a JSON object in {source}, but got {type(content).__name__}.")
    return content


def write_tensors(target: Path, tensors: Mapping[str, Tensor]) -> None:
    """Replace `target` by `tensors` as safetensors in one step; tensors that share memory are stored apart."""
    content: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        content[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    with atomic_path(target) as temporary:
        # Serialising first keeps a full disk an OSError of ours instead of the library's own.
        temporary.write_bytes(safetensors.torch.save(content))


def read_tensors(source: Path) -> dict[str, Tensor]:
    """Read safetensors.

    Raises:
        WeightsError: if the file is missing, a pickle, truncated, or not safetensors.
    """
    if source.suffix.lower() in _PICKLE_SUFFIXES:
        raise WeightsError(
            f"Expected a .safetensors file, but got {source.name}, which may be a pickle and could run code "
            "when loaded. Convert it with safetensors.torch.save_file(state_dict, 'weights.safetensors')."
        )
    try:
        with source.open("rb") as file:
            head = file.read(9)
        # The length of the header comes first, and may look like the beginning of a pickle; its brace does not.
        begins = head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or head[:4] == b"PK\x03\x04"
        if begins and head[8:] != b"{":
            raise WeightsError(
                f"Expected safetensors in {source}, but it holds a pickle, which could run code when loaded. "
                "Convert it with safetensors.torch.save_file(state_dict, 'weights.safetensors')."
            )
        return safetensors.torch.load(source.read_bytes())
    except OSError as error:
        raise WeightsError(f"Expected a readable file {source}, but got: {error.strerror}. Check the path.") from error
    except (SafetensorError, ValueError, KeyError, TypeError, MemoryError, struct.error, RuntimeError) as error:
        raise WeightsError(
            f"Expected intact safetensors in {source}, but got: {error}. Copy or download the file again."
        ) from error


def digest(source: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_model(target: Path, kind: str, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Save a trained thing as `NAME.safetensors` with `NAME.json` beside it.

    Args:
        target: a folder, which will hold `KIND.safetensors` and `KIND.json`, or a `.safetensors` path.
        kind: "classifier" or "generator".
        tensors: the state of the network.
        description: what is needed to build the network again, and where it came from.
    """
    weights = target if target.suffix == ".safetensors" else target / f"{kind}.safetensors"
    write_tensors(weights, tensors)
    header = {"format": FORMAT_VERSION, "kind": kind, "sha256": digest(weights)}
    write_json(weights.with_suffix(".json"), header | dict(description))


def load_model(source: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load what `save_model` wrote, from its folder, its `.safetensors` or its `.json` path.

    Raises:
        WeightsError: if either file is missing, broken, of another kind, or they do not belong together.
    """
    if source.suffix.lower() in _PICKLE_SUFFIXES:
        read_tensors(source)
    weights = source / f"{kind}.safetensors" if source.is_dir() else source.with_suffix(".safetensors")
    if not weights.is_file():
        raise WeightsError(
            f"Expected a {kind} saved by failscape at {source}, but there is no file {weights}. Check the path."
        )
    tensors = read_tensors(weights)
    description = read_json(weights.with_suffix(".json"))
    if description.get("kind") != kind or description.get("format") != FORMAT_VERSION:
        raise WeightsError(
            f"Expected {weights.with_suffix('.json').name} to describe a {kind} of format "
            f"{FORMAT_VERSION}, but got kind "
            f"{description.get('kind')!r} of format {description.get('format')!r}."
        )
    if description.get("sha256") != digest(weights):
        raise WeightsError(
            f"Expected {weights.name} to have the SHA-256 written in its JSON file, but it differs: the "
            "two do not belong together. Save or copy both again."
        )
    return tensors, description


def fill_network(network: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Put saved weights, of whatever precision, into a network, which may have been built on the meta device.

    Raises:
        WeightsError: if names or shapes differ from the network's, or a weight is not finite.
    """
    state = network.state_dict()
    wrong = sorted(state.keys() ^ tensors.keys()) or sorted(k for k in state if state[k].shape != tensors[k].shape)
    if wrong:
        raise WeightsError(
            f"Expected the weights of {name} to fit its architecture, but {wrong[0]!r} is missing, unknown, "
            "or of another shape. Load the file with the description that it was saved with."
        )
    # In the network's own layout, since a convolution is slower in another.
    weights = {key: torch.empty_like(state[key], device=tensors[key].device).copy_(tensors[key]) for key in state}
    for key, tensor in weights.items():
        if not tensor.isfinite().all():
            raise WeightsError(f"Expected finite weights in {name}, but {key!r} holds NaN or infinity. Train again.")
    network.load_state_dict(weights, assign=any(tensor.is_meta for tensor in state.values()))
    assert not any(buffer.is_meta for buffer in network.buffers()), "a buffer is not part of the state"


def next_run_folder(parent: Path, name: str) -> Path:
    """Make the next numbered folder, such as `parent/00007-NAME`, and return its path.

    Raises:
        StorageError: if the name does not suit a folder, or the folder cannot be made.
    """
    if not _RUN_FOLDER.fullmatch(f"00001-{name}"):
        raise StorageError(
            f"Expected a run name of letters, digits, '.', '_' and '-', but got {name!r}. Choose another name."
        )
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = max((number for number, _ in _run_folders(parent)), default=0) + 1
        while True:
            folder = parent / f"{number:05d}-{name}"
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
            number += 1
    except OSError as error:
        raise StorageError(
            f"Expected to make a run folder in {parent}, but got: {error.strerror or error}. Choose another folder."
        ) from error


def latest_run_folder(parent: Path, name: str | None = None) -> Path | None:
    """Return the run folder with the highest number, of that name if one is given; None if there is none."""
    folders = _run_folders(parent) if parent.is_dir() else []
    folders = [(number, path) for number, path in folders if name in (None, path.name.partition("-")[2])]
    return max(folders)[1] if folders else None


def _run_folders(parent: Path) -> list[tuple[int, Path]]:
    matches = [(_RUN_FOLDER.fullmatch(path.name), path) for path in parent.iterdir() if path.is_dir()]
    return [(int(match[1]), path) for match, path in matches if match]


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_empty(folder: Path) -> None:
    """Refuse a folder to write into that holds something already.

    Raises:
        StorageError: if it does, or is no folder.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise StorageError(
            f"Expected a new or empty folder, but {folder} holds files. Choose another; nothing was changed."
        )
