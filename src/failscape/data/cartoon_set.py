"""The Cartoon Set of Google: a folder of `cs….png`, each with its attributes in a `cs….csv` beside it."""

import csv
from contextlib import suppress
from pathlib import Path

import torch

from failscape.data.class_folder import FileSource
from failscape.data.images import ImageSet
from failscape.errors import DataError, LabelError, SpecError

_MAX_CSV_BYTES = 64 * 2**10
_MAX_VARIANTS = 10_000


def read_cartoon_set(folder: Path, attribute: str, *, image_shape: tuple[int, int, int] | None = None) -> ImageSet:
    """Return the images of `FOLDER/**/cs*.png`, whose classes are the variants of an attribute, "0", "1", ….

    All CSV files are read at once, images when they are asked for. Ids are the paths inside `FOLDER`.

    Args:
        folder: `cartoonset10k` or `cartoonset100k`, as unpacked.
        attribute: such as `hair_color`.
        image_shape: `(C, H, W)` to which the images, 500 x 500 pixels, are converted; by default they stay so.

    Raises:
        SpecError: if there is no such attribute.
        DataError: if the folder holds no such images, or a CSV file is missing.
        LabelError: if a CSV file is broken.
        ImageError: if the first image is unreadable.

    References:
        Google, "Cartoon Set", https://google.github.io/cartoonset, CC BY 4.0.
    """
    files = sorted(folder.rglob("cs*.png"))
    if not files:
        raise DataError(
            f"Expected the Cartoon Set in {folder}, images cs….png each with a cs….csv, but got no such image. Give "
            "the folder that cartoonset10k.tgz or cartoonset100k.tgz was unpacked into."
        )
    labels, counts = [], set()
    for file in files:
        table = file.with_suffix(".csv")
        attributes = _read_attributes(table)
        if attribute not in attributes:
            raise SpecError(
                f"Expected an attribute of the Cartoon Set ({', '.join(attributes)}), but got {attribute!r}, which is "
                f"not in {table}. Give one of these after the #."
            )
        label, count = attributes[attribute]
        labels.append(label)
        counts.add(count)
    if len(counts) > 1:
        raise LabelError(
            f"Expected the same number of variants of {attribute} in all CSV files of {folder}, but got "
            f"{', '.join(map(str, sorted(counts)))}. Take the files of one set only."
        )
    source = FileSource(folder, files, image_shape)
    class_names = tuple(str(k) for k in range(counts.pop()))
    return ImageSet(
        source, torch.tensor(labels), class_names, ids=source.ids, name=f"{folder.resolve().name}-{attribute}"
    )


def _read_attributes(table: Path) -> dict[str, tuple[int, int]]:
    """Return the variant and the number of variants of each attribute, from lines such as `"hair_color", 3, 10`."""
    attributes: dict[str, tuple[int, int]] = {}
    for number, line in enumerate(_lines(table), start=1):
        with suppress(ValueError):
            name, variant, count = line
            if 0 <= int(variant) < int(count) <= _MAX_VARIANTS and name not in attributes:
                attributes[name] = int(variant), int(count)
                continue
        raise LabelError(
            f'Expected lines such as "hair_color", 3, 10 (name, variant, number of variants) in {table}, but line '
            f"{number} is {', '.join(line)!r}. Unpack the file again."
        )
    if not attributes:
        raise LabelError(f"Expected attributes in {table}, but it is empty. Unpack the file again.")
    return attributes


def _lines(table: Path) -> list[list[str]]:
    try:
        if table.stat().st_size > _MAX_CSV_BYTES:
            raise LabelError(f"Expected a few lines in {table}, but it is larger than 64 KiB. Unpack the file again.")
        with table.open(encoding="utf-8", newline="") as file:
            return [line for line in csv.reader(file, skipinitialspace=True) if line]
    except OSError as error:
        raise DataError(
            f"Expected the attributes of {table.stem}.png in {table}, but got: {error.strerror}. Unpack the set again, "
            "or remove the image."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabelError(f"Expected a CSV file {table}, but got: {error}. Unpack the file again.") from error
