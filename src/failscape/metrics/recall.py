"""How much of what is real is generated, and how much of what is generated is real."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from failscape.errors import MetricError
from failscape.metrics.features import check_features
from failscape.metrics.intervals import Estimate, rate

# Distances that are held at the same time, 64 MiB of float64.
_CHUNK = 2**23


class PrecisionAndRecall(NamedTuple):
    """How two sets of features cover each other.

    Attributes:
        precision: share of the generated rows that lie among the real ones.
        recall: share of the real rows that lie among the generated ones.
    """

    precision: Estimate
    recall: Estimate


def precision_and_recall(
    real: Float[Tensor, "N F"], generated: Float[Tensor, "M F2"], *, neighbours: int = 3
) -> PrecisionAndRecall:
    r"""Return the shares of each set that the other one covers, with their Wilson intervals of 95 %.

    A set covers the union of balls, one about each of its rows, that reach to the row's `neighbours`-th nearest
    neighbour in the set. Precision is the share of `generated` that `real` covers, a measure of how good the
    images are; recall the share of `real` that `generated` covers, a measure of how many kinds there are. The
    intervals are those of rows drawn anew from one set, with the other one as it is.

    Args:
        real: features of real images, one row an image.
        generated: features of generated images, as many columns; for comparisons, as many rows.
        neighbours: k of the paper.

    Raises:
        MetricError: if `neighbours` is less than 1, a set has no more rows than that or values that are not
            finite, or the widths differ.

    Example:
        >>> real = torch.randn(1000, 8)
        >>> print(precision_and_recall(real, real.flip(0)).recall)
        1.000 [0.996, 1.000] (n = 1000)

    References:
        Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS 2019,
        eq. 1 and 2.
    """
    if neighbours < 1:
        raise MetricError(f"Expected `neighbours` to be at least 1, but got {neighbours}. The paper takes 3.")
    check_features(real, generated, rows=neighbours + 1)
    # The distances are made of products, which is quick, and exact enough in float64 about a common centre.
    centre = real.double().mean(dim=0)
    a, b = real.double() - centre, generated.double() - centre
    return PrecisionAndRecall(
        precision=rate(_covered(b, a, _radii(a, neighbours))),
        recall=rate(_covered(a, b, _radii(b, neighbours))),
    )


def _radii(features: Float[Tensor, "N F"], neighbours: int) -> Float[Tensor, " N"]:
    """Return the distance of each row to its k-th nearest neighbour; the nearest of all is the row itself."""
    return torch.cat(
        [
            torch.cdist(part, features).topk(neighbours + 1, dim=1, largest=False).values[:, -1]
            for part in features.split(_rows(features))
        ]
    )


def _covered(
    points: Float[Tensor, "N F"], centres: Float[Tensor, "M F"], radii: Float[Tensor, " M"]
) -> Bool[Tensor, " N"]:
    """Tell which points lie in the ball of some centre."""
    return torch.cat([(torch.cdist(part, centres) <= radii).any(dim=1) for part in points.split(_rows(centres))])


def _rows(others: Tensor) -> int:
    return max(1, _CHUNK // len(others))
