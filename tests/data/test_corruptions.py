import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from failscape.data import corrupt
from failscape.data.corruptions import CORRUPTIONS, DETERMINISTIC, SEVERITIES
from failscape.errors import DataError, ImageError

RANDOM = tuple(name for name in CORRUPTIONS if name not in DETERMINISTIC)


@pytest.fixture(scope="module")
def reference() -> Mapping[str, NDArray[np.generic]]:
    """What the port of ImageNet-C's code made of some images; `reference/make_corruptions.py` says how."""
    with np.load(Path(__file__).parent / "reference" / "corruptions.npz") as arrays:
        return dict(arrays)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_images(count: int = 4, channels: int = 3, height: int = 19, width: int = 26) -> Tensor:
    return torch.rand(count, channels, height, width, generator=seeded(7))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("kind", ["grey", "colour"])
@pytest.mark.parametrize("name", sorted(DETERMINISTIC))
def test_deterministic_ones_equal_the_reference(
    name: str, kind: str, severity: int, reference: Mapping[str, NDArray[np.generic]]
) -> None:
    image = torch.from_numpy(reference[f"clean.{kind}"]).permute(2, 0, 1)[None].float() / 255
    expected = reference[f"{name}.{kind}"][severity - 1].transpose(2, 0, 1) / 65535
    difference = np.abs(corrupt(image, name, severity=severity, rng=seeded())[0].numpy() - expected)
    assert difference.mean() <= 1 / 255
    if name != "jpeg_compression":  # whose decoders may differ by a step
        assert difference.max() <= 1 / 65535


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", RANDOM)
def test_random_ones_have_the_moments_of_the_reference(
    name: str, severity: int, reference: Mapping[str, NDArray[np.generic]]
) -> None:
    count, count_there = 400**2, int(reference["samples"])
    per_sample = 1 / count + 1 / count_there
    for i, level in enumerate(reference["levels"].tolist()):
        flat = torch.full((1, 1, 400, 400), level / 255)
        values = corrupt(flat, name, severity=severity, rng=seeded(severity)).double()
        mean, std = float(values.mean()), float(values.std(correction=0))
        fourth = float(((values - mean) ** 4).mean())
        # Five standard errors of the difference of two sample means, and of two sample standard deviations.
        mean_tolerance = 5 * std * per_sample**0.5
        std_tolerance = 5 * ((fourth - std**4) / (4 * std**2) * per_sample) ** 0.5 if std > 1e-6 else 0
        expected_mean, expected_std = reference[name][severity - 1, i]
        assert mean == pytest.approx(expected_mean, abs=mean_tolerance + 1e-6)
        assert std == pytest.approx(expected_std, abs=std_tolerance + 1e-6)


@pytest.mark.parametrize("size", [(28, 28), (9, 40)])
@pytest.mark.parametrize(("severity", "sigma"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6)])
def test_blur_equals_scipy(severity: int, sigma: int, size: tuple[int, int]) -> None:
    images = torch.rand(3, 2, *size, generator=seeded())
    blurred = corrupt(images, "gaussian_blur", severity=severity, rng=seeded())
    # What skimage.filters.gaussian does, which ImageNet-C calls: no blur between images and channels.
    expected = gaussian_filter(images.double().numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4)
    assert blurred.dtype == torch.float32
    np.testing.assert_allclose(blurred.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("severity", "scale"), [(1, 0.08), (2, 0.12), (3, 0.18), (4, 0.26), (5, 0.38)])
def test_noise_has_the_published_scale(severity: int, scale: float) -> None:
    noise = CORRUPTIONS["gaussian_noise"](torch.zeros(1, 1, 500, 500), severity, seeded())
    assert float(noise.std()) == pytest.approx(scale, rel=0.01)
    assert abs(float(noise.mean())) < 4 * scale / 500


@pytest.mark.parametrize(("severity", "photons"), [(1, 60), (2, 25), (3, 12), (4, 5), (5, 3)])
def test_shot_noise_counts_whole_photons(severity: int, photons: int) -> None:
    counts = corrupt(some_images(), "shot_noise", severity=severity, rng=seeded()) * photons
    assert torch.allclose(counts, counts.round(), atol=1e-4)


