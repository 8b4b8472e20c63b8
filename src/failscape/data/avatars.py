"""Avatars: cartoon faces of ten hair colours and ten binary traits, any number of them, with the mask of each part."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from colorsys import hsv_to_rgb
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from failscape.data.arrays import ArraySource
from failscape.data.avatar_parts import SIDE, SLOTS, Layer, paint, require_libraries
from failscape.data.images import ImageSet
from failscape.data.published import Split, cache_folder
from failscape.errors import DataError, SpecError
from failscape.storage import atomic_path

HAIR_COLORS = {
    "auburn": "#A55728",
    "black": "#2C1B18",
    "blonde": "#B58143",
    "golden": "#D6B370",
    "brown": "#724133",
    "dark-brown": "#4A312C",
    "pink": "#F59797",
    "platinum": "#ECDCBF",
    "red": "#C93305",
    "silver": "#E8E1E1",
}
"""The classes of `avatars:hair`, in the order of their labels."""

TRAITS = {
    "glasses": ("no glasses", "glasses"),
    "moustache": ("no moustache", "moustache"),
    "beard": ("no beard", "beard"),
    "smile": ("no smile", "smile"),
    "open_mouth": ("closed mouth", "open mouth"),
    "wide_eyes": ("plain eyes", "wide eyes"),
    "bushy_brows": ("thin brows", "bushy brows"),
    "long_hair": ("short hair", "long hair"),
    "suit": ("shirt", "suit"),
    "dark_background": ("light background", "dark background"),
}
"""The ten traits, each with what it is called where it is absent and where it is there."""

SIZES: dict[Split, tuple[int, int]] = {"train": (20_000, 1), "test": (4_000, 2)}
"""Number of faces and seed of the splits that specs name."""

Combination = Mapping[str, bool | str]
"""Traits with their state, and `hair` with a colour: `{"glasses": True, "smile": False, "hair": "red"}`."""

_DRAWING = 1  # To be raised whenever the same numbers give another picture, so that no old cache is taken for it.
_BLOCK = 256
_SKINS = ("#FD9841", "#F8D25C", "#FFDBB4", "#EDB98A", "#D08B5B", "#AE5D29", "#614335")
_CLOTHES = (
    "#65C9FF", "#5199E4", "#25557C", "#E6E6E6", "#929598", "#B1E2FF", "#A7FFC4", "#FFDEB5", "#FFFFB1",
    "#FF488E", "#FF5C5C", "#FFFFFF",
)  # fmt: skip
# As dark as the brows, whatever the hair: in its colour some beards could not be told from some skins.
_FACIAL_HAIR = "#2C1B18"
_VARIANTS = ("skin", "clothing", "cloth", "mouth", "nose", "eyes", "brows", "hair", "beard", "glasses")
_COLUMNS = ("hair_color", *TRAITS, *_VARIANTS, "hue", "depth")
_SHIRTS = ("SHIRT_CREW_NECK", "SHIRT_SCOOP_NECK", "SHIRT_V_NECK", "COLLAR_SWEATER", "HOODIE")
_SUITS = ("BOND_SUIT", "BLAZER_SHIRT", "SHIRT_WICK")
_MOUTHS = {
    (False, False): ("SAD",),
    (False, True): ("CONCERNED", "SCREAM_OPEN"),
    (True, False): ("TWINKLE",),
    (True, True): ("SMILE", "BIG_SMILE"),
}
_NOSES = ("DEFAULT", "SMALL", "WIDE")
_EYES = (("DEFAULT", "CLOSED", "HAPPY", "SIDE"), ("SURPRISED", "EYE_ROLL"))
_BROWS = (("DEFAULT", "RAISED_EXCITED"), ("FLAT_NATURAL", "UNIBROW_NATURAL"))
# Only those that take the hair's colour, leave brows, eyes and mouth free, and have a place for beard and glasses.
_HAIR = (
    ("CAESAR", "SHORT_CURLY", "SHORT_FLAT", "SHORT_ROUND", "SHORT_WAVED", "SHORT_DREADS_1", "POMPADOUR", "QUIFF"),
    ("BOB", "STRAIGHT_STRAND", "STRAIGHT_1", "CURVY", "DREADS", "CURLY"),
)
_BEARDS = ("BEARD_LIGHT", "BEARD_MEDIUM", "BEARD_MAGESTIC")
_MOUSTACHE = "MOUSTACHE_FANCY"  # The only one that leaves the mouth free.
_GLASSES = ("PRESCRIPTION_2", "ROUND")


@dataclass(frozen=True)
class Faces:
    """What there is to know of some faces before they are drawn.

    Attributes:
        hair_color: which of `HAIR_COLORS`.
        traits: which of `TRAITS` each face has, in their order.
        variants: numbers in [0, 1) that decide everything else, such as the skin and which glasses it would wear.
        ids: the seed of each face and its place among the faces of that seed.
    """

    hair_color: Int64[Tensor, " N"]
    traits: Bool[Tensor, "N 10"]
    variants: Float64[Tensor, "N V"]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def switched(self, trait: str) -> "Faces":
        """Return the same faces with one trait turned into its opposite, and nothing else changed.

        Raises:
            SpecError: if there is no such trait.
        """
        traits = self.traits.clone()
        traits[:, _trait_index(trait)] ^= True
        return replace(self, traits=traits)

    def select(self, rows: Tensor) -> "Faces":
        """Return some faces, chosen by index or by mask."""
        indices = rows.nonzero().flatten() if rows.dtype == torch.bool else rows
        ids = tuple(self.ids[i] for i in indices.tolist())
        return Faces(self.hair_color[indices], self.traits[indices], self.variants[indices], ids)


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
        return self._images(self.faces.hair_color, tuple(HAIR_COLORS), name)

    def by_trait(self, trait: str, *, name: str | None = None) -> ImageSet:
        """Return the set whose two classes are the absence and the presence of a trait.

        Raises:
            SpecError: if there is no such trait.
        """
        labels = self.faces.traits[:, _trait_index(trait)].long()
        return self._images(labels, TRAITS[trait], name or f"avatars-{trait}")

    def _images(self, y: Tensor, class_names: Sequence[str], name: str) -> ImageSet:
        return ImageSet(ArraySource(self.pixels, name), y, class_names, ids=self.faces.ids, name=name)


def draw_avatars(
    n: int, *, seed: int, without: Combination | None = None, workers: int | None = None, keep: bool = False
) -> Avatars:
    """Draw cartoon faces, 64 x 64 pixels in colour, their hair colours and traits independent and equally frequent.

    Parts are those of `python-avatars`. Besides colour and traits, faces differ in skin, nose, clothes, background and
    the cut of each part. A face that is drawn depends on the seed and its place alone, not on `n` and `without`.

    Args:
        n: how many.
        seed: decides everything; faces of different seeds are different draws.
        without: a combination of traits (and hair colour) that no face shall have.
        workers: threads that draw, by default one a processor. The pixels do not depend on it.
        keep: store the drawings in the cache folder, or take them from there. They are then mapped, not in memory.

    Raises:
        DataError: if `n` or `workers` is less than 1, or `without` leaves nothing out or nothing over.
        SpecError: if `without` names an unknown trait or colour, or the extra `avatars` is not installed.
        StorageError: if the cache cannot be written.

    Example:
        >>> avatars = draw_avatars(4, seed=0)
        >>> avatars.by_hair().image_shape, avatars.by_trait("glasses").class_names
        ((3, 64, 64), ('no glasses', 'glasses'))
    """
    faces = draw_faces(n, seed=seed, without=without)
    require_libraries()
    if not keep:
        return Avatars(faces, paint_faces(faces, workers=workers))
    target = _kept(n, seed, without)
    if not target.is_file():
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": (n, 3, SIDE, SIDE)}
            )
            for rows in torch.split(torch.arange(n), 8 * _BLOCK):
                file.write(paint_faces(faces.select(rows), workers=workers).tobytes())
    return Avatars(faces, np.load(target, mmap_mode="r", allow_pickle=False))


def draw_faces(n: int, *, seed: int, without: Combination | None = None) -> Faces:
    """Draw what faces shall be like, without drawing them.

    Raises:
        DataError: if `n` is less than 1, or `without` leaves nothing out or nothing over.
        SpecError: if `without` names an unknown trait or colour.
    """
    if n < 1:
        raise DataError(f"Expected to draw at least 1 avatar, but got n={n}.")
    rng = torch.Generator().manual_seed(seed)
    kept: list[Faces] = []
    drawn = 0
    while sum(map(len, kept)) < n:
        numbers = torch.rand(n, len(_COLUMNS), dtype=torch.float64, generator=rng)
        ids = tuple(f"face-{seed}-{i:06d}" for i in range(drawn, drawn + n))
        drawn += n
        color = (numbers[:, 0] * len(HAIR_COLORS)).long()
        faces = Faces(color, numbers[:, 1 : 1 + len(TRAITS)] < 0.5, numbers[:, 1 + len(TRAITS) :], ids)
        kept.append(faces if without is None else faces.select(~has_combination(faces, without)))
    return _joined(kept).select(torch.arange(n))


def has_combination(faces: Faces, combination: Combination) -> Bool[Tensor, " N"]:
    """Return which faces have all of some traits, and the hair colour if one is named.

    Raises:
        DataError: if the combination is empty.
        SpecError: if it names an unknown trait or colour.
    """
    if not combination:
        raise DataError("Expected a combination of at least one trait, but got none. Leave `without` away instead.")
    has = torch.ones(len(faces), dtype=torch.bool)
    for name, state in combination.items():
        if name == "hair":
            has &= faces.hair_color == _color_index(str(state))
        else:
            has &= faces.traits[:, _trait_index(name)] == bool(state)
    return has


def read_avatars(target: str, split: Split, *, without: Combination | None = None) -> ImageSet:
    """Return a split with its labels; the drawings are kept in the cache folder.

    Args:
        target: "hair" or a trait.
        split: 20,000 faces to train on or 4,000 to test on, of different seeds.
        without: a combination of traits that no face shall have.
    """
    n, seed = SIZES[split]
    avatars = draw_avatars(n, seed=seed, without=without, keep=True)
    name = f"avatars-{target}-{split}"
    return avatars.by_hair(name=name) if target == "hair" else avatars.by_trait(target, name=name)


def parse_avatars(spec: str) -> tuple[str, Split, Combination | None]:
    """Return what the labels of a spec are, its split, and what it leaves out.

    Args:
        spec: `avatars:hair` or `avatars:traits/NAME`, then `:train` or `:test` (default), then
            `:without=glasses,no-beard,red` if a combination shall be left out.

    Raises:
        SpecError: if it is none of these.
    """
    target, *rest = spec.removeprefix("avatars:").split(":")
    split: Split = "test"
    if rest and rest[0] in ("train", "test"):
        split = "train" if rest.pop(0) == "train" else "test"
    without = _parse_combination(rest.pop(0).removeprefix("without=")) if rest and "without=" in rest[0] else None
    kind, _, trait = target.partition("/")
    if rest or spec == "avatars" or not (target == "hair" or (kind == "traits" and trait in TRAITS)):
        traits = " or ".join(f"avatars:traits/{name}" for name in TRAITS)
        raise SpecError(
            f"Expected avatars:hair or {traits}, then :train or :test, then :without=glasses,no-beard if wanted, but "
            f"got {spec!r}. Say which labels the avatars shall have."
        )
    return trait or target, split, without


def _parse_combination(text: str) -> Combination:
    """Read `glasses,no-beard,red`."""
    combination: dict[str, bool | str] = {}
    for word in text.split(","):
        trait = word.removeprefix("no-")
        if word in HAIR_COLORS:
            combination["hair"] = word
        elif trait in TRAITS:
            combination[trait] = word == trait
        else:
            raise SpecError(
                f"Expected traits ({', '.join(TRAITS)}), each with no- before it if wanted, or a hair colour "
                f"({', '.join(HAIR_COLORS)}) after without=, but got {word!r}. Separate them by commas."
            )
    return combination


def paint_faces(faces: Faces, *, workers: int | None = None) -> UInt8[np.ndarray, "N 3 64 64"]:
    """Draw faces as they are described.

    Args:
        faces: what they are like.
        workers: threads, by default one a processor.

    Raises:
        DataError: if `workers` is less than 1.
        SpecError: if the extra `avatars` is not installed.
    """
    if workers is not None and workers < 1:
        raise DataError(f"Expected at least 1 worker, but got {workers}.")
    return _painted(faces, _HAIR_OF_LABEL, workers)


def _painted(faces: Faces, hair: Sequence[NDArray[np.float32]], workers: int | None) -> NDArray[np.uint8]:
    """Draw faces, whose hair is given by label."""
    pixels = np.empty((len(faces), 3, SIDE, SIDE), np.uint8)
    blocks = [range(i, min(i + _BLOCK, len(faces))) for i in range(0, len(faces), _BLOCK)]
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        list(pool.map(partial(_paint_block, faces, hair, pixels), blocks))
    return pixels


def _paint_block(faces: Faces, hair: Sequence[NDArray[np.float32]], into: NDArray[np.uint8], rows: range) -> None:
    for row in rows:
        has = dict(zip(TRAITS, faces.traits[row].tolist(), strict=True))
        u = dict(zip(_COLUMNS[1 + len(TRAITS) :], faces.variants[row].tolist(), strict=True))
        into[row] = paint(_background(has, u), _layers(has, u, hair[int(faces.hair_color[row])]))


def _background(has: Mapping[str, bool], u: Mapping[str, float]) -> NDArray[np.float32]:
    """Return a dark or a light colour from green to violet: never that of any hair, and hardly ever the same twice."""
    saturation, value = (0.5, 0.42) if has["dark_background"] else (0.25, 0.92)
    return np.array(hsv_to_rgb(0.3 + 0.5 * u["hue"], saturation + 0.2 * u["depth"], value), np.float32)


def _layers(
    has: Mapping[str, bool], u: Mapping[str, float], hair: NDArray[np.float32]
) -> list[tuple[Layer, NDArray[np.float32]]]:
    """Return what is drawn in each slot of a face, and its colour."""
    drawn = {
        "body": "DEFAULT",
        "clothing": _pick((_SHIRTS, _SUITS)[has["suit"]], u["clothing"]),
        "mouth": _pick(_MOUTHS[has["smile"], has["open_mouth"]], u["mouth"]),
        "nose": _pick(_NOSES, u["nose"]),
        "eyes": _pick(_EYES[has["wide_eyes"]], u["eyes"]),
        "brows": _pick(_BROWS[has["bushy_brows"]], u["brows"]),
        "hair": _pick(_HAIR[has["long_hair"]], u["hair"]),
        "beard": _pick(_BEARDS, u["beard"]) if has["beard"] else "",
        "moustache": _MOUSTACHE if has["moustache"] else "",
        "glasses": _pick(_GLASSES, u["glasses"]) if has["glasses"] else "",
    }
    facial = _rgb(_FACIAL_HAIR)
    colors = {
        "body": _rgb(_pick(_SKINS, u["skin"])),
        "clothing": _rgb(_pick(_CLOTHES, u["cloth"])),
        "hair": hair,
        "beard": facial,
        "moustache": facial,
    }
    return [((slot, drawn[slot]), colors.get(slot, facial)) for slot in SLOTS if drawn[slot]]


def _pick(options: Sequence[str], u: float) -> str:
    return options[int(u * len(options))]


def _rgb(color: str) -> NDArray[np.float32]:
    return np.frombuffer(bytes.fromhex(color[1:]), np.uint8).astype(np.float32) / 255


_HAIR_OF_LABEL = tuple(_rgb(color) for color in HAIR_COLORS.values())


def _trait_index(trait: str) -> int:
    if trait not in TRAITS:
        raise SpecError(f"Expected a trait of avatars ({', '.join(TRAITS)}), but got {trait!r}. Choose one of these.")
    return list(TRAITS).index(trait)


def _color_index(color: str) -> int:
    if color not in HAIR_COLORS:
        raise SpecError(
            f"Expected a hair colour of avatars ({', '.join(HAIR_COLORS)}), but got {color!r}. Choose one of these."
        )
    return list(HAIR_COLORS).index(color)


def _joined(parts: Sequence[Faces]) -> Faces:
    return Faces(
        torch.cat([part.hair_color for part in parts]),
        torch.cat([part.traits for part in parts]),
        torch.cat([part.variants for part in parts]),
        tuple(name for part in parts for name in part.ids),
    )


def _kept(n: int, seed: int, without: Combination | None) -> Path:
    """Return where a set is kept; the name changes with all that its pixels depend on."""
    libraries = [version("python-avatars"), version("resvg-py")]
    what = json.dumps([_DRAWING, libraries, n, seed, sorted((without or {}).items())])
    return cache_folder() / "avatars" / f"{n}-seed{seed}-{hashlib.sha256(what.encode()).hexdigest()[:16]}.npy"
