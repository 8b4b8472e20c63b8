"""How far a style must move, all others at rest, until the true class has lost its lead."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.classifiers.uncertainty import class_probability
from failscape.explain.method import to_8_bits
from failscape.explain.style_gradients import Influence
from failscape.explain.style_population import images_of
from failscape.generators import StyleGenerator
from failscape.search import Crossing, first_crossing

HALF = 0.5
# Probabilities so near to one half count as it.
EXACT = 0.005

# A style is followed to so many times half the range of its observed values, from the middle of that range.
_REACH = 6.0
_SCAN = 48
# Halvings of the bracket that the scan leaves; after these its ends draw the same 8-bit image, or neighbours.
_BISECTIONS = 20
# Where a grey value jumps over one half, so many points are tried beyond it, on such a part of a step of the scan.
_NEARBY, _PART = 32, 0.1


@final
@dataclass(frozen=True, kw_only=True)
class StyleCrossings:
    """For each style the smallest shift, either way, at which the true class's probability falls to one half.

    Attributes:
        shift: in the style's own units; NaN where there is none.
        found: whether there is one within reach.
        fall: by how much the probability falls there from one 8-bit picture to the next; NaN where there is none.
        lowest: the lowest probability of the true class that the scan met, either way.
    """

    shift: Float[Tensor, " T"]
    found: Bool[Tensor, " T"]
    fall: Float[Tensor, " T"]
    lowest: Float[Tensor, " T"]


@torch.no_grad()
def cross_half(
    classifier: Classifier,
    generator: StyleGenerator,
    s: Float[Tensor, " S"],
    noise: Float[Tensor, "1 P"] | None,
    y: int,
    dimensions: Int[Tensor, " T"],
    influence: Influence,
    *,
    ways: Float[Tensor, " T"] | None = None,
) -> StyleCrossings:
    """Move each style both ways until the 8-bit image has the probability 0.50, if it ever does.

    A coarse scan comes first, since the probability is not monotone along a style, then bisection of the first
    crossing, down to two pictures of which one follows the other. The second is taken, or the first where that alone is
    within `EXACT` of one half. Where neither is, a single grey value takes the probability past it: then the pictures
    close behind are tried, of which one may be nearer.

    Args:
        classifier: what is explained.
        generator: draws the images.
        s: where to start.
        noise: noise maps, one row; by default the shared ones.
        y: the true class.
        dimensions: which styles, each by itself.
        influence: knows the observed range of each style.
        ways: the sign of the shifts that count, for each style; by default both do.
    """
    count = len(dimensions)
    middle, half = influence.middle[dimensions], influence.half_range[dimensions]
    # Both ways of each style; the lines begin at the start, wherever that lies.
    ends = torch.stack([middle - _REACH * half, middle + _REACH * half]) - s[dimensions]

    def score(epsilon: Tensor, rows: Tensor) -> Tensor:
        moved = s.repeat(len(rows), 1)
        places = dimensions[rows % count]
        moved[torch.arange(len(rows)), places] += epsilon[:, 0]
        return HALF - true_probability(classifier, images_of(generator, moved, noise), y)

    crossing = first_crossing(
        score, ends.flatten()[:, None], torch.arange(2 * count), scan=_SCAN, bisections=_BISECTIONS
    )
    above = score(crossing.outside, torch.arange(2 * count))
    reached = nearest_to_half(score, crossing, above, ends.flatten()[:, None] / _SCAN)
    shifts = torch.where(crossing.found, reached[:, 0], torch.inf).unflatten(0, (2, count))
    if ways is not None:
        shifts = shifts.masked_fill(shifts * ways < 0, torch.inf)
    nearer = shifts.abs().argmin(dim=0)
    shift, fall = (part.gather(0, nearer[None])[0] for part in (shifts, (crossing.score - above).view(2, count)))
    return StyleCrossings(
        shift=torch.where(shift.isfinite(), shift, torch.nan),
        found=shift.isfinite(),
        fall=torch.where(shift.isfinite(), fall, torch.nan),
        lowest=HALF - crossing.highest.unflatten(0, (2, count)).amax(dim=0),
    )


def nearest_to_half(
    score: Callable[[Tensor, Tensor], Tensor],
    crossing: Crossing,
    above: Float[Tensor, " M"],
    steps: Float[Tensor, "M D"],
) -> Float[Tensor, "M D"]:
    """Return where the crossings are: inside, if that is near one half; else outside, if that is; else the next place.

    Where a single grey value takes the probability past one half the next place within a part of a step of the scan is
    looked for, of which a picture may be nearer. Where there is no such place either it is inside all the same.

    Args:
        score: one half less the probability of the true class.
        crossing: of the lines.
        above: the score outside.
        steps: of the scan, along the lines.
    """
    missed = crossing.found & (crossing.score > EXACT)
    # Where nothing has moved yet is no crossing.
    before = missed & (above >= -EXACT) & (crossing.outside != 0).any(dim=1)
    reached = torch.where(before[:, None], crossing.outside, crossing.inside)
    jumps = (missed & ~before).nonzero()[:, 0]

    def exactness(epsilon: Tensor, rows: Tensor) -> Tensor:
        below = score(crossing.inside[rows] + epsilon, rows)
        return torch.minimum(below, EXACT - below)

    near = first_crossing(exactness, _PART * steps[jumps], jumps, scan=_NEARBY, bisections=0)
    reached[jumps[near.found]] += near.inside[near.found]
    return reached


def centre_probability(classifier: Classifier, generator: StyleGenerator, influence: Influence, y: int) -> float:
    """Return the probability of a class for the picture of its mean styles; 0 where it was not drawn."""
    centre = influence.centre[y][None]
    if not centre.isfinite().all():
        return 0.0
    return float(true_probability(classifier, images_of(generator, centre), y))


@torch.no_grad()
def true_probability(classifier: Classifier, x: Float[Tensor, "N C H W"], y: int) -> Float[Tensor, " N"]:
    """Return the probability of one class for the 8-bit form of each image."""
    logits = classifier(to_8_bits(x)).cpu()
    return class_probability(logits, torch.full((len(x),), y))
