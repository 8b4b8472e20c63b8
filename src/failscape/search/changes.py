"""Every place on a line at which a label changes, bracketed as closely as asked for."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

# From positions in [0, 1] `(M,)` and the line that each is on `(M,)` to labels `(M,)`.
Labels = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Brackets of the changes, those of one line after those of the line before, and in their order on it.

    Attributes:
        line: the line that each is on.
        low: the last position found with the label before.
        high: the first position found with the label after.
        before: label at `low`.
        after: label at `high`.
    """

    line: Int[Tensor, " Q"]
    low: Float[Tensor, " Q"]
    high: Float[Tensor, " Q"]
    before: Int[Tensor, " Q"]
    after: Int[Tensor, " Q"]


@torch.no_grad()
def label_changes(
    labels: Labels, positions: Float[Tensor, " T"], scanned: Int[Tensor, "L T"], *, tolerance: float
) -> Changes:
    """Halve the intervals of a scan between whose ends the label changes, until they are narrow enough.

    A label that is met only in the middle of an interval makes two changes of one. What comes and goes between two
    points of the scan that have the same label is not seen.

    Args:
        labels: the label anywhere on the lines.
        positions: of the scan, rising from 0 to 1, float64.
        scanned: the labels there, one row a line.
        tolerance: the widest bracket allowed.

    Example:
        >>> thirds = lambda t, line: (3 * t).long()
        >>> ends = torch.tensor([0.0, 0.99], dtype=torch.float64)
        >>> label_changes(thirds, ends, torch.tensor([[0, 2]]), tolerance=1e-6).high
        tensor([0.3333, 0.6667], dtype=torch.float64)
    """
    line, place = (scanned[:, 1:] != scanned[:, :-1]).nonzero().unbind(dim=1)
    low, high = positions[place], positions[place + 1]
    before, after = scanned[line, place], scanned[line, place + 1]
    while len(line) and float((high - low).max()) > tolerance:
        middle = (low + high) / 2
        here = labels(middle, line)
        # A bracket becomes its lower half, its upper half, or both where the middle has a label of its own.
        lower, upper = here != before, here != after
        line = torch.cat([line[lower], line[upper]])
        low, high = torch.cat([low[lower], middle[upper]]), torch.cat([middle[lower], high[upper]])
        before, after = torch.cat([before[lower], here[upper]]), torch.cat([here[lower], after[upper]])
    order = low.argsort(stable=True)
    order = order[line[order].argsort(stable=True)]
    return Changes(line=line[order], low=low[order], high=high[order], before=before[order], after=after[order])
