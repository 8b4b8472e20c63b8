"""Where validity begins on the line from the origin to a point."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.search.objective import Objective, is_valid, scores_of


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """The first crossing into validity on each line, between two points that were both tried.

    Attributes:
        outside: the last point found not valid, `(M, D)`; the origin itself is taken for one.
        inside: the first point found valid.
        score: the score of `inside`.
        found: whether any point of the scan was valid; elsewhere the fields above mean nothing.
        highest: the highest score of the scan, valid or not.
    """

    outside: Float[Tensor, "M D"]
    inside: Float[Tensor, "M D"]
    score: Float[Tensor, " M"]
    found: Bool[Tensor, " M"]
    highest: Float[Tensor, " M"]


@torch.no_grad()
def first_crossing(
    objective: Objective,
    ends: Float[Tensor, "M D"],
    rows: Int[Tensor, " M"],
    *,
    scan: int = 8,
    bisections: int = 6,
) -> Crossing:
    """Bracket the first crossing on the line from the origin to each end.

    Validity is not monotone along a line, so the line is first scanned at `scan` evenly spaced points, the end
    included; then the interval below the first valid one is bisected.

    Args:
        objective: the score, valid where it is not negative.
        ends: ends of the lines, in latent units.
        rows: the row of the problem that each belongs to.
        scan: points of the scan.
        bisections: halvings of the bracket; its width ends at `1 / (scan * 2**bisections)` of the line.
    """
    fractions = torch.arange(1, scan + 1, dtype=ends.dtype) / scan
    scores = scores_of(objective, fractions[None, :, None] * ends[:, None], rows)
    first = is_valid(scores).int().argmax(dim=1)
    high, score = fractions[first], scores.gather(1, first[:, None])[:, 0]
    low = high - 1 / scan
    for _ in range(bisections):
        middle = (low + high) / 2
        here = scores_of(objective, (middle[:, None] * ends)[:, None], rows)[:, 0]
        valid = is_valid(here)
        low, high = torch.where(valid, low, middle), torch.where(valid, middle, high)
        score = torch.where(valid, here, score)
    return Crossing(
        outside=low[:, None] * ends,
        inside=high[:, None] * ends,
        score=score,
        found=is_valid(scores).any(dim=1),
        highest=scores.amax(dim=1),
    )
