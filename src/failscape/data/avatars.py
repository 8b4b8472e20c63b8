"""Avatars: sets of labelled cartoon faces, any number of them, drawn on the spot and kept in the cache."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray
from torch import Tensor

from failscape.data.arrays import ArraySource
from failscape.data.avatar_faces import (
    HAIR_COLOURS,
    TRAITS,
    Combination,
    Faces,
    avatar_mask,
    draw_faces,
    paint_faces,
)
from failscape.data.avatar_parts import SIDE, require_libraries
from failscape.data.images import ImageSet
from failscape.data.published import cache_folder
from failscape.errors import SpecError
from failscape.storage import atomic_path

AvatarSplit = Literal["train", "test", "extra"]
AVATAR_SPLITS: dict[AvatarSplit, tuple[int, int]] = {"train": (20_000, 1), "test": (4_000, 2), "extra": (20_000, 3)}
"""Number of faces and seed of the splits that specs name."""

_DRAWING = 1  # To be raised whenever the same face is drawn otherwise, so that no old drawing is taken for it.
_CHUNK = 2048


@dataclass(frozen=True)
class Avatars:
    """Drawn faces with all that is known of them.

    Attributes:
        faces: hair colours, traits and the rest.
        pixels: the drawings, 8 bits, in memory or mapped from the cache.
    """

    faces: Faces
    pixels: UInt8[np.ndarray, "N 3 64 64"]

    def __len__(self) -> int:
        return len(self.faces)

    def by_hair(self, *, name: str = "avatars-hair") -> ImageSet:
        """Return the set whose classes are the ten hair colours."""
        return self._images(self.faces.hair_colour, tuple(HAIR_COLOURS), name)

    def by_trait(self, trait: str, *, name: str | None = None) -> ImageSet:
        """Return the set whose two classes are the absence and the presence of a trait.

        Raises:
            SpecError: if there is no such trait.
        """
        return self._images(self.faces.has(trait).long(), TRAITS[trait], name or f"avatars-{trait}")

    def mask(self, part: str) -> Bool[Tensor, "N 64 64"]:
        """Return where hair, a trait or another part is seen in each face, as `avatar_mask` does."""
        return avatar_mask(self.faces, part)

    def _images(self, y: Tensor, class_names: Sequence[str], name: str) -> ImageSet:
        return ImageSet(ArraySource(self.pixels, name), y, class_names, ids=self.faces.ids, name=name)


def draw_avatars(
    n: int, *, seed: int, without: Combination | None = None, workers: int | None = None, keep: bool = False
) -> Avatars:
    """Draw cartoon faces, 64 x 64 pixels in colour, their hair colours and traits independent and equally frequent.

    Parts are those of `python-avatars`. Besides colour and traits, faces differ in skin, nose, clothes, background and
    the cut of each part. A face depends on the seed and its place alone, not on `n` and `without`.

    Args:
        n: how many; each takes 12 KiB.
        seed: of the random numbers. A number instead of a generator, since it names the set in the cache.
        without: a combination of traits and hair colour that no face shall have, such as
            `{"glasses": True, "smile": True}`.
        workers: threads that draw, by default one a processor. The pixels do not depend on it.
        keep: store the drawings in the cache folder, or take them from there. They are then mapped, not in memory.

    Raises:
        DataError: if `n` or `workers` is less than 1, or `without` is empty.
        SpecError: if `without` names an unknown trait or colour, or the extra `avatars` is not installed.
        StorageError: if the cache cannot be written.

    References:
        Stanley, "Avataaars", https://avataaars.com; drawn by https://pypi.org/project/python-avatars.

    Example:
        >>> avatars = draw_avatars(4, seed=0)
        >>> avatars.by_hair().image_shape, avatars.by_trait("glasses").class_names
        ((3, 64, 64), ('no glasses', 'glasses'))
    """
    faces = draw_faces(n, seed=seed, without=without)
    require_libraries()
    if not keep:
        return Avatars(faces, paint_faces(faces, workers=workers))
    target = _place(n, seed, without)
    kept = _mapped(target, n)
    if kept is None:
        with atomic_path(target) as temporary:
            pixels = np.lib.format.open_memmap(temporary, "w+", np.uint8, (n, 3, SIDE, SIDE))
            for rows in torch.arange(n).split(_CHUNK):
                pixels[rows[0] : rows[-1] + 1] = paint_faces(faces.select(rows), workers=workers)
            pixels.flush()
        kept = _mapped(target, n)
    assert kept is not None, "what was just written can be read"
    return Avatars(faces, kept)


def parse_avatars(spec: str) -> tuple[str, AvatarSplit, Combination | None]:
    """Return what the labels of a spec are, its split, and what it leaves out.

    Args:
        spec: `avatars:hair` or `avatars:traits/NAME`, then `:train`, `:test` (default) or `:extra`, then
            `:without=glasses,no-beard,red` if a combination shall be left out.

    Raises:
        SpecError: if it is none of these.

    Example:
        >>> parse_avatars("avatars:traits/smile:train:without=glasses,no-beard")
        ('smile', 'train', {'glasses': True, 'beard': False})
    """
    target, *rest = spec.removeprefix("avatars").removeprefix(":").split(":")
    split: AvatarSplit = "test"
    for each in AVATAR_SPLITS:
        if rest[:1] == [each]:
            split, rest = each, rest[1:]
            break
    without = None
    if rest and rest[0].startswith("without="):
        without = _parse_combination(rest.pop(0).removeprefix("without="))
    trait = target.removeprefix("traits/")
    if rest or not (target == "hair" or (trait != target and trait in TRAITS)):
        raise SpecError(
            f"Expected avatars:hair or avatars:traits/NAME, with {', '.join(TRAITS)} for NAME, then "
            f"{', '.join(f':{name}' for name in get_args(AvatarSplit))} if wanted, then :without=glasses,no-beard "
            f"if a combination shall be left out, but got {spec!r}. Say what the avatars are to be told apart by."
        )
    return trait, split, without


def read_avatars(spec: str) -> ImageSet:
    """Return the set that a spec names: 20,000 faces to train on, 4,000 to test on, or 20,000 more.

    Args:
        spec: as `parse_avatars` takes it.

    Raises:
        SpecError: if the spec is not understood, or the extra `avatars` is not installed.
        StorageError: if the cache cannot be written.
    """
    target, split, without = parse_avatars(spec)
    n, seed = AVATAR_SPLITS[split]
    avatars = draw_avatars(n, seed=seed, without=without, keep=True)
    ending = f"-without-{spec.rpartition('=')[2].replace(',', '-')}" if without else ""
    name = f"avatars-{target}-{split}{ending}"
    return avatars.by_hair(name=name) if target == "hair" else avatars.by_trait(target, name=name)


def _parse_combination(text: str) -> Combination:
    """Read `glasses,no-beard,red`."""
    combination: dict[str, bool | str] = {}
    for word in text.split(","):
        trait = word.removeprefix("no-")
        if trait not in TRAITS and word not in HAIR_COLOURS:
            raise SpecError(
                f"Expected traits ({', '.join(TRAITS)}), with no- before those to be absent, and at most one hair "
                f"colour ({', '.join(HAIR_COLOURS)}) after without=, but got {word!r}. Separate them by commas."
            )
        name, state = ("hair", word) if word in HAIR_COLOURS else (trait, word == trait)
        if combination.setdefault(name, state) != state:
            raise SpecError(
                f"Expected a combination that a face can have after without=, but got {text!r}, which says two things "
                f"of {name}. Leave one of them away."
            )
    return combination


def _place(n: int, seed: int, without: Combination | None) -> Path:
    """Return where a set is kept; the name changes with all that its pixels depend on."""
    libraries = [version("python-avatars"), version("resvg-py")]
    what = json.dumps([_DRAWING, libraries, n, seed, sorted((without or {}).items())])
    return cache_folder() / "avatars" / f"{n}-seed{seed}-{hashlib.sha256(what.encode()).hexdigest()[:16]}.npy"


def _mapped(path: Path, n: int) -> NDArray[np.uint8] | None:
    """Map a set from its file, if there is such a file and it is whole."""
    with suppress(OSError, ValueError):
        pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
        if pixels.dtype == np.uint8 and pixels.shape == (n, 3, SIDE, SIDE):
            return pixels
    return None
