import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from failscape import load_images
from failscape.data.corruptions import corrupt
from failscape.errors import ImageError, MetricError
from failscape.explain import to_8_bits
from failscape.metrics import MEASUREMENTS, Measurement
from metrics.strokes import bar, images

# What is measured on the shape; NaN where there is none.
OF_SHAPES = ("sharpness", "stroke width", "slant", "size", "horizontal position", "vertical position")


def value(name: str, drawing: Tensor) -> float:
    return float(MEASUREMENTS[name](images(drawing)))


def blurred(drawing: Tensor, sigma: float) -> Tensor:
    return torch.from_numpy(gaussian_filter(drawing.numpy(), sigma, mode="nearest"))


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return load_images("embedded:mnist-test").x[:80]


def changes(before: Tensor, after: Tensor) -> dict[str, float]:
    """Return the mean change of each measurement in units of the smallest that is worth telling."""
    old, new = ([each(to_8_bits(x)) for each in MEASUREMENTS.values()] for x in (before, after))
    return {
        each.name: float((b - a).nanmean() / each.smallest)
        for each, a, b in zip(MEASUREMENTS.values(), old, new, strict=True)
    }


def test_what_the_issue_asks_for_is_measured() -> None:
    assert list(MEASUREMENTS) == [
        *("noise", "sharpness", "contrast", "brightness", "ink", "stroke width", "slant", "size"),
        *("horizontal position", "vertical position", "parts"),
    ]
    assert all(each.name == name for name, each in MEASUREMENTS.items())


