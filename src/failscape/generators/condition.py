"""What a generator is asked for: a class and a score of the classifier's certainty, or a whole distribution."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from failscape.classifiers import SCORES
from failscape.errors import GeneratorError

Embedding = Literal["fourier", "scalar"]
VECTOR = "vector"

# Logits beyond this are told apart neither by an 8-bit image nor by a person: 0.99988.
_LARGEST_LOGIT = 9.0
_OCTAVES = 4
SUREST = 0.999
"""The largest score that is asked for: 1 itself has no logit."""
# The nearest that a drawn score comes to 0 and 1.
_NEAREST = 1e-6


@final
@dataclass(frozen=True, kw_only=True)
class Condition:
    """What is asked of each image.

    Attributes:
        y: the class, shape `(N,)`.
        score: the score of the classifier's verdict, in (0, 1], shape `(N,)`; by default a confidence.
        probs: the whole distribution, shape `(N, K)`, for generators that were trained on it.

    Raises:
        GeneratorError: if a score lies outside (0, 1], the lengths differ, or a row of `probs` does not sum to one.

    Example:
        >>> Condition.of(7, 0.6, n=2).score
        tensor([0.6000, 0.6000])
    """

    y: Int[Tensor, " N"]
    score: Float[Tensor, " N"]
    probs: Float[Tensor, "N K"] | None = None

    def __post_init__(self) -> None:
        if self.y.ndim != 1 or self.score.shape != self.y.shape:
            raise GeneratorError(
                f"Expected one class and one score an image, but got {tuple(self.y.shape)} and "
                f"{tuple(self.score.shape)}. Give both as vectors of one length."
            )
        wrong = ~((self.score > 0) & (self.score <= 1))
        if wrong.any():
            raise GeneratorError(
                f"Expected a score in (0, 1], but got {float(self.score[wrong][0]):g}. Ask for a probability."
            )
        if self.probs is not None:
            if self.probs.ndim != 2 or len(self.probs) != len(self.y):
                raise GeneratorError(
                    f"Expected one distribution an image, shape ({len(self.y)}, K), but got {tuple(self.probs.shape)}. "
                    "Give a row for each."
                )
            sums = self.probs.sum(dim=1)
            if not ((self.probs >= 0) & ((sums - 1).abs() <= 1e-3)[:, None]).all():
                raise GeneratorError(
                    f"Expected rows of probabilities that sum to 1, but got values from {float(self.probs.min()):.3g} "
                    f"and sums from {float(sums.min()):.3g} to {float(sums.max()):.3g}. Divide each row by its sum."
                )

    @classmethod
    def of(cls, y: int, score: float, *, n: int) -> "Condition":
        """Return one class and one score, asked for `n` times."""
        return cls(y=torch.full((n,), y), score=torch.full((n,), float(score)))

    @classmethod
    def of_distributions(cls, probs: Float[Tensor, "N K"]) -> "Condition":
        """Return whole distributions, each with its most probable class and the confidence in it."""
        score, y = probs.max(dim=1)
        return cls(y=y, score=score, probs=probs)

    @classmethod
    def cat(cls, parts: Sequence["Condition"]) -> "Condition":
        """Return the rows of several conditions, one after the other; all have distributions, or none."""
        probs = [part.probs for part in parts if part.probs is not None]
        return cls(
            y=torch.cat([part.y for part in parts]),
            score=torch.cat([part.score for part in parts]),
            probs=torch.cat(probs) if probs else None,
        )

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: Tensor | slice) -> "Condition":
        """Return some of the rows."""
        return Condition(y=self.y[rows], score=self.score[rows], probs=None if self.probs is None else self.probs[rows])

    def twice(self) -> "Condition":
        """Return all rows and then all rows again."""
        return Condition.cat([self, self])

    def to(self, device: torch.device | str) -> "Condition":
        """Return the same on another device."""
        probs = None if self.probs is None else self.probs.to(device)
        return Condition(y=self.y.to(device), score=self.score.to(device), probs=probs)


@final
class ConditionSpace:
    r"""Which conditions a generator understands.

    Args:
        num_classes: K.
        score: a key of `failscape.classifiers.SCORES`, or "vector" for the whole distribution.
        embedding: "fourier" embeds the logit of the score, sines and cosines of octaves beside the value itself;
            "scalar" concatenates the bare score, as the paper does.
        supported: for each class the lowest and the highest score that the training images have, in [0, 1]; by
            default everything. A class without images has the pair (1, 0).
        shares: of the training images, the part that is of each class; by default all are as many.
        quantiles: for each class the scores of its training images at evenly spaced quantiles, the smallest first and
            the largest last; by default evenly spread over what is supported.

    References:
        Le Coz et al., "Explaining an image classifier with a generative model conditioned by uncertainty", 2023.
        Ding et al., "Continuous conditional generative adversarial networks", ICLR 2021: why a bare scalar binds
        badly.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        score: str = "confidence",
        embedding: Embedding = "fourier",
        supported: Sequence[Sequence[float]] | None = None,
        shares: Sequence[float] | None = None,
        quantiles: Sequence[Sequence[float]] | None = None,
    ) -> None:
        if score not in (*SCORES, VECTOR):
            raise GeneratorError(
                f"Expected a score among {', '.join((*SCORES, VECTOR))}, but got {score!r}. Choose one of these."
            )
        if embedding not in ("fourier", "scalar"):
            raise GeneratorError(
                f"Expected the embedding 'fourier' or 'scalar', but got {embedding!r}. Choose one of these."
            )
        ranges = [[0.0, 1.0]] * num_classes if supported is None else [[float(e) for e in pair] for pair in supported]
        if num_classes < 2 or len(ranges) != num_classes or any(len(pair) != 2 for pair in ranges):
            raise GeneratorError(
                f"Expected at least 2 classes and a (low, high) of each, but got {num_classes} classes and "
                f"{len(ranges)} ranges. Leave `supported` out to allow every score."
            )
        self.num_classes = num_classes
        self.score = score
        self.embedding = embedding
        self.supported = ranges
        self.shares = [float(low <= high) for low, high in ranges] if shares is None else [float(e) for e in shares]
        self.quantiles = ranges if quantiles is None else [[float(e) for e in row] for row in quantiles]
        if {len(self.shares), len(self.quantiles)} != {num_classes} or min(map(len, self.quantiles)) < 2:
            raise GeneratorError(
                f"Expected a share and at least 2 quantiles for each of the {num_classes} classes, but got "
                f"{len(self.shares)} shares and {len(self.quantiles)} rows. Leave both out to sample evenly."
            )

    @property
    def classes(self) -> Int[Tensor, " L"]:
        """The classes of which there are training images."""
        return torch.tensor([k for k, share in enumerate(self.shares) if share > 0], dtype=torch.long)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            "num_classes": self.num_classes,
            "score": self.score,
            "embedding": self.embedding,
            "supported": self.supported,
            "shares": self.shares,
            "quantiles": self.quantiles,
        }

    def sample(self, n: int, *, rng: torch.Generator, y: Int[Tensor, " N"] | None = None) -> Condition:
        """Draw conditions as those of the training images are distributed.

        Args:
            n: how many.
            rng: draws classes and scores.
            y: the classes, if only the scores are to be drawn.

        Raises:
            GeneratorError: if the generator was trained on whole distributions, of which none can be drawn.
        """
        if self.score == VECTOR:
            raise GeneratorError(
                "Expected a generator conditioned on class and score, to draw conditions for it, but this one takes "
                "whole distributions. Give conditions, such as those of real images, or take one of class and score."
            )
        if y is None:
            y = torch.multinomial(torch.tensor(self.shares), n, replacement=True, generator=rng)
        score = torch.empty(n, dtype=torch.float64)
        chance = torch.rand(n, generator=rng, dtype=torch.float64)
        for label in y.unique().tolist():
            # Between two quantiles a score is found by its logit: near 1 probabilities lie too close together.
            marks = torch.logit(torch.tensor(self.quantiles[label], dtype=torch.float64), eps=_NEAREST)
            place = chance[y == label] * (len(marks) - 1)
            below = place.long().clamp_max(len(marks) - 2)
            score[y == label] = torch.lerp(marks[below], marks[below + 1], place - below).sigmoid()
        return Condition(y=y, score=score)

    def even_scores(self, y: Int[Tensor, " N"], *, rng: torch.Generator) -> Float[Tensor, " N"]:
        """Draw scores evenly over what each class supports; a confidence from 0.5, and none that has no logit."""
        low, high = torch.tensor(self.supported)[y].unbind(dim=1)
        if self.score in ("confidence", VECTOR):
            low = torch.minimum(low.clamp_min(0.5), high)
        return (low + (high - low) * torch.rand(len(y), generator=rng)).clamp(1 - SUREST, SUREST)

    def of_classes(self, y: Int[Tensor, " N"]) -> Condition:
        """Return conditions that ask for classes, and for scores that say nothing about the single image.

        That is the surest confidence; of other scores the surest may be one that the generator has hardly seen, so
        they are the median of each class.
        """
        sure = torch.full((len(y),), SUREST, dtype=torch.float64)
        if self.score == VECTOR:
            rest = (1 - SUREST) / (self.num_classes - 1)
            probs = torch.full((len(y), self.num_classes), rest).scatter(1, y[:, None], SUREST)
            return Condition(y=y, score=sure, probs=probs)
        if self.score in ("confidence", "true-class"):
            return Condition(y=y, score=sure)
        median = torch.tensor([marks[len(marks) // 2] for marks in self.quantiles], dtype=torch.float64)
        return Condition(y=y, score=median[y].clamp(1 - SUREST, SUREST))

    def check(self, condition: Condition, n: int) -> None:
        """Refuse conditions that these cannot be.

        Raises:
            GeneratorError: if there are not `n`, a class is unknown, or a distribution is missing or too short.
        """
        if len(condition) != n:
            raise GeneratorError(
                f"Expected one condition a latent, {n} in all, but got {len(condition)}. Give as many."
            )
        if n and not 0 <= int(condition.y.min()) <= int(condition.y.max()) < self.num_classes:
            raise GeneratorError(
                f"Expected classes from 0 to {self.num_classes - 1}, but got {int(condition.y.min())} to "
                f"{int(condition.y.max())}. Ask for one of the classifier's classes."
            )
        if self.score == VECTOR:
            got = None if condition.probs is None else condition.probs.shape[1]
            if got != self.num_classes:
                raise GeneratorError(
                    f"Expected a distribution over {self.num_classes} classes, which this generator was trained on, "
                    f"but got {'none' if got is None else f'one over {got}'}. Set `probs` in the condition."
                )

    def supports(self, y: int, score: float) -> bool:
        """Tell whether training images of a class have such a score."""
        low, high = self.supported[y]
        # A highest score just below 1 is a matter of how many images there were.
        return low <= score <= (1.0 if high > 0.99 else high)

    def require_class(self, y: int, class_name: str | None = None) -> None:
        """Refuse a class that the generator does not know, or has not seen.

        Raises:
            GeneratorError: naming it.
        """
        if not 0 <= y < self.num_classes:
            raise GeneratorError(
                f"Expected a class from 0 to {self.num_classes - 1}, but got {y}. Ask for one of the classifier's "
                "classes."
            )
        low, high = self.supported[y]
        if low > high:
            name = str(y) if class_name is None else class_name
            raise GeneratorError(
                f"Expected a class that the generator has seen, but no training image was taken for {name!r}. Ask for "
                "another class."
            )

    def require_supported(self, y: int, score: float, class_name: str | None = None) -> None:
        """Refuse a request that the training images say nothing about.

        Raises:
            GeneratorError: naming the range that they support.
        """
        self.require_class(y, class_name)
        low, high = self.supported[y]
        name = str(y) if class_name is None else class_name
        kind = "confidence" if self.score == VECTOR else self.score
        if not self.supports(y, score):
            raise GeneratorError(
                f"Expected a {kind} between {low:.3f} and {high:.3f} for class {name!r}, which is what the "
                f"training images support, but got {score:g}. Ask within that range."
            )


@final
class ConditionEncoding(nn.Module):
    """Turns conditions into a vector of fixed features, one row an image.

    Args:
        space: of the conditions.

    Attributes:
        width: of the row.
    """

    def __init__(self, space: ConditionSpace) -> None:
        super().__init__()
        self._space = space
        score_width = {VECTOR: space.num_classes, "fourier": 2 + 2 * _OCTAVES, "scalar": 1}
        self.width = space.num_classes + score_width[VECTOR if space.score == VECTOR else space.embedding]

    def forward(self, condition: Condition) -> Float[Tensor, "N F"]:
        """Return one row of features an image, each of about unit size."""
        # Of unit mean square, as the features of the score are: else they would drown the class.
        one_hot = math.sqrt(self._space.num_classes) * nn.functional.one_hot(condition.y, self._space.num_classes)
        if self._space.score == VECTOR:
            assert condition.probs is not None, "checked at the border"
            logs = condition.probs.clamp_min(math.exp(-_LARGEST_LOGIT)).log() / _LARGEST_LOGIT
            return torch.cat([one_hot, 1 + 2 * logs], dim=1)
        if self._space.embedding == "scalar":
            return torch.cat([one_hot, condition.score[:, None].float()], dim=1)
        logit = torch.logit(condition.score.double()).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT).float()[:, None]
        angle = logit * (math.pi / _LARGEST_LOGIT * 2.0 ** torch.arange(-1, _OCTAVES - 1, device=logit.device))
        features = [logit / _LARGEST_LOGIT, torch.tanh(logit / 2), angle.sin(), angle.cos()]
        return torch.cat([one_hot, *features], dim=1)
