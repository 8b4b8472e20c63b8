"""Faces that can be drawn as avatars: what is drawn at random, what each trait changes, and where it is seen."""

import os
from collections.abc import Mapping, Sequence
from colorsys import hsv_to_rgb
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from failscape.data.avatar_parts import SIDE, SLOTS, paint, require_libraries
from failscape.errors import DataError, SpecError

HAIR_COLOURS = {
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
"""The ten hair colours of `python_avatars`, in the order of their labels."""

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

Combination = Mapping[str, bool | str]
"""Traits with their state, and `hair` with a colour: `{"glasses": True, "smile": False, "hair": "red"}`."""

_BLOCK = 256
_SKINS = ("#FD9841", "#F8D25C", "#FFDBB4", "#EDB98A", "#D08B5B", "#AE5D29", "#614335")
# Without the darkest two, which could be taken for a suit.
_CLOTHES = (
    "#65C9FF", "#5199E4", "#25557C", "#E6E6E6", "#929598", "#B1E2FF", "#A7FFC4", "#FFDEB5", "#FFFFB1",
    "#FF488E", "#FF5C5C", "#FFFFFF",
)  # fmt: skip
# As dark as the brows, whatever the hair: in its colour some beards could not be told from some skins.
_FACIAL_HAIR = "#2C1B18"
_UNTINTED = "#000000"
# Where there are two tuples, the first is for faces without the trait.
_CLOTHING = (
    ("SHIRT_CREW_NECK", "SHIRT_SCOOP_NECK", "SHIRT_V_NECK", "COLLAR_SWEATER", "HOODIE"),
    ("BOND_SUIT", "BLAZER_SHIRT", "SHIRT_WICK"),
)
_MOUTHS = {  # by smile and open_mouth
    (False, False): ("SAD",),
    (False, True): ("CONCERNED", "SCREAM_OPEN"),
    (True, False): ("TWINKLE",),
    (True, True): ("SMILE", "BIG_SMILE"),
}
_NOSES = ("DEFAULT", "SMALL", "WIDE")
_EYES = (("DEFAULT", "CLOSED", "HAPPY", "SIDE"), ("SURPRISED", "EYE_ROLL"))
_BROWS = (("DEFAULT", "RAISED_EXCITED"), ("FLAT_NATURAL", "UNIBROW_NATURAL"))
# Only those that take the hair's colour and leave eyes, mouth and most of the brows free.
_HAIR = (
    ("CAESAR", "SHORT_CURLY", "SHORT_FLAT", "SHORT_ROUND", "SHORT_WAVED", "SHORT_DREADS_1", "POMPADOUR", "QUIFF"),
    ("BOB", "STRAIGHT_STRAND", "STRAIGHT_1", "CURVY", "DREADS", "CURLY"),
)
_BEARDS = ("BEARD_LIGHT", "BEARD_MEDIUM", "BEARD_MAGESTIC")
_MOUSTACHE = "MOUSTACHE_FANCY"  # The only one that leaves the mouth free.
_GLASSES = "ROUND"  # The only ones that leave both brows and eyes free, and are dark on any skin.
# What every face has, beside hair.
_ALWAYS = tuple(slot for slot in SLOTS if slot not in (*TRAITS, "hair"))
_VARIANTS = ("skin", "clothing", "cloth", "mouth", "nose", "eyes", "brows", "hair", "beard", "hue", "depth")


@dataclass(frozen=True)
class Faces:
    """What there is to know of some faces before they are drawn.

    Attributes:
        hair_colour: which of `HAIR_COLOURS`.
        traits: which of `TRAITS` each face has, in their order.
        variants: numbers in [0, 1) that decide everything else, such as the skin and which beard it would have.
        ids: the seed of each face and its place among the faces of that seed.
    """

    hair_colour: Int64[Tensor, " N"]
    traits: Bool[Tensor, "N 10"]
    variants: Float64[Tensor, "N 11"]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def has(self, trait: str) -> Bool[Tensor, " N"]:
        """Return which faces have a trait.

        Raises:
            SpecError: if there is no such trait.
        """
        return self.traits[:, trait_index(trait)]

    def switched(self, trait: str) -> "Faces":
        """Return the same faces with one trait turned into its opposite, and nothing else changed.

        Raises:
            SpecError: if there is no such trait.
        """
        traits = self.traits.clone()
        traits[:, trait_index(trait)] ^= True
        return replace(self, traits=traits)

    def select(self, rows: Int64[Tensor, " M"] | Bool[Tensor, " N"]) -> "Faces":
        """Return some faces, chosen by index or by mask."""
        indices = rows.nonzero().flatten() if rows.dtype == torch.bool else rows
        ids = tuple(self.ids[i] for i in indices.tolist())
        return Faces(self.hair_colour[indices], self.traits[indices], self.variants[indices], ids)


def draw_faces(n: int, *, seed: int, without: Combination | None = None) -> Faces:
    """Draw at random what faces are like: all hair colours, traits and variants uniform and independent.

    A face depends on the seed and on its place among the faces of that seed, and on nothing else. Those that have the
    combination to be left out are skipped.

    Args:
        n: how many.
        seed: of the random numbers.
        without: a combination of traits and hair colour that no face shall have.

    Raises:
        DataError: if `n` is less than 1, or the combination is empty.
        SpecError: if the combination names an unknown trait or colour.

    Example:
        >>> faces = draw_faces(1000, seed=0, without={"glasses": True, "smile": True})
        >>> bool((faces.has("glasses") & faces.has("smile")).any())
        False
    """
    if n < 1:
        raise DataError(f"Expected to draw at least 1 avatar, but got n={n}.")
    rng = torch.Generator().manual_seed(seed)
    chosen: list[Faces] = []
    drawn = 0
    while sum(map(len, chosen)) < n:
        numbers = torch.rand(n, 1 + len(TRAITS) + len(_VARIANTS), dtype=torch.float64, generator=rng)
        colour, traits, variants = numbers.split((1, len(TRAITS), len(_VARIANTS)), dim=1)
        ids = tuple(f"face-{seed}-{i:06d}" for i in range(drawn, drawn + n))
        faces = Faces((colour[:, 0] * len(HAIR_COLOURS)).long(), traits < 0.5, variants, ids)
        chosen.append(faces if without is None else faces.select(~has_combination(faces, without)))
        drawn += n
    return _joined(chosen).select(torch.arange(n))


def has_combination(faces: Faces, combination: Combination) -> Bool[Tensor, " N"]:
    """Return which faces are as the whole combination says.

    Raises:
        DataError: if the combination is empty.
        SpecError: if it names an unknown trait or colour.
    """
    if not combination:
        raise DataError("Expected a combination of at least one trait, but got none. Pass without=None instead.")
    fits = torch.ones(len(faces), dtype=torch.bool)
    for name, state in combination.items():
        fits &= (
            faces.hair_colour == _colour_index(state) if name == "hair" else faces.has(name) == _checked(name, state)
        )
    return fits


def paint_faces(
    faces: Faces, *, hair: str | None = None, without: str | None = None, workers: int | None = None
) -> UInt8[np.ndarray, "N 3 64 64"]:
    """Draw faces, 64 x 64 pixels of 8 bits.

    Args:
        faces: what they are like.
        hair: a colour as `#RRGGBB` for the hair of all, by default each face's own.
        without: one of `SLOTS` that is left out of all.
        workers: threads, by default one a processor. The pixels do not depend on it.

    Raises:
        DataError: if `workers` is less than 1.
        SpecError: if the extra `avatars` is not installed.
    """
    if workers is not None and workers < 1:
        raise DataError(f"Expected at least 1 worker, but got {workers}.")
    require_libraries()
    pixels = np.empty((len(faces), 3, SIDE, SIDE), np.uint8)
    blocks = torch.arange(len(faces)).split(_BLOCK)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        # list: so that the exception of a thread is raised here.
        list(pool.map(partial(_paint_block, faces, hair, without, pixels), blocks))
    return pixels


def avatar_mask(faces: Faces, part: str, *, workers: int | None = None) -> Bool[Tensor, "N 64 64"]:
    """Return exactly where a part of each face is seen: where the drawing changes if nothing but that part changes.

    Args:
        faces: what they are like.
        part: "hair" for the pixels that depend on the hair's colour; a trait, for those that change when the face gets
            or loses it; or "body", "clothing", "mouth", "nose", "eyes" or "brows", for those that change when it is
            left out.
        workers: threads that draw.

    Raises:
        SpecError: if `part` is none of these, or the extra `avatars` is not installed.

    Example:
        >>> faces = draw_faces(2, seed=0)
        >>> avatar_mask(faces, "glasses").shape
        torch.Size([2, 64, 64])
    """
    if part == "hair":
        one, other = (paint_faces(faces, hair=colour, workers=workers) for colour in ("#000000", "#FFFFFF"))
    elif part in _ALWAYS:
        one, other = (paint_faces(faces, without=each, workers=workers) for each in (None, part))
    elif part not in TRAITS:
        known = ", ".join(("hair", *_ALWAYS, *TRAITS))
        raise SpecError(f"Expected a part of avatars ({known}), but got {part!r}. Choose one of these.")
    else:
        one, other = (paint_faces(these, workers=workers) for these in (faces, faces.switched(part)))
    return torch.from_numpy((one != other).any(axis=1))


def trait_index(trait: str) -> int:
    """Return the place of a trait among `TRAITS`.

    Raises:
        SpecError: if there is no such trait.
    """
    if trait not in TRAITS:
        raise SpecError(f"Expected a trait of avatars ({', '.join(TRAITS)}), but got {trait!r}. Choose one of these.")
    return list(TRAITS).index(trait)


def _colour_index(colour: bool | str) -> int:
    if colour not in HAIR_COLOURS:
        raise SpecError(
            f"Expected a hair colour of avatars ({', '.join(HAIR_COLOURS)}), but got {colour!r}. Choose one of these."
        )
    return list(HAIR_COLOURS).index(str(colour))


def _checked(trait: str, state: bool | str) -> bool:
    if not isinstance(state, bool):
        raise SpecError(f"Expected True or False for the trait {trait}, but got {state!r}. Only `hair` has a name.")
    return state


def _joined(several: Sequence[Faces]) -> Faces:
    return Faces(
        torch.cat([faces.hair_colour for faces in several]),
        torch.cat([faces.traits for faces in several]),
        torch.cat([faces.variants for faces in several]),
        tuple(name for faces in several for name in faces.ids),
    )


def _paint_block(faces: Faces, hair: str | None, without: str | None, into: NDArray[np.uint8], rows: Tensor) -> None:
    colours = list(HAIR_COLOURS.values())
    labels, traits, variants = (part[rows].tolist() for part in (faces.hair_colour, faces.traits, faces.variants))
    for row, label, values, numbers in zip(rows.tolist(), labels, traits, variants, strict=True):
        has, u = dict(zip(TRAITS, values, strict=True)), dict(zip(_VARIANTS, numbers, strict=True))
        layers = [layer for layer in _layers(has, u, hair or colours[label]) if layer[0] != without]
        into[row] = paint(_background(has, u), layers)


def _background(has: Mapping[str, bool], u: Mapping[str, float]) -> NDArray[np.float32]:
    """Return a dark or a light colour from green to violet: never that of any hair, and hardly ever the same twice."""
    saturation, value = (0.5, 0.42) if has["dark_background"] else (0.25, 0.92)
    return np.array(hsv_to_rgb(0.3 + 0.5 * u["hue"], saturation + 0.2 * u["depth"], value), np.float32)


def _layers(has: Mapping[str, bool], u: Mapping[str, float], hair: str) -> list[tuple[str, str, str]]:
    """Return what is drawn where, and its colour."""
    drawn = {
        "body": "DEFAULT",
        "clothing": _pick(_CLOTHING[has["suit"]], u["clothing"]),
        "mouth": _pick(_MOUTHS[has["smile"], has["open_mouth"]], u["mouth"]),
        "nose": _pick(_NOSES, u["nose"]),
        "eyes": _pick(_EYES[has["wide_eyes"]], u["eyes"]),
        "brows": _pick(_BROWS[has["bushy_brows"]], u["brows"]),
        "hair": _pick(_HAIR[has["long_hair"]], u["hair"]),
        "beard": _pick(_BEARDS, u["beard"]) if has["beard"] else "",
        "moustache": _MOUSTACHE if has["moustache"] else "",
        "glasses": _GLASSES if has["glasses"] else "",
    }
    colours = {
        "body": _pick(_SKINS, u["skin"]),
        "clothing": _pick(_CLOTHES, u["cloth"]),
        "hair": hair,
        "beard": _FACIAL_HAIR,
        "moustache": _FACIAL_HAIR,
    }
    return [(slot, drawn[slot], colours.get(slot, _UNTINTED)) for slot in SLOTS if drawn[slot]]


def _pick(options: Sequence[str], u: float) -> str:
    return options[int(u * len(options))]
