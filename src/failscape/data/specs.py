"""From what a person types to an image set."""

import re
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

import torch

from failscape.data.avatar_faces import TRAITS
from failscape.data.avatars import read_avatars
from failscape.data.cartoon_set import read_cartoon_set
from failscape.data.celeba import CelebaSplit, read_celeba
from failscape.data.class_folder import read_class_folder
from failscape.data.corrupted import RECIPES, Recipe, corrupted, parse_recipe
from failscape.data.encoded import SUFFIXES
from failscape.data.idx import read_idx_pair
from failscape.data.images import ImageSet
from failscape.data.moons import read_moons
from failscape.data.npz import read_npz
from failscape.data.parquet import read_parquet
from failscape.data.published import EMBEDDED_DIGITS, PUBLISHED, read_embedded_digits, read_published
from failscape.errors import ImageError, SpecError

_AVATARS = ("avatars:hair", *(f"avatars:traits/{trait}" for trait in TRAITS))
NAMES = (
    *(f"embedded:{name}" for name in EMBEDDED_DIGITS),
    *(f"{name}{split}" for name in (*PUBLISHED, "moons", *_AVATARS) for split in ("", ":test", ":train")),
    *(f"{name}:extra" for name in _AVATARS),
)
_PART = re.compile(r"(?P<whole>.+)\[(?P<first>\d*):(?P<end>\d*)\]")
_IDX_MARKS = {"images-idx3-ubyte": "labels-idx1-ubyte", "images.idx3-ubyte": "labels.idx1-ubyte"}


def load_images(
    spec: str | Path, *, image_shape: tuple[int, int, int] | None = None, allow_one_class: bool = False
) -> ImageSet:
    """Load labelled images; nothing but labels and the first image is read before it is asked for.

    Args:
        spec: one of

            - `embedded:mnist-test`: the 10,000 test digits in this package; `embedded:mnist-train-10k`: the
              first 10,000 digits to train on;
            - `mnist` or `fashion-mnist`, with `:test` (default) or `:train`: from `$FAILSCAPE_DATA`, the
              cache folder, or a download, which is checked;
            - `moons`, likewise: points of the plane in two interleaving half circles, as images `(2, 1, 1)`;
            - `avatars:hair` (ten colours) or `avatars:traits/NAME` (two classes), likewise: cartoon faces, drawn on
              the spot, `:extra` others than those to train and test on; after `:without=glasses,no-beard` those that
              have the whole combination are left out;
            - `cartoonset:FOLDER#ATTRIBUTE`: Google's Cartoon Set by one of its attributes; `celeba:FOLDER#ATTRIBUTE`,
              with `:test` (default), `:train` or `:validation`: CelebA;
            - a folder of class folders of PNG, JPEG or WebP files; an `.npz` file; a `.parquet` file;
            - an IDX pair as `IMAGES,LABELS`, or only the images if the labels lie beside them under their
              usual name, such as `t10k-labels-idx1-ubyte.gz`.

            After any of them `[FROM:TO]` takes a part, counted from 0, such as `mnist:train[:30000]` and
            `mnist:train[30000:]`.

            Any of them may end in `+half-corrupted` or `+half-blurred-and-noised` (the recipes of two papers),
            or `+CORRUPTION@SEVERITY` such as `+gaussian_blur@3`: the images are corrupted as they are read, the
            same way each time. `*4` after it gives four independent draws, one after the other.
        image_shape: `(C, H, W)` to which encoded images (folders, Cartoon Set, CelebA, Parquet) are converted and
            resized; of other sets it is only demanded.
        allow_one_class: accept a set in which only one class occurs.

    Raises:
        SpecError: if the spec names nothing.
        DataError: if images or labels are not what they must be.
        LabelError: if only one class occurs.

    Example:
        >>> images = load_images("embedded:mnist-test")
        >>> len(images), images.image_shape, images.num_classes
        (10000, (1, 28, 28), 10)
    """
    text = str(spec)
    base, recipe, draws = _split(text)
    images = _load_part(base, image_shape)
    if image_shape is not None and images.image_shape != image_shape:
        raise ImageError(
            f"Expected images of shape {image_shape} in {base}, but got {images.image_shape}. Only encoded "
            "images are resized on reading; resize these where they were made."
        )
    if not allow_one_class:
        images.require_two_classes()
    return images if recipe is None else corrupted(images, recipe, draws=draws)


def uncorrupted(spec: str) -> str:
    """Return the spec of the same images as they were before any corruption.

    Example:
        >>> uncorrupted("embedded:mnist-test+half-corrupted")
        'embedded:mnist-test'
    """
    return _split(spec)[0]


def _split(spec: str) -> tuple[str, Recipe | None, int]:
    """Split off a recipe; a path that exists is taken as it stands, whatever is in its name."""
    base, plus, ending = spec.rpartition("+")
    if not plus or _exists(spec):
        return spec, None, 1
    try:
        return base, *parse_recipe(ending)
    except SpecError:
        # Without a set before it, the + belongs to a path, of which there is more to say.
        if base in NAMES or _names_faces(base) or _exists(base):
            raise
        return spec, None, 1


def _names_faces(spec: str) -> bool:
    """Whether a spec names avatars, or a folder and an attribute."""
    return spec.startswith("avatars:") or (spec.startswith(("cartoonset:", "celeba:")) and "#" in spec)


def _path(text: str) -> Path:
    """Return a path with its `~` resolved, if there is such a user."""
    path = Path(text)
    with suppress(RuntimeError):
        return path.expanduser()
    return path


