"""The exponential moving average of weights, its memory counted in images."""

import torch
from torch import nn


def ema_decay(batch: int, images_seen: int, *, half_life: int, ramp_up: float = 0.05) -> float:
    r"""Return how much of the average stays after one more batch.

    $\beta = 0.5^{B / h}$ with $h = \min(H, r \cdot n)$: early on the memory is a part of what has been seen,
    so the first, random weights are soon forgotten.

    Args:
        batch: $B$, images in this step.
        images_seen: $n$, images seen before it.
        half_life: $H$, in images; 0 keeps no average.
        ramp_up: $r$.

    References:
        Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022,
        appendix F.

    Example:
        >>> ema_decay(100, 1_000_000, half_life=100)
        0.5
    """
    memory = min(half_life, ramp_up * images_seen)
    return 0.5 ** (batch / memory) if memory > 0 else 0.0


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the parameters of `average` towards those of `network`; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for mean, buffer in zip(average.buffers(), network.buffers(), strict=True):
        mean.copy_(buffer)
