import numpy as np
import pytest

from failscape.figures import diverging
from failscape.figures.colours import class_tint, diverging_map

LUMA = np.array([0.2126, 0.7152, 0.0722])


def test_zero_is_exactly_middle_grey():
    assert diverging(np.zeros((2, 3))).tolist() == [[[128, 128, 128]] * 3] * 2


@pytest.mark.parametrize("scale", [1.0, 0.03])
def test_equal_sizes_lie_equally_far_from_grey_on_both_sides(scale):
    values = np.linspace(0, scale, 57)
    above, below = diverging(values, scale).astype(int), diverging(-values, scale).astype(int)
    assert (above + below == 256).all()


def test_lightness_alone_tells_sign_and_size():
    luma = diverging(np.linspace(-1, 1, 101)) @ LUMA
    assert (np.diff(luma) > 0).all()
    assert luma[50] - luma[0] > 80
    assert luma[-1] - luma[50] > 80


def test_values_beyond_the_scale_get_its_end_colours():
    assert (diverging(np.array([5.0, -5.0]), 0.5) == diverging(np.array([0.5, -0.5]), 0.5)).all()


def test_matplotlib_map_has_the_same_colours():
    middle = np.array(diverging_map()(0.5)[:3]) * 255
    assert middle.round().tolist() == [128, 128, 128]
    assert (np.array(diverging_map()(1.0)[:3]) * 255).round().tolist() == diverging(np.ones(1))[0].tolist()


def test_ten_classes_have_ten_tints_on_which_dark_text_is_legible():
    tints = {class_tint(label) for label in range(10)}
    assert len(tints) == 10
    assert all(np.array([int(tint[i : i + 2], 16) for i in (1, 3, 5)]) @ LUMA > 200 for tint in tints)
