"""CelebA in its published layout: aligned photographs, forty binary attributes, and three parts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch

from failscape.data.class_folder import FileSource
from failscape.data.images import ImageSet
from failscape.errors import DataError, LabelError, SpecError

CelebaSplit = Literal["train", "validation", "test"]

_IMAGES = "img_align_celeba"
_ATTRIBUTES = "list_attr_celeba.txt"
_PARTITION = "list_eval_partition.txt"
_PARTS: dict[str, CelebaSplit] = {"0": "train", "1": "validation", "2": "test"}


def read_celeba(
    folder: Path, attribute: str, split: CelebaSplit, *, image_shape: tuple[int, int, int] | None = None
) -> ImageSet:
    """Return a part of CelebA, whose two classes are the absence ("not Smiling") and the presence of an attribute.

    The two lists are read at once, images when they are asked for. Ids are the names of the files.

    Args:
        folder: holds `img_align_celeba/*.jpg`, `list_attr_celeba.txt` and `list_eval_partition.txt`, which may also
            lie in its folders `Img`, `Anno` and `Eval`, as published.
        attribute: such as `Smiling`.
        split: as the partition file has it.
        image_shape: `(C, H, W)` to which the images, 178 x 218 pixels, are converted; by default they stay so.

    Raises:
        SpecError: if there is no such attribute.
        DataError: if a file is missing, the part is empty, or an image of it is not in the folder.
        LabelError: if one of the lists is broken.
        ImageError: if the first image is unreadable.

    References:
        Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
    """
    images = _found(folder, _IMAGES, "Img")
    has = _read_attribute(_found(folder, _ATTRIBUTES, "Anno"), attribute)
    partition = _found(folder, _PARTITION, "Eval")
    names = [name for name, part in _read_partition(partition) if part == split]
    if not names:
        raise DataError(f"Expected images of the part {split} in {partition}, but got none. Choose another part.")
    there = {entry.name for entry in images.iterdir()}
    for name in names:
        if name not in there:
            raise DataError(
                f"Expected all images of the part {split} in {images}, but {name} is not there. Unpack "
                f"{_IMAGES}.zip again."
            )
        if name not in has:
            raise LabelError(f"Expected the attributes of {name} in {_ATTRIBUTES}, but got none. Download it again.")
    source = FileSource(images, [images / name for name in names], image_shape)
    y = torch.tensor([has[name] for name in names])
    return ImageSet(source, y, (f"not {attribute}", attribute), ids=source.ids, name=f"celeba-{attribute}-{split}")


def _found(folder: Path, name: str, published_in: str) -> Path:
    for path in (folder / name, folder / published_in / name):
        if path.exists():
            return path
    raise DataError(
        f"Expected {name} in {folder} or in {folder / published_in}, but it is in neither. CelebA is "
        f"{_IMAGES}/*.jpg, {_ATTRIBUTES} and {_PARTITION}; put all three there."
    )


def _read_attribute(file: Path, attribute: str) -> dict[str, int]:
    """Return who has an attribute: the second line names all, each later one has a file name and 1 or -1 for each."""
    lines = _words(file)
    _, count = next(lines, (1, ()))
    _, attributes = next(lines, (2, ()))
    if len(count) != 1 or not attributes:
        raise LabelError(
            f"Expected the number of images and the names of the attributes in the first two lines of {file}, but got "
            f"{' '.join(count)[:60]!r} and {' '.join(attributes)[:60]!r}. Download it again."
        )
    if attribute not in attributes:
        raise SpecError(
            f"Expected an attribute of CelebA ({', '.join(attributes)}), but got {attribute!r}. Give one of these "
            "after the #."
        )
    column = 1 + list(attributes).index(attribute)
    has = {}
    for number, words in lines:
        if len(words) != 1 + len(attributes) or words[column] not in ("1", "-1"):
            raise LabelError(
                f"Expected a file name and {len(attributes)} times 1 or -1 in line {number} of {file}, but got "
                f"{' '.join(words)[:60]!r}. Download it again."
            )
        has[words[0]] = int(words[column] == "1")
    return has


def _read_partition(file: Path) -> Iterator[tuple[str, CelebaSplit]]:
    for number, words in _words(file):
        if len(words) != 2 or words[1] not in _PARTS:
            raise LabelError(
                f"Expected a file name and 0, 1 or 2 in line {number} of {file}, but got {' '.join(words)[:60]!r}. "
                "Download it again."
            )
        yield words[0], _PARTS[words[1]]


def _words(file: Path) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield the number and the words of each line that is not empty."""
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if words := line.split():
                    yield number, words
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Expected a readable text file {file}, but got: {error}. Download it again.") from error