def _exists(spec: str) -> bool:
    """Whether a spec names a path, or each part of it does."""
    with suppress(OSError, ValueError):
        return all(part.strip() and _path(part.strip()).exists() for part in spec.split(","))
    return False


def _load_part(spec: str, image_shape: tuple[int, int, int] | None) -> ImageSet:
    """Load the images from one index to before another, if the spec ends so; a path of that name is taken as such."""
    part = _PART.fullmatch(spec)
    if part is None or _exists(spec):
        return _load(spec, image_shape)
    images = _load(part["whole"], image_shape)
    rows = torch.arange(len(images))[slice(int(part["first"] or 0), int(part["end"] or len(images)))]
    if not len(rows):
        raise SpecError(
            f"Expected a part [FROM:TO] of the {len(images)} images of {part['whole']}, but {spec!r} has none. Count "
            "from 0, and let FROM be less than TO."
        )
    return images.select(rows)


def _load(spec: str, image_shape: tuple[int, int, int] | None) -> ImageSet:
    if spec.removeprefix("embedded:") != spec and spec in NAMES:
        return read_embedded_digits(spec.removeprefix("embedded:"))
    if spec == "avatars" or spec.startswith("avatars:"):
        return read_avatars(spec)
    if spec.startswith("cartoonset:"):
        folder, attribute = _folder_and_attribute(spec)
        return read_cartoon_set(folder, attribute, image_shape=image_shape)
    if spec.startswith("celeba:"):
        folder, ending = _folder_and_attribute(spec)
        attribute, colon, part = ending.partition(":")
        return read_celeba(folder, attribute, _celeba_split(part) if colon else "test", image_shape=image_shape)
    if spec in NAMES:
        name, _, ending = spec.partition(":")
        split: Split = "train" if ending == "train" else "test"
        return read_moons(split) if name == "moons" else read_published(name, split)
    path = _path(spec)
    if spec and path.is_dir():
        return read_class_folder(path, image_shape=image_shape)
    if path.is_file() and path.suffix == ".npz":
        return read_npz(path)
    if path.is_file() and path.suffix == ".parquet":
        return read_parquet(path, image_shape=image_shape)
    pair = _idx_pair(spec, path)
    if pair is not None:
        return read_idx_pair(*pair, name=_idx_name(pair[0]))
    raise SpecError(_what_is_wrong(spec, path))


def _folder_and_attribute(spec: str) -> tuple[Path, str]:
    """Split `NAME:FOLDER#ATTRIBUTE`; of an attribute that is missing the reader says which there are."""
    name, _, rest = spec.partition(":")
    text, _, attribute = rest.rpartition("#") if "#" in rest else (rest, "", "")
    folder = _path(text)
    if not folder.is_dir():
        raise SpecError(
            f"Expected {name}:FOLDER#ATTRIBUTE, but got {spec!r}, and there is no folder {folder}. Check the spelling "
            "and the current folder."
        )
    return folder, attribute


def _celeba_split(text: str) -> CelebaSplit:
    splits: tuple[CelebaSplit, ...] = get_args(CelebaSplit)
    for split in splits:
        if text == split:
            return split
    raise SpecError(
        f"Expected a part of CelebA ({', '.join(splits)}) after the attribute, but got {text!r}. Choose one of these."
    )


def _idx_pair(spec: str, path: Path) -> tuple[Path, Path] | None:
    """Return images and labels if the spec is a pair, or images with their labels beside them."""
    if path.is_file():
        for mark, label_mark in _IDX_MARKS.items():
            if mark not in path.name:
                continue
            stem = path.name.removesuffix(".gz").replace(mark, label_mark)
            for labels in (path.with_name(stem), path.with_name(f"{stem}.gz")):
                if labels.is_file():
                    return path, labels
            raise SpecError(
                f"Expected the labels of {path} beside it, but there is neither {stem} nor {stem}.gz. Give "
                "both files as IMAGES,LABELS."
            )
        return None
    first, comma, second = spec.partition(",")
    images, labels = _path(first.strip()), _path(second.strip())
    if comma and images.is_file() and labels.is_file():
        return images, labels
    return None


def _idx_name(images: Path) -> str:
    return images.name.removesuffix(".gz").removesuffix("-images-idx3-ubyte").removesuffix("-images.idx3-ubyte")


def _what_is_wrong(spec: str, path: Path) -> str:
    names = [name for name in NAMES if not name.startswith("avatars:traits/")]
    understood = (
        f"Expected {', '.join(names)}, avatars:traits/NAME, cartoonset:FOLDER#ATTRIBUTE, celeba:FOLDER#ATTRIBUTE, a "
        f"folder of class folders, an .npz or .parquet file, or an IDX pair as IMAGES,LABELS, each with "
        f"{', '.join(f'+{name}' for name in RECIPES)} or +CORRUPTION@SEVERITY if wanted"
    )
    if path.is_file():
        if path.suffix.lower() in SUFFIXES:
            advice = "Put it into a class folder and give the folder above."
            return f"{understood}, but {spec!r} is a single image. {advice}"
        return f"{understood}, but {spec!r} is a file of another kind. Convert it to one of these."
    siblings: list[str] = []
    with suppress(OSError):
        siblings = [entry.name for entry in path.parent.iterdir()]
    close = [
        *get_close_matches(spec, NAMES, n=2),
        *(str(path.parent / name) for name in get_close_matches(path.name, siblings, n=2)),
    ]
    advice = f"Did you mean {' or '.join(close)}?" if close else "Check the spelling and the current folder."
    return f"{understood}, but {spec!r} is none of these and no such path exists. {advice}"
