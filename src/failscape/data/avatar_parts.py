"""The parts that avatars are put together from, each drawn once, and the putting together.

The drawings are those of `python-avatars`: the avataaars of Pablo Stanley, rendered by `resvg`. All blending in them is
linear in the colour of a part. So a part is drawn twice, in black and in white, and had in every colour.
"""

import importlib
import io
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from failscape.errors import SpecError

SIDE = 64
"""Height and width of an avatar in pixels."""

SLOTS = ("body", "clothing", "mouth", "nose", "eyes", "brows", "hair", "beard", "moustache", "glasses")
"""The parts of a face in the order in which they are painted over each other."""

_FINENESS = 3  # A part is drawn so many times larger and averaged down: its edges are truer than resvg's at 64 pixels.
_WINDOW = (24, 8, 216, 216)  # Left, top, width and height in the drawing's own 264 x 280: the head fills the image.
_UPPER_LIP = (98, 128, 166, 147)  # Left, top, right, bottom. The drawn beards come with a moustache, which is cut off.
_ARGUMENTS = {
    "body": ("", ""),
    "clothing": ("ClothingType", "clothing"),
    "mouth": ("MouthType", "mouth"),
    "nose": ("NoseType", "nose"),
    "eyes": ("EyeType", "eyes"),
    "brows": ("EyebrowType", "eyebrows"),
    "hair": ("HairType", "top"),
    "beard": ("FacialHairType", "facial_hair"),
    "moustache": ("FacialHairType", "facial_hair"),
    "glasses": ("AccessoryType", "accessory"),
}


class _Part(NamedTuple):
    """A part, cut out: `ink + tint * colour` is laid over what is below it, which shows through by `1 - cover`.

    Attributes:
        box: the rows and columns outside of which nothing is drawn.
        ink: what it adds if its colour is black, `(3, H, W)`.
        tint: how much of its colour it adds, `(1, H, W)`; zero where it has none of its own.
        cover: its opacity, `(1, H, W)`.
    """

    box: tuple[slice, slice]
    ink: NDArray[np.float32]
    tint: NDArray[np.float32]
    cover: NDArray[np.float32]


def paint(background: Float32[np.ndarray, "3"], layers: Sequence[tuple[str, str, str]]) -> UInt8[np.ndarray, "3 64 64"]:
    """Lay parts over each other.

    Args:
        background: its colour in [0, 1].
        layers: slot, name in `python_avatars`, and colour as `#RRGGBB`, of each part; the first lies lowest.

    Raises:
        SpecError: if the extra `avatars` is not installed.
    """
    image = np.empty((3, SIDE, SIDE), np.float32)
    image[:] = background[:, None, None]
    for slot, name, colour in layers:
        (rows, columns), light, through = _coloured(slot, name, colour)
        window = image[:, rows, columns]
        window *= through
        window += light
    return np.asarray((image * 255).round().clip(0, 255), np.uint8)


def require_libraries() -> None:
    """Refuse to go on without the libraries that draw.

    Raises:
        SpecError: if the extra `avatars` is not installed.
    """
    _library("python_avatars")
    _library("resvg_py")


@cache
def _coloured(
    slot: str, name: str, colour: str
) -> tuple[tuple[slice, slice], NDArray[np.float32], NDArray[np.float32]]:
    """Return where a part is, what it adds in its colour, and by how much it lets what is below show through."""
    box, ink, tint, cover = _part(slot, name)
    rgb = np.frombuffer(bytes.fromhex(colour[1:]), np.uint8).astype(np.float32) / np.float32(255)
    light: NDArray[np.float32] = ink + tint * rgb[:, None, None]
    return box, light, 1 - cover


@cache
def _part(slot: str, name: str) -> _Part:
    """Draw a part, or give the one drawn before."""
    black, white = _render(slot, name, "#000000"), _render(slot, name, "#FFFFFF")
    rows, columns = (np.flatnonzero(black[3].any(axis=axis)) for axis in (1, 0))
    box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    black, white = black[:, *box], white[:, *box]
    return _Part(box, black[:3], (white[:3] - black[:3]).mean(axis=0, keepdims=True), black[3:])


def _render(slot: str, name: str, colour: str) -> NDArray[np.float32]:
    """Draw one part alone on nothing: `(4, SIDE, SIDE)`, colours multiplied by the opacity, all in [0, 1]."""
    from PIL import Image

    avatars, resvg = _library("python_avatars"), _library("resvg_py")
    empty = {"eyebrows": "", "eyes": "", "nose": "", "mouth": "", "clothing": "", "accessory": "", "facial_hair": ""}
    kind, argument = _ARGUMENTS[slot]
    chosen = {argument: getattr(getattr(avatars, kind), name)} if kind else {}
    colours = dict.fromkeys(("skin_color", "clothing_color", "hair_color", "facial_hair_color"), colour)
    svg = avatars.Avatar(**{"top": avatars.HairType.NONE, **empty, **chosen, **colours}).render()
    width = SIDE * _FINENESS
    png = resvg.svg_to_bytes(svg_string=_cropped(svg, body=slot == "body"), width=width, skip_system_fonts=True)
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        values = np.asarray(image.convert("RGBA"), np.float32).transpose(2, 0, 1) / 255
    values[:3] *= values[3:]
    if slot == "beard":
        left, top, size, _ = _WINDOW
        x0, y0, x1, y1 = (round((v - o) * width / size) for v, o in zip(_UPPER_LIP, (left, top) * 2, strict=True))
        values[:, y0:y1, x0:x1] = 0
    averaged: NDArray[np.float32] = values.reshape(4, SIDE, _FINENESS, SIDE, _FINENESS).mean(axis=(2, 4))
    return averaged


def _cropped(svg: str, *, body: bool) -> str:
    """Return the drawing seen through `_WINDOW`, without the body unless it is asked for."""
    from xml.etree import ElementTree

    root = ElementTree.fromstring(svg)  # noqa: S314 - the library's own drawing
    root.set("viewBox", " ".join(map(str, _WINDOW)))
    root.set("width", str(_WINDOW[2]))
    root.set("height", str(_WINDOW[3]))
    if not body:
        for group in root.iter():
            for child in list(group):
                if (child.get("id") or "").endswith("_Body"):
                    group.remove(child)
    return ElementTree.tostring(root, encoding="unicode")


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SpecError(
            f"Expected the package {name} to draw avatars, but it is not installed. Run: pip install "
            "'failscape[avatars]'."
        ) from error
