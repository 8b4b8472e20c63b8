import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from failscape.data import corrupt
from failscape.data.corruptions import CORRUPTIONS
from failscape.errors import DataError


@pytest.mark.parametrize("size", [(28, 28), (9, 40)])
@pytest.mark.parametrize(("severity", "sigma"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6)])
def test_blur_equals_scipy(severity: int, sigma: int, size: tuple[int, int]) -> None:
    images = torch.rand(3, 2, *size, generator=torch.Generator().manual_seed(0))
    blurred = corrupt(images, "gaussian_blur", severity=severity, rng=torch.Generator())
    # What skimage.filters.gaussian does, which ImageNet-C calls: no blur between images and channels.
    expected = gaussian_filter(images.double().numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4)
    assert blurred.dtype == torch.float32
    np.testing.assert_allclose(blurred.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("severity", "scale"), [(1, 0.08), (2, 0.12), (3, 0.18), (4, 0.26), (5, 0.38)])
def test_noise_has_the_published_scale(severity: int, scale: float) -> None:
    noise = CORRUPTIONS["gaussian_noise"](torch.zeros(1, 1, 500, 500), severity, torch.Generator().manual_seed(0))
    assert float(noise.std()) == pytest.approx(scale, rel=0.01)
    assert abs(float(noise.mean())) < 4 * scale / 500


def test_noise_is_clipped_and_repeatable() -> None:
    images = torch.rand(2, 3, 16, 16)
    one, same, other = (
        corrupt(images, "gaussian_noise", severity=5, rng=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.min() == 0
    assert one.max() == 1


@pytest.mark.parametrize(("name", "severity"), [("fog?", 1), ("gaussian_blur", 0), ("gaussian_blur", 6)])
def test_unknown(name: str, severity: int) -> None:
    with pytest.raises(DataError, match="Expected a"):
        corrupt(torch.rand(1, 1, 4, 4), name, severity=severity, rng=torch.Generator())
