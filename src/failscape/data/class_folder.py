"""A folder of image files, one folder a class."""

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.data.encoded import SUFFIXES, ImageDecoder
from failscape.data.ids import spelled
from failscape.data.images import ImageSet
from failscape.errors import DataError


def read_class_folder(folder: Path, *, image_shape: tuple[int, int, int] | None = None) -> ImageSet:
    """Return the set of `FOLDER/CLASS/**/*.png|jpg|jpeg|webp`.

    Classes are the folders in `FOLDER`, sorted by name, one without images too, so that numbers stay what
    they were when a classifier was trained on such a folder. Hidden files and folders are left out. Files are
    listed now and decoded when they are read; ids are their paths inside `FOLDER`, in which bytes that are no UTF-8
    are spelled out.

    Args:
        folder: holds one folder a class.
        image_shape: `(C, H, W)` to which all images are converted; by default they must be as the first.

    Raises:
        DataError: if there is no class folder, or no image in any.
        ImageError: if the first image is unreadable.
    """
    try:
        classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not _is_hidden(entry))
        found = [(path, label) for label, entry in enumerate(classes) for path in _images_in(entry)]
    except OSError as error:
        raise DataError(f"Expected a readable folder {folder}, but got: {error.strerror}. Check its rights.") from error
    if not found:
        loose = sum(1 for _ in _images_in(folder))
        got = f"{loose} images outside any class folder" if loose else "none"
        raise DataError(
            f"Expected images as {folder}/CLASS/NAME.png (or jpg, jpeg, webp), but got {got}. Put each image "
            "into a folder named after its class."
        )
    source = FileSource(folder, [path for path, _ in found], image_shape)
    y = torch.tensor([label for _, label in found])
    names = tuple(spelled(entry.name) for entry in classes)
    return ImageSet(source, y, names, ids=source.ids, name=spelled(folder.resolve().name))


class FileSource:
    """Decodes image files one by one.

    Args:
        folder: what the ids, the files' paths as text, are relative to.
        files: at least one.
        image_shape: `(C, H, W)` to which all are converted; by default they must be as the first.

    Raises:
        ImageError: if the first image is unreadable.
    """

    def __init__(self, folder: Path, files: list[Path], image_shape: tuple[int, int, int] | None) -> None:
        self._folder = folder
        self._files = tuple(file.relative_to(folder).as_posix() for file in files)
        self.ids = tuple(map(spelled, self._files))
        self._decoder = ImageDecoder(files[0], str(files[0]), image_shape=image_shape)
        self.image_shape = self._decoder.image_shape

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, indices: Int[Tensor, " N"]) -> Float[Tensor, "N C H W"]:
        """Decode the files at `indices`, in that order."""
        files = [self._folder / self._files[i] for i in indices.tolist()]
        return torch.stack([self._decoder.decode(file, str(file)) for file in files])


def _images_in(folder: Path) -> Iterator[Path]:
    """Yield the image files in a folder and the folders in it, in a fixed order."""
    for entry in sorted(folder.iterdir()):
        if _is_hidden(entry):
            continue
        if entry.is_dir():
            yield from _images_in(entry)
        elif entry.suffix.lower() in SUFFIXES:
            yield entry


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")
