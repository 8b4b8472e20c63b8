import io

import numpy as np
import pytest
import python_avatars
import resvg_py
from PIL import Image

from failscape.data.avatar_faces import HAIR_COLOURS
from failscape.data.avatar_parts import SIDE, paint


def drawn_by_the_library(**choices: object) -> np.ndarray:
    """Draw a whole face at once, seen through the same window, and average it down."""
    svg = python_avatars.Avatar(style=python_avatars.AvatarStyle.TRANSPARENT, **choices).render()
    svg = svg.replace('viewBox="0 0 264 280"', 'viewBox="24 8 216 216"').replace('height="280px"', 'height="264px"')
    png = resvg_py.svg_to_bytes(svg_string=svg, width=4 * SIDE, background="#336699", skip_system_fonts=True)
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.float32)
    return pixels.reshape(SIDE, 4, SIDE, 4, 3).mean(axis=(1, 3)).transpose(2, 0, 1)


@pytest.mark.parametrize("hair", ["SHORT_FLAT", "CURVY"])
def test_parts_laid_over_each_other_are_what_the_library_draws_at_once(hair: str) -> None:
    expected = drawn_by_the_library(
        top=python_avatars.HairType[hair],
        eyebrows=python_avatars.EyebrowType.FLAT_NATURAL,
        eyes=python_avatars.EyeType.SURPRISED,
        nose=python_avatars.NoseType.WIDE,
        mouth=python_avatars.MouthType.SCREAM_OPEN,
        facial_hair=python_avatars.FacialHairType.MOUSTACHE_FANCY,
        skin_color="#D08B5B",
        hair_color="#C93305",
        facial_hair_color="#2C1B18",
        accessory=python_avatars.AccessoryType.ROUND,
        clothing=python_avatars.ClothingType.BLAZER_SHIRT,
        clothing_color="#65C9FF",
    )
    ours = paint(
        np.array([0x33, 0x66, 0x99], np.float32) / 255,
        [
            ("body", "DEFAULT", "#D08B5B"),
            ("clothing", "BLAZER_SHIRT", "#65C9FF"),
            ("mouth", "SCREAM_OPEN", "#000000"),
            ("nose", "WIDE", "#000000"),
            ("eyes", "SURPRISED", "#000000"),
            ("brows", "FLAT_NATURAL", "#000000"),
            ("hair", hair, "#C93305"),
            ("moustache", "MOUSTACHE_FANCY", "#2C1B18"),
            ("glasses", "ROUND", "#000000"),
        ],
    )
    difference = np.abs(ours - expected).max(axis=0)
    # They differ at edges, where coverage is averaged over parts here and over pixels there.
    assert difference.mean() < 1.5
    assert np.quantile(difference, 0.98) < 16


def test_the_upper_lip_is_free_of_beard() -> None:
    ground = np.ones(3, np.float32)
    bearded = paint(ground, [("beard", "BEARD_MEDIUM", "#2C1B18")]) < 128
    moustached = paint(ground, [("moustache", "MOUSTACHE_FANCY", "#2C1B18")]) < 128
    assert bearded.sum() > 500
    assert not bearded[:, 36:41, 23:41].any()
    assert (moustached & ~bearded).sum() > 0.6 * moustached.sum()


def test_hair_colours_are_those_of_the_library() -> None:
    assert sorted(HAIR_COLOURS.values()) == sorted(colour.value for colour in python_avatars.HairColor)
