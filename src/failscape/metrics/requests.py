"""How well what was asked for is obtained."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.errors import MetricError


def rank_correlation(first: Float[Tensor, " N"], second: Float[Tensor, " N2"]) -> float:
    """Return Spearman's rank correlation to four digits, computed by torchmetrics; NaN where one is constant.

    Raises:
        MetricError: if the lengths differ or there are fewer than 3 pairs.

    Example:
        >>> rank_correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 9.0]))
        1.0
    """
    if len(first) != len(second) or len(first) < 3:
        raise MetricError(f"Expected at least 3 pairs, but got {len(first)} and {len(second)} values.")
    if first.min() == first.max() or second.min() == second.max():
        return float("nan")
    from torchmetrics.functional.regression import spearman_corrcoef

    return round(float(spearman_corrcoef(first.double(), second.double())), 4)


@final
@dataclass(frozen=True, kw_only=True)
class QuantileBands:
    """What was obtained, by what was requested.

    Attributes:
        centre: middle of each bin of requests, shape `(B,)`.
        count: requests in each bin.
        quantiles: the 5 %, 25 %, 50 %, 75 % and 95 % quantiles of what was obtained, shape `(B, 5)`; NaN in an
            empty bin.
    """

    centre: Float[Tensor, " B"]
    count: Float[Tensor, " B"]
    quantiles: Float[Tensor, "B 5"]


def quantile_bands(requested: Float[Tensor, " N"], obtained: Float[Tensor, " N"], *, bins: int = 10) -> QuantileBands:
    """Sort requests into bins of equal width and return quantiles of what was obtained in each."""
    edges = torch.linspace(float(requested.min()), float(requested.max()), bins + 1, dtype=torch.float64)
    place = torch.bucketize(requested.double(), edges[1:-1].contiguous())
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    rows = [obtained[place == index].double() for index in range(bins)]
    quantiles = [row.quantile(levels) if len(row) else torch.full((5,), torch.nan) for row in rows]
    return QuantileBands(
        centre=((edges[1:] + edges[:-1]) / 2).float(),
        count=torch.tensor([float(len(row)) for row in rows]),
        quantiles=torch.stack(quantiles).float(),
    )
