"""Corruptions with five severities, as ImageNet-C defines them.

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019. The constants are those for ImageNet's 224 px (`make_imagenet_c.py`), whatever the size
of the images; CIFAR-10-C and Tiny ImageNet-C have milder ones. Gaussian blur and speckle noise are among that
code's extra corruptions. ImageNet-C cuts its results down to 8 bits (and saves them as JPEG); here they are left as
they are, for the caller to round.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from failscape.data.checks import check_values
from failscape.data.ids import NumberedIds
from failscape.errors import DataError

SEVERITIES = (1, 2, 3, 4, 5)
# Of JPEG: pixels of a block along either axis, and of a picture along either axis at most.
_BLOCK, _TALLEST = 8, 65_500

# Takes images, a severity from 1 to 5 and the generator of its random draws; need not clip to [0, 1].
Corruption = Callable[[Tensor, int, torch.Generator], Tensor]


def corrupt(
    images: Float[Tensor, "N C H W"], name: str, *, severity: int, rng: torch.Generator
) -> Float[Tensor, "N C H W"]:
    """Corrupt images.

    Args:
        images: in [0, 1].
        name: a key of `CORRUPTIONS`.
        severity: from 1 (slight) to 5 (severe).
        rng: draws whatever is random in the corruption.

    Returns:
        The corrupted images, clipped to [0, 1], not rounded.

    Raises:
        DataError: if there is no such corruption or severity, or the corruption is not for so many channels.
        ImageError: if a value is NaN or outside [0, 1].

    Example:
        >>> images = torch.full((1, 1, 8, 8), 0.5)
        >>> blurred = corrupt(images, "gaussian_blur", severity=3, rng=torch.Generator())
        >>> torch.allclose(blurred, images)
        True
    """
    if name not in CORRUPTIONS:
        raise DataError(f"Expected a corruption among {', '.join(CORRUPTIONS)}, but got {name!r}.")
    if severity not in SEVERITIES:
        raise DataError(f"Expected a severity from 1 to 5, but got {severity}.")
    check_values(images, NumberedIds("images", len(images)))
    return CORRUPTIONS[name](images, severity, rng).clamp(0, 1)


def gaussian_noise(images: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Add independent normal noise to every value; standard deviation 0.08, 0.12, 0.18, 0.26 or 0.38."""
    scale = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return images + scale * torch.randn(images.shape, generator=rng)


def shot_noise(images: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Count photons, of which white is worth 60, 25, 12, 5 or 3: a Poisson draw of mean x · photons."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return torch.poisson(images * photons, generator=rng) / photons


def impulse_noise(images: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Set 3, 6, 9, 17 or 27 % of all values, each channel for itself, to 0 or 1 with equal probability."""
    amount = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    drawn = torch.rand(images.shape, generator=rng)
    return images.masked_fill(drawn < amount / 2, 0).masked_fill(drawn >= 1 - amount / 2, 1)


def speckle_noise(images: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Add normal noise in proportion to the value; standard deviation 0.15, 0.2, 0.35, 0.45 or 0.6 times x."""
    scale = (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]
    return images + scale * images * torch.randn(images.shape, generator=rng)


def gaussian_blur(images: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Convolve with a Gaussian of σ = 1, 2, 3, 4 or 6 pixels, cut off at 4 σ, the edge repeated outside.

    So does the reference, scikit-image's `gaussian` with its `mode="nearest"` and `truncate=4`. Both axes are one
    matrix product each, in float64, so an image's result does not depend on its batch.
    """
    sigma = (1, 2, 3, 4, 6)[severity - 1]
    height, width = images.shape[-2:]
    blurred = _blur_matrix(height, sigma) @ images.double() @ _blur_matrix(width, sigma).T
    return blurred.to(images.dtype)


def _blur_matrix(size: int, sigma: int) -> Tensor:
    """Return the `(size, size)` matrix that blurs a line of pixels."""
    radius = 4 * sigma
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    sources = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(
        1, sources, (weights / weights.sum()).expand(size, -1).contiguous()
    )


def contrast(images: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Shrink the distance of all values from the mean of their channel to 0.4, 0.3, 0.2, 0.1 or 0.05 of what it was."""
    scale = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    exact = images.double()
    mean = exact.mean(dim=(2, 3), keepdim=True)
    return (mean + scale * (exact - mean)).to(images.dtype)


def jpeg_compression(images: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Round to 8 bits, save as JPEG of quality 25, 18, 15, 10 or 7, and read again.

    Raises:
        DataError: if the images are neither grey nor RGB.
    """
    from PIL import Image

    quality = (25, 18, 15, 10, 7)[severity - 1]
    channels = images.shape[1]
    if channels not in (1, 3):
        raise DataError(
            f"Expected images of 1 or 3 channels for jpeg_compression, but got {channels}. Choose another corruption, "
            "or give grey or RGB images."
        )

    def compress(values: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
        file = io.BytesIO()
        Image.fromarray(values).save(file, "JPEG", quality=quality)
        with Image.open(file) as opened:
            return np.array(opened)

    compressed = torch.empty_like(images)
    values = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    if channels == 3:
        # One by one: colours, kept at half the resolution, run over the borders of blocks.
        for row, picture in enumerate(values):
            compressed[row] = torch.from_numpy(compress(picture)).permute(2, 0, 1) / 255
        return compressed
    # Blocks of 8 pixels know nothing of each other in grey, and the encoder repeats the last pixels to fill the last
    # block: images that are filled up so and stacked in one file come out as each alone, and a file is what takes time.
    height, width = images.shape[-2:]
    stack = np.pad(values[..., 0], ((0, 0), (0, -height % _BLOCK), (0, -width % _BLOCK)), mode="edge")
    at_once = max(1, _TALLEST // stack.shape[1])
    for start in range(0, len(stack), at_once):
        part = stack[start : start + at_once]
        decoded = compress(part.reshape(-1, part.shape[2])).reshape(part.shape)[:, :height, :width]
        compressed[start : start + at_once, 0] = torch.from_numpy(decoded) / 255
    return compressed


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "speckle_noise": speckle_noise,
    "gaussian_blur": gaussian_blur,
    "contrast": contrast,
    "jpeg_compression": jpeg_compression,
}
# These draw nothing: an image and a severity have one result.
DETERMINISTIC = frozenset({"gaussian_blur", "contrast", "jpeg_compression"})
