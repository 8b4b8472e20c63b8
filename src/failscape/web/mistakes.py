"""The mistakes of a run with their sympathetic examples: which there are, which are wanted, and what lies between."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.explain import SympatheticResult, to_8_bits
from failscape.generators import Generator
from failscape.report.run import Run

Order = Literal["given", "confidence", "norm", "true", "predicted"]


@final
@dataclass(frozen=True, kw_only=True)
class Mistake:
    """An image that the classifier gets wrong.

    Attributes:
        row: in the result.
        id: its name in its set.
        true: the class that it is labelled.
        predicted: the class that the classifier gives it.
        confidence: the classifier's probability of that.
        norm: length of the change that puts it right, or that was tried last.
        success: whether the change puts it right.
    """

    row: int
    id: str
    true: int
    predicted: int
    confidence: float
    norm: float
    success: bool


@final
@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which mistakes one wants to see, and in which order; None for any.

    Attributes:
        true: the class that they are labelled.
        predicted: the class that they are taken for.
        least: lowest confidence, in percent.
        most: highest confidence, in percent.
        longest: longest change.
        success: whether a change puts them right.
        order: what they are sorted by.
        falling: the largest first.
    """

    true: int | None = None
    predicted: int | None = None
    least: float | None = None
    most: float | None = None
    longest: float | None = None
    success: bool | None = None
    order: Order = "given"
    falling: bool = False

    def choose(self, mistakes: Sequence[Mistake]) -> list[Mistake]:
        """Return the mistakes that are wanted, in order; equal ones as they came."""
        chosen = [mistake for mistake in mistakes if self._fits(mistake)]
        if self.order != "given":
            chosen.sort(key=lambda mistake: getattr(mistake, self.order), reverse=self.falling)
        elif self.falling:
            chosen.reverse()
        return chosen

    def _fits(self, mistake: Mistake) -> bool:
        return (
            self.true in (None, mistake.true)
            and self.predicted in (None, mistake.predicted)
            and (self.least is None or 100 * mistake.confidence >= self.least)
            and (self.most is None or 100 * mistake.confidence <= self.most)
            and (self.longest is None or mistake.norm <= self.longest)
            and self.success in (None, mistake.success)
        )


def sympathetic_steps(run: Run) -> dict[int, SympatheticResult]:
    """Return the sympathetic examples of a run that begin at mistakes, by the numbers of their steps."""
    found = {
        number: step.result
        for number, step in enumerate(run.steps, start=1)
        if isinstance(step.result, SympatheticResult)
    }
    return {number: result for number, result in found.items() if find_mistakes(result)}


def find_mistakes(result: SympatheticResult) -> list[Mistake]:
    """Return the images of a result that the classifier gets wrong."""
    confidence, predicted = result.probs_before.max(dim=1)
    columns = (result.target, predicted, confidence, result.norm, result.success)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        Mistake(row=row, id=name, true=true, predicted=taken, confidence=sure, norm=norm, success=success)
        for row, (name, (true, taken, sure, norm, success)) in enumerate(zip(result.ids, rows, strict=True))
        if taken != true
    ]


@torch.no_grad()
def on_the_way(
    result: SympatheticResult, row: int, part: float, classifier: Classifier, generator: Generator
) -> tuple[Float[Tensor, "C H W"], Float[Tensor, " K"]]:
    """Return x' = g(z + tε) + x - g(z) as saved in 8 bits, and its class probabilities.

    Args:
        result: sympathetic examples.
        row: which of them.
        part: t, 0 for the image itself and 1 for its example.
        classifier: whose mistake it is.
        generator: that the example was found with.
    """
    z, epsilon, x = (tensor[row, None] for tensor in (result.z, result.epsilon, result.originals))
    images = to_8_bits(x + generator(z + part * epsilon) - generator(z))
    return images[0], classifier.probs(images)[0]


def way_of_search(result: SympatheticResult, row: int) -> Float[Tensor, "T 2"]:
    """Return where the search went: how far along the way to the example, and how far off it, in units of ‖ε‖.

    The search begins at (0, 0) and ends at (1, 0).
    """
    path, epsilon = result.path[row], result.epsilon[row]
    length = epsilon.norm().clamp_min(torch.finfo(epsilon.dtype).tiny)
    along = path @ epsilon / length**2
    off = (path - along[:, None] * epsilon).norm(dim=1) / length
    return torch.stack([along, off], dim=1)
