"""Corner cases over all style dimensions at once, minimal in norm, from as many starts as it takes."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.classifiers.uncertainty import class_logit
from failscape.explain.method import to_8_bits_with_gradient
from failscape.explain.style_crossing import HALF, nearest_to_half, true_probability
from failscape.explain.style_gradients import Influence
from failscape.explain.style_population import images_of, sample_styles
from failscape.generators import StyleGenerator
from failscape.search import first_crossing, minimal_norm

# Starts that are searched from at once: each has a graph of several images and keeps the points that it passed.
_ROWS = 100
# For each case asked for: starts that are searched from at most, and samples that are drawn for them at most.
_SEARCHES = 3
_DRAWS = 40
_SCAN, _BISECTIONS = 8, 20


@final
@dataclass(frozen=True, kw_only=True)
class JointCases:
    """Corner cases of one class over all dimensions at once.

    Attributes:
        starts: styles that the searches started from.
        noise: noise maps, at the start and after.
        moves: the smallest perturbations found, in the styles' own units.
    """

    starts: Float[Tensor, "N S"]
    noise: Float[Tensor, "N P"]
    moves: Float[Tensor, "N S"]

    def __len__(self) -> int:
        return len(self.moves)


def joint_cases(
    classifier: Classifier,
    generator: StyleGenerator,
    influence: Influence,
    label: int,
    n: int,
    *,
    steps: int,
    rng: torch.Generator,
) -> JointCases:
    """Find `n` cases of a class, or as many as there are from a bounded number of starts.

    The first start is the mean styles with the shared noise, the others are samples that are classified rightly. Where
    nothing is found from a start another is drawn, until three times as many were searched from as cases are asked for,
    or forty times as many drawn. Searches go on side by side, a bounded number at once, so that memory holds.

    Args:
        classifier: one with gradients.
        generator: draws the images.
        influence: knows the mean styles of each class, and the spread of each style.
        label: the class; its mean styles must have been drawn.
        n: how many.
        steps: of each search.
        rng: draws starts and restarts.
    """
    starts, noise = influence.centre[label][None], generator.shared_noise()
    parts: list[JointCases] = []
    found = searched = drawn = 0
    while found < n and searched < _SEARCHES * n:
        wanted = min(_ROWS, n - found, _SEARCHES * n - searched) - len(starts)
        while wanted > 0 and drawn < _DRAWS * n:
            samples = sample_styles(generator, 2 * wanted + 8, rng=rng, y=torch.full((2 * wanted + 8,), label))
            drawn += len(samples)
            right = true_probability(classifier, images_of(generator, samples.s, samples.noise), label) > HALF
            rows = right.nonzero()[:wanted, 0]
            starts, noise = torch.cat([starts, samples.s[rows]]), torch.cat([noise, samples.noise[rows]])
            wanted -= len(rows)
        if not len(starts):
            break
        parts.append(_search(classifier, generator, influence, label, starts, noise, steps, rng))
        found, searched = found + len(parts[-1]), searched + len(starts)
        starts, noise = starts[:0], noise[:0]
    return JointCases(
        starts=torch.cat([part.starts for part in parts]),
        noise=torch.cat([part.noise for part in parts]),
        moves=torch.cat([part.moves for part in parts]),
    )


def _search(
    classifier: Classifier,
    generator: StyleGenerator,
    influence: Influence,
    label: int,
    s: Float[Tensor, "N S"],
    noise: Float[Tensor, "N P"],
    steps: int,
    rng: torch.Generator,
) -> JointCases:
    """Search from each start; those from which nothing was found are left out."""
    spread = influence.spread
    others = [k for k in (influence.count > 0).nonzero()[:, 0].tolist() if k != label]
    # Toward the other classes the true one is lost for certain, if anywhere.
    ways = [(influence.centre[k] - s) / spread.clamp_min(1e-6) for k in others]
    candidates = torch.stack(ways, dim=1) if ways else s.new_zeros(len(s), 1, s.shape[1])

    def score(epsilon: Tensor, rows: Tensor) -> Tensor:
        x = generator.synthesize(s[rows] + epsilon * spread, noise[rows])
        logits = classifier(to_8_bits_with_gradient(x)).cpu()
        return -class_logit(logits, torch.full((len(rows),), label))

    @torch.no_grad()
    def missing(epsilon: Tensor, rows: Tensor) -> Tensor:
        return HALF - true_probability(classifier, images_of(generator, s[rows] + epsilon * spread, noise[rows]), label)

    best = minimal_norm(score, candidates, rng=rng, starts=2, steps=steps)
    # From the start to the best, to where the probability is one half and not merely below.
    line = first_crossing(missing, best.epsilon, torch.arange(len(s)), scan=_SCAN, bisections=_BISECTIONS)
    above = missing(line.outside, torch.arange(len(s)))
    reached = nearest_to_half(missing, line, above, best.epsilon / _SCAN)
    return JointCases(starts=s[line.found], noise=noise[line.found], moves=reached[line.found] * spread)