@pytest.mark.parametrize("deviation", [0.01, 0.02, 0.05, 0.1, 0.15])
def test_noise_of_known_deviation(deviation: float) -> None:
    noise = torch.randn(50, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    x = to_8_bits((0.5 + deviation * noise).clamp(0, 1))
    assert MEASUREMENTS["noise"](x).mean() == pytest.approx(deviation, rel=0.05)


def test_a_slope_is_no_noise() -> None:
    assert value("noise", torch.linspace(0, 1, 28).expand(28, 28)) < 1e-6
    assert value("noise", blurred(bar(10), 3)) < 0.001


@pytest.mark.parametrize("angle", [0, 10, 20])
def test_sharpness_of_an_edge(angle: float) -> None:
    # The left side of a bar that goes on beyond the image.
    edge = bar(100, 400, angle=angle, at=(58, 0), side=64)
    assert value("sharpness", edge) == pytest.approx(0.5, rel=0.12)
    for sigma in (2, 3):
        assert value("sharpness", blurred(edge, sigma)) == pytest.approx(1 / math.sqrt(2 * math.pi) / sigma, rel=0.1)


@pytest.mark.parametrize(("ground", "level"), [(0.0, 1.0), (0.2, 0.7), (0.9, 0.3), (0.5, 0.55)])
def test_contrast_and_brightness_are_those_drawn(ground: float, level: float) -> None:
    drawing = ground + (level - ground) * bar(4)
    assert value("contrast", drawing) == pytest.approx(abs(level - ground), abs=1e-3)
    assert value("brightness", drawing) == pytest.approx(ground, abs=1e-3)


@pytest.mark.parametrize(("width", "length"), [(2, 18), (4, 18), (6, 12), (10, 10)])
def test_ink_is_the_area(width: float, length: float) -> None:
    assert value("ink", bar(width, length)) == pytest.approx(100 * width * length / 784, rel=0.05)


@pytest.mark.parametrize("width", [2.0, 3.0, 4.0, 5.0, 6.0])
def test_stroke_width_of_a_bar(width: float) -> None:
    found = [value("stroke width", bar(width, angle=angle, at=(0.3, 0))) for angle in (0, 15, 30, 60, 90)]
    assert found == pytest.approx([width - width**2 / (3 * 18)] * 5, abs=0.35)


@pytest.mark.parametrize("lean", [-25.0, -10.0, 0.0, 10.0, 25.0])
def test_slant_is_that_of_the_shear(lean: float) -> None:
    assert value("slant", bar(4, shear=lean)) == pytest.approx(lean, abs=1)


@pytest.mark.parametrize("side", [6, 10, 16])
def test_size_of_a_square_is_its_side(side: int) -> None:
    # Of a corner of a smoothed square less than a pixel is lost.
    assert value("size", bar(side, side)) == pytest.approx(side, abs=0.1)


def test_position_is_that_of_the_centre() -> None:
    for right, down in ((0, 0), (5, -3), (-2.5, 4)):
        drawing = bar(4, 10, at=(right, down))
        assert value("horizontal position", drawing) == pytest.approx(right, abs=0.1)
        assert value("vertical position", drawing) == pytest.approx(down, abs=0.1)


def test_parts_are_counted() -> None:
    bars = [bar(3, at=(x, 0)) for x in (-9, -3, 3, 9)]
    assert [value("parts", sum(bars[:n], torch.zeros(28, 28))) for n in range(5)] == [0, 1, 2, 3, 4]
    # A gap of one pixel parts, a corner joins.
    assert value("parts", bar(4, 8, at=(0, -5)) + bar(4, 8, at=(0, 4))) == 2
    assert value("parts", bar(4, 8, at=(-2, -4)) + bar(4, 8, at=(2, 4))) == 1


def test_single_pixels_are_no_parts() -> None:
    drawing = bar(4)
    drawing[2, 2] = drawing[20, 24] = drawing[5, 22] = 1
    for name in ("stroke width", "slant", "size", "horizontal position", "vertical position", "ink", "parts"):
        assert value(name, drawing) == pytest.approx(value(name, bar(4)), abs=1e-6)


@pytest.mark.parametrize("name", [*OF_SHAPES, "ink", "parts", "contrast", "noise"])
def test_dark_on_light_is_measured_as_light_on_dark(name: str, digits: Tensor) -> None:
    torch.testing.assert_close(MEASUREMENTS[name](1 - digits), MEASUREMENTS[name](digits), atol=1e-5, rtol=0)


def test_colours_count_by_their_luminance() -> None:
    coloured = torch.zeros(3, 3, 28, 28)
    for channel in range(3):
        coloured[channel, channel] = bar(4)
    assert MEASUREMENTS["contrast"](coloured).tolist() == pytest.approx([0.2126, 0.7152, 0.0722], abs=1e-6)
    assert MEASUREMENTS["brightness"](1 - coloured).tolist() == pytest.approx([1, 1, 1])
    grey = images(bar(4), bar(3, shear=20))
    for each in MEASUREMENTS.values():
        torch.testing.assert_close(each(grey.expand(-1, 3, -1, -1)), each(grey))
        torch.testing.assert_close(each(grey.expand(-1, 2, -1, -1)), each(grey))


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("size", [(28, 28), (1, 1), (1, 9), (2, 2), (3, 5)])
def test_an_empty_image_has_no_shape(level: float, size: tuple[int, int]) -> None:
    x = torch.full((2, 1, *size), level)
    assert all(MEASUREMENTS[name](x).isnan().all() for name in OF_SHAPES)
    assert all((MEASUREMENTS[name](x) == 0).all() for name in ("contrast", "ink", "parts"))
    assert MEASUREMENTS["brightness"](x).tolist() == pytest.approx([level, level])
    noise = MEASUREMENTS["noise"](x)
    assert noise.isnan().all() if min(size) < 3 else (noise == 0).all()


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_noise_alone_is_no_shape(level: float) -> None:
    noise = torch.randn(200, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    x = to_8_bits((level + 0.2 * noise).clamp(0, 1))
    assert (MEASUREMENTS["parts"](x) == 0).float().mean() > 0.9


def test_any_image_is_measured_without_a_warning() -> None:
    rng = torch.Generator().manual_seed(0)
    for shape in ((0, 1, 28, 28), (2, 3, 0, 4), (2, 0, 4, 4), (3, 1, 1, 1), (3, 3, 1, 7), (5, 1, 2, 2), (2, 3, 64, 48)):
        for x in (torch.rand(shape, generator=rng), torch.rand(shape, generator=rng).round()):
            assert all(each(x).shape == (shape[0],) for each in MEASUREMENTS.values())


def test_each_image_is_measured_for_itself(digits: Tensor) -> None:
    # More pixels than are measured at a time.
    many = digits.repeat(5, 1, 1, 1)
    for name in ("noise", "stroke width"):
        together, alone = MEASUREMENTS[name](many), torch.cat([MEASUREMENTS[name](image[None]) for image in digits[:2]])
        torch.testing.assert_close(together[320:322], alone)
        torch.testing.assert_close(together[:80], together[320:])


def test_an_image_changed_in_place_is_measured_anew() -> None:
    x = images(bar(3))
    before = float(MEASUREMENTS["contrast"](x))
    x *= 0.5
    assert float(MEASUREMENTS["contrast"](x)) == pytest.approx(before / 2)


def test_noise_on_digits_is_noise_and_nothing_else(digits: Tensor) -> None:
    rng = torch.Generator().manual_seed(0)
    rising = []
    for severity in (1, 2, 3, 4, 5):
        found = changes(digits, corrupt(digits, "gaussian_noise", severity=severity, rng=rng))
        rising.append(found.pop("noise"))
        # Black and white cut off what is beyond, which takes from the contrast.
        contrast = found.pop("contrast")
        assert -2 < contrast < 0
        assert severity == 5 or max(map(abs, found.values())) < 1, found
    assert rising == sorted(rising)
    assert rising[0] > 1


def test_blur_of_digits_lowers_sharpness_and_no_shape_moves(digits: Tensor) -> None:
    rng = torch.Generator()
    sharpness = []
    for severity in (1, 2, 3):
        found = changes(digits, corrupt(digits, "gaussian_blur", severity=severity, rng=rng))
        sharpness.append(found["sharpness"])
        still = ("noise", "brightness", "slant", "horizontal position", "vertical position")
        assert max(abs(found[name]) for name in still) < 1, found
    assert sharpness == sorted(sharpness, reverse=True)
    assert sharpness[0] < -2


def test_blur_widens_a_stroke_by_no_more_than_its_half_height() -> None:
    grid = torch.linspace(-8, 8, 16001, dtype=torch.float64)
    profile = torch.special.ndtr(grid + 2) - torch.special.ndtr(grid - 2)
    half_height = 16 * float((profile > profile.max() / 2).double().mean())
    drawing = bar(4, 22)
    assert half_height == pytest.approx(4.11, abs=0.01)
    assert value("stroke width", blurred(drawing, 1)) - value("stroke width", drawing) < half_height - 4 + 0.3


def test_contrast_of_digits_lowers_contrast_and_changes_no_shape(digits: Tensor) -> None:
    found = changes(digits, corrupt(digits, "contrast", severity=3, rng=torch.Generator()))
    # 0.2 of the distance from the mean is left, and black becomes grey.
    assert found.pop("contrast") * MEASUREMENTS["contrast"].smallest == pytest.approx(-0.8 * 0.94, abs=0.02)
    assert found.pop("brightness") * MEASUREMENTS["brightness"].smallest == pytest.approx(
        0.8 * float(digits.mean()), abs=0.01
    )
    assert max(map(abs, found.values())) < 0.1


def test_moving_digits_moves_their_position_and_nothing_else(digits: Tensor) -> None:
    inside = (digits[:, 0, -4:].sum(dim=(1, 2)) == 0) & (digits[:, 0, :, :3].sum(dim=(1, 2)) == 0)
    assert inside.sum() > 30
    found = changes(digits[inside], digits[inside].roll((3, -2), dims=(2, 3)))
    assert found.pop("vertical position") * MEASUREMENTS["vertical position"].smallest == pytest.approx(3, abs=1e-6)
    assert found.pop("horizontal position") * MEASUREMENTS["horizontal position"].smallest == pytest.approx(
        -2, abs=1e-6
    )
    # Of edges at the border of the image less is seen.
    assert max(map(abs, found.values())) < 0.5


def test_a_change_is_said_in_words() -> None:
    said = [MEASUREMENTS[name].change(change) for name, change in (("noise", 0.214), ("noise", -0.05))]
    assert said == ["adds noise (+0.21)", "removes noise (−0.05)"]
    assert MEASUREMENTS["stroke width"].change(-0.81) == "thins the stroke (−0.8 px)"
    assert MEASUREMENTS["slant"].change(12.4) == "slants to the right (+12°)"
    assert MEASUREMENTS["ink"].change(1.25).startswith("adds ink (+1.2 % ")


def mean_red(x: Tensor) -> Tensor:
    return x[:, 0].mean(dim=(1, 2))


OWN = Measurement(name="red", unit="", measure=mean_red, more="reddens", less="pales", digits=2, smallest=0.02)


def test_own_measurements_are_checked() -> None:
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(OWN(x), x[:, 0].mean(dim=(1, 2)))
    wrong: tuple[Callable[[Tensor], object], ...] = (
        lambda x: x.mean(),
        lambda x: x[:, 0, 0, 0] > 0.5,
        lambda x: [0.0] * len(x),
        lambda x: x[:2, 0, 0, 0],
    )
    for measure in wrong:
        with pytest.raises(MetricError, match=r"one floating-point number an image, shape \(4,\), of .*'red', but got"):
            replace(OWN, measure=measure)(x)
    with pytest.raises(ImageError, match=r"values in \[0, 1\] in image"):
        OWN(255 * x)
    with pytest.raises(MetricError, match="`smallest` above 0 of the measurement 'red', but got 2 and 0"):
        replace(OWN, smallest=0.0)
    with pytest.raises(MetricError, match="`digits` of at least 0"):
        replace(OWN, digits=-1)


def test_an_own_measurement_that_raises_is_named() -> None:
    def broken(x: Tensor) -> Tensor:
        raise KeyError("palette")

    said = r"the measurement 'red' to return a number an image, but its function raised KeyError: 'palette'\. Correct"
    with pytest.raises(MetricError, match=said):
        replace(OWN, measure=broken)(torch.zeros(2, 3, 8, 8))


@pytest.mark.usefixtures("as_installed")
def test_one_image_must_be_a_batch_of_one() -> None:
    with pytest.raises(MetricError, match=r"shape \(N, C, H, W\), but got \(1, 28, 28\)\. Add a dimension"):
        MEASUREMENTS["noise"](torch.zeros(1, 28, 28))
