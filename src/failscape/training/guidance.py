"""The frozen classifier's say: how far its verdict on a generated image is from what was asked for."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from failscape.classifiers import SCORES
from failscape.generators import Condition
from failscape.generators.condition import VECTOR
from failscape.training.augmentation import jitter
from failscape.training.distributed import workers

# Beyond this logit (0.993) more certainty is neither seen nor asked for.
_CERTAIN = 5.0
_HUBER = 0.5
# By how much, in logits, the class asked for should lead the next.
_LEAD = 0.2


def condition_loss(logits: Float[Tensor, "N K"], condition: Condition, *, score: str) -> Float[Tensor, " N"]:
    r"""Return by how much each image misses its condition.

    For a score, the Huber loss of the difference between requested and obtained logit of the score, those beyond
    ±5 counting as reached, plus a hinge where the class asked for does not lead. For a whole distribution,
    $KL(p_{requested} \| p_{obtained})$.

    Args:
        logits: of the images generated.
        condition: what was asked for.
        score: a key of `SCORES`, or "vector".

    Example:
        >>> torn = torch.tensor([[1.0, 1.0]])
        >>> condition_loss(torn, Condition.of(0, 0.5, n=1), score="true-class")
        tensor([0.])
    """
    if score == VECTOR:
        assert condition.probs is not None, "checked at the border"
        return target_divergence(logits, condition.probs)
    asked = torch.logit(condition.score.double()).clamp(-_CERTAIN, _CERTAIN).float()
    error = SCORES[score].logit(logits, condition.y) - asked
    error = torch.where(asked >= _CERTAIN, error.clamp_max(0), error)
    error = torch.where(asked <= -_CERTAIN, error.clamp_min(0), error)
    loss = F.huber_loss(error, torch.zeros_like(error), delta=_HUBER, reduction="none")
    if SCORES[score].refers_to == "predicted":
        own = logits.gather(1, condition.y[:, None])
        others = logits.scatter(1, condition.y[:, None], -torch.inf)
        loss = loss + F.relu(_LEAD - (own[:, 0] - others.amax(dim=1)))
    return loss


def target_divergence(
    logits: Float[Tensor, "N K"], target: Float[Tensor, "N K"] | Float[Tensor, " K"]
) -> Float[Tensor, " N"]:
    r"""Return $KL(t \| p)$ of each row, in nats.

    Args:
        logits: of p.
        target: t, one a row or one for all.

    Example:
        >>> target_divergence(torch.zeros(1, 4), torch.tensor([1.0, 0, 0, 0])).exp()
        tensor([4.0000])
    """
    log_probs = logits.log_softmax(dim=1)
    return F.kl_div(log_probs, target.to(log_probs).expand_as(log_probs), reduction="none").sum(dim=1)


def guarded(x: Float[Tensor, "N C H W"], *, rng: torch.Generator) -> Float[Tensor, "N C H W"]:
    """Move every second image by up to a pixel and add noise of deviation 0.05.

    What holds only for the exact pixels is an adversarial shortcut; it does not survive this. The other images stay
    as they are, so that the condition is bound for them.
    """
    moved = jitter(x[::2], rng=rng, max_shift=1.0, max_angle=0.0, max_scale=0.0)
    noise = workers().mine(lambda m: torch.randn(m, *moved.shape[1:], generator=rng), len(moved))
    noisy = moved + 0.05 * noise.to(x.device)
    mixed = x.clone()
    mixed[::2] = noisy
    return mixed
