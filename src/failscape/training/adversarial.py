"""The adversarial game: losses, gradient penalties, and what keeps it fair."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from failscape.training.augmentation import jitter
from failscape.training.distributed import workers

# How sure a discriminator may be of the images it has seen before augmentation grows (Karras et al. 2020).
_TARGET_SIGN = 0.6
# Images after which the probability of augmentation may have gone from 0 to 1.
_AUGMENTATION_IMAGES = 500_000


def discriminator_loss(
    real: Float[Tensor, " N"], fake: Float[Tensor, " N"], *, relativistic: bool
) -> Float[Tensor, ""]:
    r"""Return the loss of the discriminator.

    Logistic: $\log(1 + e^{D(\hat x)}) + \log(1 + e^{-D(x)})$ (Goodfellow et al., 2014). Relativistic:
    $\log(1 + e^{D(\hat x) - D(x)})$ on pairs (Huang et al., "The GAN is dead", NeurIPS 2024).
    """
    if relativistic:
        return F.softplus(fake - real).mean()
    return (F.softplus(fake) + F.softplus(-real)).mean()


def generator_loss(fake: Float[Tensor, " N"], real: Float[Tensor, " N"], *, relativistic: bool) -> Float[Tensor, ""]:
    r"""Return the non-saturating loss of the generator; `real` counts in the relativistic game alone.

    Logistic: $\log(1 + e^{-D(\hat x)})$. Relativistic: $\log(1 + e^{D(x) - D(\hat x)})$.
    """
    return F.softplus(real - fake if relativistic else -fake).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], x: Float[Tensor, "N C H W"]) -> Float[Tensor, ""]:
    r"""Return $\frac12 E \|\nabla_x D(x)\|^2$: R1 on real images, R2 on generated ones.

    References:
        Mescheder et al., "Which Training Methods for GANs do actually Converge?", ICML 2018.
    """
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return 0.5 * gradient.square().sum(dim=(1, 2, 3)).mean()


class ClampedGradient(torch.autograd.Function):
    """Clips images to [0, 1]; lets a gradient through that leads back into the range, and no other.

    Clipping alone would leave a pixel beyond the range without any gradient, for good.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Clip."""
        ctx.save_for_backward(x)
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Pass the gradient where a step against it moves the pixel toward the range, or within it."""
        (x,) = ctx.saved_tensors
        away = ((x < 0) & (gradient > 0)) | ((x > 1) & (gradient < 0))
        return gradient.masked_fill(away, 0)


def clip_images(x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    """Clip to [0, 1], with a gradient that leads back from beyond."""
    clipped: Tensor = ClampedGradient.apply(x)  # type: ignore[no-untyped-call]
    return clipped


class AdaptiveAugmentation:
    r"""Moves, turns and scales images, real and generated alike, as often as the discriminator's overfitting asks.

    The measure is $r = E[\mathrm{sign} D(x)]$ over real images, in the relativistic game
    $E[\mathrm{sign}(D(x) - D(\hat x))]$ over pairs; the probability of a change goes up while it is above
    0.6 and down below.

    Attributes:
        probability: that an image is changed.

    References:
        Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020.
    """

    def __init__(self) -> None:
        self.probability = 0.0

    def __call__(self, x: Float[Tensor, "N C H W"], *, rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """Return the images, some of them changed; differentiable."""
        chances = workers().mine(lambda m: torch.rand(m, generator=rng), len(x))
        changed = (chances < self.probability).to(x.device)[:, None, None, None]
        return torch.where(changed, jitter(x, rng=rng, max_shift=x.shape[-1] / 8), x)

    def adapt(self, sign: float, images: int) -> None:
        """Follow the measure.

        Args:
            sign: the measure.
            images: seen since the last call.
        """
        step = math.copysign(images / _AUGMENTATION_IMAGES, sign - _TARGET_SIGN)
        self.probability = min(1.0, max(0.0, self.probability + step))
