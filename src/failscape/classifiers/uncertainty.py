"""Uncertainty: how sure a classifier is, as one number an image, made of its logits.

Every score is a function of logits and of one class an image, `(N, K), (N,) -> (N,)`, and is differentiable. With
the predicted class it says how sure the classifier is of its answer, with the label how right it is.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

# The nearest that a score without an exact logit comes to 0 and 1: float32 tells these from them.
_NEAREST = 1e-6

Function = Callable[[Tensor, Tensor], Tensor]


@final
@dataclass(frozen=True, kw_only=True)
class Score:
    """A way to say how sure a classifier is.

    Attributes:
        refers_to: which class the score is meant to be taken of, the predicted one or the label.
        value: from logits `(N, K)` and classes `(N,)` to the scores `(N,)`.
        logit: likewise to log(v / (1 - v)) of each score v.
    """

    refers_to: Literal["predicted", "label"]
    value: Function
    logit: Function

    def classes(self, logits: Float[Tensor, "N K"], labels: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        """Return the class of each image that the score is meant to be taken of."""
        return labels if self.refers_to == "label" else logits.argmax(dim=1)

    def of(self, logits: Float[Tensor, "N K"], labels: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Return the score of each image, taken of the class that it is meant for.

        Example:
            >>> SCORES["confidence"].of(torch.tensor([[2.0, 2.0, -90.0]]), torch.tensor([2]))
            tensor([0.5000])
        """
        return self.value(logits, self.classes(logits, labels))


def class_probability(logits: Float[Tensor, "N K"], y: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Return the softmax probability of class `y`, in [0, 1].

    With the predicted class that is the confidence, also known as maximum softmax probability (MSP); with the
    label, the probability of the true class.
    """
    return _of_class(logits.softmax(dim=1), y)


def class_logit(logits: Float[Tensor, "N K"], y: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    r"""Return the logit of the class probability, $z_y - \log\sum_{k \neq y} e^{z_k}$.

    It is finite and has gradients where the probability itself is rounded to 0 or 1.
    """
    is_class = torch.zeros_like(logits, dtype=torch.bool).scatter(1, y[:, None], value=True)
    others: Tensor = logits.masked_fill(is_class, -torch.inf).logsumexp(dim=1)
    return _of_class(logits, y) - others


def entropy(logits: Float[Tensor, "N K"], y: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    r"""Return the entropy of the class probabilities, $-\sum_k p_k \log p_k / \log K$, whatever `y` is.

    It is 0 for a classifier that is sure and 1 where all classes are as probable.
    """
    log_probs = logits.log_softmax(dim=1)
    in_nats = -(log_probs.exp() * log_probs).sum(dim=1)
    return (in_nats / math.log(logits.shape[1])).clamp(0, 1)


def margin(logits: Float[Tensor, "N K"], y: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    r"""Return the lead of class `y`, $p_y - \max_{k \neq y} p_k$.

    It is in [0, 1] if `y` is the predicted class, and in [-1, 0] if it is not.
    """
    probs = logits.softmax(dim=1)
    others = probs.scatter(1, y[:, None], 0.0).amax(dim=1)
    return _of_class(probs, y) - others


def _of_class(values: Tensor, y: Tensor) -> Tensor:
    return values.gather(1, y[:, None])[:, 0]


def _clamped_logit(score: Function) -> Function:
    """Return the logit of a score, which stops where float32 cannot tell the score from 0 or 1."""
    return lambda logits, y: torch.logit(score(logits, y), eps=_NEAREST)


SCORES: Mapping[str, Score] = {
    "confidence": Score(refers_to="predicted", value=class_probability, logit=class_logit),
    "true-class": Score(refers_to="label", value=class_probability, logit=class_logit),
    "entropy": Score(refers_to="predicted", value=entropy, logit=_clamped_logit(entropy)),
    "margin": Score(refers_to="predicted", value=margin, logit=_clamped_logit(margin)),
}
"""The scores by name. "entropy" is the only one that grows as the classifier becomes less sure."""
