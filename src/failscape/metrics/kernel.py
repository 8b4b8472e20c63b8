"""Kernel distance: whether two sets of features are of one distribution, without assuming a shape for it."""

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.errors import MetricError
from failscape.metrics.intervals import Estimate

_DEGREE = 3
_Z95 = 1.959963984540054


def kernel_distance(
    first: Float[Tensor, "N F"],
    second: Float[Tensor, "M F"],
    *,
    rng: torch.Generator,
    subsets: int = 100,
    subset_size: int = 1000,
) -> Estimate:
    r"""Return the kernel distance (KID), computed by torchmetrics: 0 for one distribution, and without bias.

    The unbiased estimate of the squared maximum mean discrepancy under the kernel
    $k(a, b) = (a^T b / F + 1)^3$, over random subsets; its mean over these with a normal 95 % interval of the mean.

    Args:
        first: features of one set of images, such as real ones.
        second: features of the other.
        rng: draws the subsets.
        subsets: how many.
        subset_size: rows of each.

    Raises:
        MetricError: if there are fewer rows than a subset has.

    References:
        Bińkowski et al., "Demystifying MMD GANs", ICLR 2018.

    Example:
        >>> x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
        >>> distance = kernel_distance(x, x + 3, rng=torch.Generator().manual_seed(0), subset_size=100)
        >>> distance.low > 0
        True
    """
    from torchmetrics.image.kid import poly_mmd

    if min(len(first), len(second)) < subset_size or subset_size < 2 or subsets < 2:
        raise MetricError(
            f"Expected at least 2 subsets of at least 2 and at most {min(len(first), len(second))} rows, but got "
            f"{subsets} of {subset_size}. Choose smaller subsets, or give more images."
        )
    values = []
    for _ in range(subsets):
        a, b = (x[torch.randperm(len(x), generator=rng)[:subset_size]].double() for x in (first, second))
        values.append(float(poly_mmd(a, b, degree=_DEGREE)))
    distances = torch.tensor(values, dtype=torch.float64)
    half = _Z95 * float(distances.std()) / subsets**0.5
    value = float(distances.mean())
    return Estimate(value=value, low=value - half, high=value + half, n=subsets)