def test_impulse_noise_leaves_the_other_values_alone() -> None:
    images = some_images() * 0.8 + 0.1
    noised = corrupt(images, "impulse_noise", severity=5, rng=seeded())
    assert ((noised == images) | (noised == 0) | (noised == 1)).all()


@pytest.mark.parametrize("name", RANDOM)
def test_channels_are_noised_independently(name: str) -> None:
    flat = torch.full((1, 2, 300, 300), 0.5)
    noised = corrupt(flat, name, severity=2, rng=seeded()).flatten(2)[0]
    # Five standard deviations of the correlation of independent values.
    assert abs(float(torch.corrcoef(noised)[0, 1])) < 5 / 300


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", sorted(DETERMINISTIC))
def test_deterministic_ones_do_not_depend_on_the_batch(name: str, severity: int) -> None:
    images = some_images(17)
    together = corrupt(images, name, severity=severity, rng=seeded(1))
    alone = [corrupt(image[None], name, severity=severity, rng=seeded(2)) for image in images]
    assert torch.equal(together, torch.cat(alone))
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(together, corrupt(channels_last, name, severity=severity, rng=seeded()))


@pytest.mark.parametrize("name", sorted(DETERMINISTIC))
def test_grey_is_as_three_equal_channels(name: str) -> None:
    grey = some_images(channels=1)
    one, three = (corrupt(x, name, severity=3, rng=seeded()) for x in (grey, grey.expand(-1, 3, -1, -1)))
    assert torch.allclose(one.expand_as(three), three, atol=1e-6)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_repeatable_in_range_and_without_traces(name: str) -> None:
    images = some_images()
    before, global_state, numpy_state = images.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one, same, other = (corrupt(images, name, severity=5, rng=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert torch.equal(one, other) == (name in DETERMINISTIC)
    assert not torch.equal(one, images)
    assert one.dtype == torch.float32
    assert one.min() >= 0
    assert one.max() <= 1
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize(("channels", "count", "height", "width"), [(1, 2100, 28, 28), (1, 3, 17, 41), (3, 3, 17, 41)])
@pytest.mark.parametrize("severity", [1, 5])
def test_jpeg_of_many_is_that_of_each_alone(channels: int, count: int, height: int, width: int, severity: int) -> None:
    noise = torch.rand(count, channels, height, width, generator=seeded())
    images = 0.3 * noise + 0.7 * torch.linspace(0, 1, width)
    compressed = corrupt(images, "jpeg_compression", severity=severity, rng=seeded())
    for row in {0, 1, count // 2, count - 1}:
        file = io.BytesIO()
        pixels = (images[row] * 255).round().to(torch.uint8).permute(1, 2, 0).squeeze(2).numpy()
        Image.fromarray(pixels).save(file, "JPEG", quality={1: 25, 5: 7}[severity])
        alone = torch.from_numpy(np.array(Image.open(file))).view(height, width, channels).permute(2, 0, 1)
        assert torch.equal(compressed[row], alone / 255)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_any_number_of_channels_but_jpeg(name: str, channels: int) -> None:
    images = some_images(channels=channels)
    if name == "jpeg_compression" and channels in (2, 4):
        with pytest.raises(DataError, match=f"1 or 3 channels for jpeg_compression, but got {channels}. Choose"):
            corrupt(images, name, severity=1, rng=seeded())
    else:
        assert corrupt(images, name, severity=1, rng=seeded()).shape == images.shape
        assert corrupt(images[:0], name, severity=1, rng=seeded()).shape == (0, *images.shape[1:])


@pytest.mark.parametrize(("name", "severity"), [("fog?", 1), ("gaussian_blur", 0), ("gaussian_blur", 6)])
def test_unknown(name: str, severity: int) -> None:
    with pytest.raises(DataError, match="Expected a"):
        corrupt(torch.rand(1, 1, 4, 4), name, severity=severity, rng=torch.Generator())


@pytest.mark.parametrize(
    ("value", "advice"), [(200.0, "Divide 8-bit images by 255"), (-0.5, "scale to"), (np.nan, "NaN")]
)
def test_values_out_of_range(value: float, advice: str) -> None:
    with pytest.raises(ImageError, match=f"image images-00000.*{advice}"):
        corrupt(torch.full((1, 1, 4, 4), value), "shot_noise", severity=1, rng=seeded())
