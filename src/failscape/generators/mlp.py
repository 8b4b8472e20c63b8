"""A generator of fully connected layers, for points and other data of few dimensions."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from failscape.errors import GeneratorError
from failscape.generators.condition import Condition, ConditionEncoding, ConditionSpace
from failscape.generators.discriminator import ConditionalHead
from failscape.generators.generator import Generator
from failscape.generators.layers import EqualizedLinear

_LAYERS = 5
# Keeps the variance of what a SiLU lets through: E[silu(x)²] = 0.356 for a standard normal x.
_SILU_GAIN = 1.676


@final
class MLP(Generator):
    """Five fully connected layers, as the paper draws two-dimensional data with.

    Data of few dimensions go as images of one pixel: a point of the plane has the shape `(2, 1, 1)`.

    Args:
        image_shape: `(C, H, W)`.
        latent_dim: D.
        hidden: width of the four hidden layers.
        condition: arguments of its `ConditionSpace`, or None for a generator without condition.

    References:
        Le Coz et al., "Explaining an image classifier with a generative model conditioned by uncertainty", 2023,
        section 3.
    """

    family: ClassVar[str] = "mlp"

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        latent_dim: int = 8,
        hidden: int = 128,
        condition: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if len(image_shape) != 3 or min(*image_shape, latent_dim, hidden) < 1:
            raise GeneratorError(
                f"Expected a (C, H, W) `image_shape`, a positive `latent_dim` and a positive `hidden` width, but got "
                f"{tuple(image_shape)}, {latent_dim}, {hidden}. A point of the plane has the shape (2, 1, 1)."
            )
        self.condition_space = None if condition is None else ConditionSpace(**condition)
        self.config = {
            "image_shape": list(image_shape),
            "latent_dim": latent_dim,
            "hidden": hidden,
            "condition": None if self.condition_space is None else self.condition_space.config,
        }
        self.latent_dim = latent_dim
        self.image_shape = (int(image_shape[0]), int(image_shape[1]), int(image_shape[2]))
        self.encoding = None if self.condition_space is None else ConditionEncoding(self.condition_space)
        extra = 0 if self.encoding is None else self.encoding.width
        self.layers = _stack([latent_dim + extra, *[hidden] * (_LAYERS - 1), math.prod(self.image_shape)])

    def draw(self, z: Float[Tensor, "N D"], condition: Condition | None = None) -> Float[Tensor, "N C H W"]:
        """Draw as `forward` does, without clipping to [0, 1]: what the training differentiates."""
        self.check_latents(z)
        self.check_condition(condition, len(z))
        if self.encoding is not None and condition is not None:
            z = torch.cat([z, self.encoding(condition)], dim=1)
        images: Tensor = self.layers(z).float().unflatten(1, self.image_shape)
        return 0.5 + 0.25 * images

    def forward(self, z: Float[Tensor, "N D"], condition: Condition | None = None) -> Float[Tensor, "N C H W"]:
        """Draw the images of the latents, in [0, 1]."""
        return self.draw(z, condition).clamp(0, 1)


@final
class MLPDiscriminator(nn.Module):
    """Scores points as real or generated, given what was asked for; as wide and deep as the generator.

    Args:
        image_shape: `(C, H, W)`.
        hidden: width of the layers.
        space: of the conditions, if any.
        concatenate: give the condition to the head in place of a projection, as the paper does.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], hidden: int, space: ConditionSpace | None, *, concatenate: bool = False
    ) -> None:
        super().__init__()
        # The head's score is the fifth layer.
        self.trunk = _stack([math.prod(image_shape), *[hidden] * (_LAYERS - 1)], last=True)
        self.head = ConditionalHead(hidden, space, concatenate=concatenate)

    def views(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Return images as they are looked at: as they are."""
        return x

    def forward(self, views: Float[Tensor, "N C H W"], condition: Condition | None) -> Float[Tensor, " N"]:
        """Return one score an image."""
        score: Tensor = self.head(self.trunk(4 * views.flatten(1) - 2), condition)
        return score


def _stack(widths: Sequence[int], *, last: bool = False) -> nn.Sequential:
    """Return linear layers with smooth activations between them, and after the last if asked for."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [EqualizedLinear(width_in, width_out, gain=_SILU_GAIN if layers else 1.0), nn.SiLU()]
    return nn.Sequential(*(layers if last else layers[:-1]))
