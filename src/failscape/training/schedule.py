"""How the learning rate moves with the progress of a training."""

import math

from torch.optim import Optimizer


def warmup_cosine(progress: float, *, warmup: float) -> float:
    r"""Return the factor of the peak learning rate: a linear rise, then half a cosine down to 0.

    Args:
        progress: $t$, the part of all images that has been seen, in [0, 1].
        warmup: $u$, the progress at which the peak is reached: $t/u$ before, and
            $\frac{1}{2}(1 + \cos \pi \frac{t-u}{1-u})$ after it.

    Example:
        >>> [round(warmup_cosine(t, warmup=0.2), 3) for t in (0.0, 0.1, 0.2, 0.6, 1.0)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) if warmup < 1 else 1.0


def constant_cosine(progress: float, *, decay_from: float) -> float:
    r"""Return the factor of the learning rate: 1, then half a cosine down to 0.

    Args:
        progress: $t$, the part of all images that has been seen, in [0, 1].
        decay_from: $u$: $\frac{1}{2}(1 + \cos \pi \frac{t-u}{1-u})$ after it.

    Example:
        >>> [round(constant_cosine(t, decay_from=0.5), 3) for t in (0.0, 0.5, 0.75, 1.0)]
        [1.0, 1.0, 0.5, 0.0]
    """
    if progress < decay_from or decay_from >= 1:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (progress - decay_from) / (1 - decay_from)))


def ramp(progress: float, start: float, full: float) -> float:
    """Return a factor that is 0 up to `start`, rises evenly, and is 1 from `full` on.

    Example:
        >>> [ramp(t, 0.2, 0.4) for t in (0.1, 0.3, 0.5)]
        [0.0, 0.4999999999999999, 1.0]
    """
    if progress < start:
        return 0.0
    return min(1.0, (progress - start) / (full - start)) if full > start else 1.0


def set_learning_rate(optimizer: Optimizer, value: float) -> None:
    """Give all parameter groups of an optimiser one learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = value
