"""Corruptions with five severities, as ImageNet-C defines them.

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019. ImageNet-C's code has Gaussian blur among its extra corruptions.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.errors import DataError

SEVERITIES = (1, 2, 3, 4, 5)

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
        DataError: if there is no such corruption or severity.

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
    return CORRUPTIONS[name](images, severity, rng).clamp(0, 1)


def gaussian_noise(images: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Add independent normal noise to every value; standard deviation 0.08, 0.12, 0.18, 0.26 or 0.38."""
    scale = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return images + scale * torch.randn(images.shape, generator=rng)


def gaussian_blur(images: Tensor, severity: int, rng: torch.Generator) -> Tensor:
    """Convolve with a Gaussian of σ = 1, 2, 3, 4 or 6 pixels, cut off at 4 σ, the edge repeated outside.

    Both axes are one matrix product each, in float64, so an image's result does not depend on its batch.
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


CORRUPTIONS: dict[str, Corruption] = {"gaussian_noise": gaussian_noise, "gaussian_blur": gaussian_blur}
