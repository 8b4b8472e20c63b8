"""The generator that grows with its training, from small images to large ones."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from failscape.errors import GeneratorError
from failscape.generators.condition import Condition
from failscape.generators.convolutional import ConvEncoder, CriticGenerator, checked_sizes
from failscape.generators.layers import (
    ACTIVATION_GAIN,
    EqualizedConv,
    EqualizedLinear,
    activate,
    normalized,
)


@final
class Progressive(CriticGenerator):
    r"""A generator and a critic that start at the smallest resolution and take in the others one by one.

    While a resolution fades in, what its layers add is mixed with the image of the resolution below, enlarged; the
    critic mixes in the same way. Learning rates are equalised, activations of the generator scaled to unit size at each
    pixel, and latents to the sphere of radius $\sqrt D$. The paper's deviation within groups of images is left out: an
    image's score depends on the image alone, as the gradient penalty assumes and `realism` needs.

    Args:
        image_shape: `(C, H, W)`, of sides that are `2 ** (len(channels) - 1)` times a whole number.
        channels: feature maps at each resolution, the smallest first.
        latent_dim: D.

    Attributes:
        levels: resolutions in all.
        stage: how far it has grown: 0 is the smallest resolution alone, 1.25 has a quarter of the resolution above the
            second faded in, `len(channels) - 1` is the whole. A loaded generator is whole.

    Raises:
        GeneratorError: if the sizes do not fit each other.

    References:
        Karras et al., "Progressive Growing of GANs for Improved Quality, Stability, and Variation", ICLR 2018.
    """

    family: ClassVar[str] = "progressive"

    def __init__(
        self, *, image_shape: Sequence[int], channels: Sequence[int] = (96, 48, 24), latent_dim: int = 64
    ) -> None:
        super().__init__()
        self.image_shape, base = checked_sizes(image_shape, channels, latent_dim)
        factor = 2 ** (len(channels) - 1)
        if (base[0] * factor, base[1] * factor) != self.image_shape[1:]:
            raise GeneratorError(
                f"Expected images of base·{factor} pixels for {len(channels)} resolutions, but got "
                f"{self.image_shape[1]} × {self.image_shape[2]}. Give fewer `channels`, or images of another size."
            )
        self.latent_dim = latent_dim
        self.config = {"image_shape": list(image_shape), "channels": list(channels), "latent_dim": latent_dim}
        self.levels = len(channels)
        self.decoder = _GrowingDecoder(self.image_shape[0], base, channels, latent_dim)
        self.critic = _GrowingCritic(self.image_shape[0], base, channels)
        self.encoder = ConvEncoder(self.image_shape, channels, latent_dim)
        self.stage = float(len(channels) - 1)

    def sample_latents(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "N D"]:
        r"""Draw latents evenly from the sphere of radius $\sqrt D$."""
        return normalized(super().sample_latents(n, rng=rng))

    def on_prior(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Return the latents on the sphere in the same directions: only these count."""
        return normalized(z)

    def log_prior(self, z: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Return zeros: every direction is as likely as any other, and only the direction counts."""
        return z.new_zeros(len(z))

    def draw(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N C h w"]:
        """Draw images of the size that it has grown to, without clipping: what the training differentiates."""
        drawn: Tensor = self.decoder(normalized(z), self.stage)
        return 0.5 + 0.5 * drawn

    def shown(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C h w"]:
        """Return real images at the size that it has grown to, as sharp as the present mixture can draw."""
        level = math.ceil(self.stage)
        x = F.avg_pool2d(x, 2 ** (self.levels - 1 - level))
        return x if level == self.stage else torch.lerp(_doubled(F.avg_pool2d(x, 2)), x, self.stage - (level - 1))

    def score(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, " N"]:
        """Return the critic's score of images of the size that it has grown to."""
        score: Tensor = self.critic(x, self.stage)
        return score

    def critic_features(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N F"]:
        """Return what the critic makes its score from."""
        assert isinstance(self.critic, _GrowingCritic)
        features: Tensor = self.critic.features(x, self.stage)
        return features

    def forward(self, z: Float[Tensor, "N D"], condition: Condition | None = None) -> Float[Tensor, "N C H W"]:
        """Draw the images of the latents, in [0, 1], enlarged if it has not grown up; a condition is refused."""
        self.check_latents(z)
        self.check_condition(condition, len(z))
        x = self.draw(z)
        return F.interpolate(x, size=self.image_shape[1:]).clamp(0, 1)

    def encode(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D"]:
        r"""Return the latent of each image, on the sphere of radius $\sqrt D$."""
        self.check_images(x)
        return normalized(self.encoder(x))


class _GrowingDecoder(nn.Module):
    """From latents to images of the size that a stage has."""

    def __init__(self, colours: int, base: tuple[int, int], channels: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self._base = base
        self.flat = EqualizedLinear(latent_dim, channels[0] * base[0] * base[1], gain=ACTIVATION_GAIN)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(EqualizedConv(a, after, 3, gain=ACTIVATION_GAIN) for a in (before, after)))
            for before, after in pairwise([channels[0], *channels])
        )
        self.to_image = nn.ModuleList(EqualizedConv(width, colours, 1) for width in channels)

    def forward(self, z: Tensor, stage: float) -> Tensor:
        level = math.ceil(stage)
        x = normalized(activate(self.flat(z)).unflatten(1, (-1, *self._base)))
        below = x
        for index in range(level + 1):
            below = x
            x = _convolved(_doubled(x) if index else x, self.blocks[index])
        image: Tensor = self.to_image[level](x).float()
        if level == stage:
            return image
        return torch.lerp(_doubled(self.to_image[level - 1](below).float()), image, stage - (level - 1))


class _GrowingCritic(nn.Module):
    """From images of the size that a stage has to one score each."""

    def __init__(self, colours: int, base: tuple[int, int], channels: Sequence[int]) -> None:
        super().__init__()
        self.from_image = nn.ModuleList(EqualizedConv(colours, width, 1, gain=ACTIVATION_GAIN) for width in channels)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                EqualizedConv(width, width, 3, gain=ACTIVATION_GAIN),
                EqualizedConv(width, below, 3, gain=ACTIVATION_GAIN),
            )
            for below, width in pairwise(channels)
        )
        self.last = EqualizedConv(channels[0], channels[0], 3, gain=ACTIVATION_GAIN)
        width = 128
        self.flat = EqualizedLinear(channels[0] * base[0] * base[1], width, gain=ACTIVATION_GAIN)
        self.head = EqualizedLinear(width, 1)

    def forward(self, x: Tensor, stage: float) -> Tensor:
        score: Tensor = self.head(self.features(x, stage))
        return score[:, 0].float()

    def features(self, x: Tensor, stage: float) -> Tensor:
        level = math.ceil(stage)
        x = (2 * x - 1).contiguous(memory_format=torch.channels_last)
        h = activate(self.from_image[level](x))
        for index in reversed(range(level)):
            block = self.blocks[index]
            assert isinstance(block, nn.Sequential)
            for convolution in block:
                h = activate(convolution(h))
            h = F.avg_pool2d(h, 2)
            if index == level - 1 and level != stage:
                h = torch.lerp(activate(self.from_image[index](F.avg_pool2d(x, 2))), h, stage - index)
        return activate(self.flat(activate(self.last(h)).flatten(1)))


def _convolved(x: Tensor, block: nn.Module) -> Tensor:
    assert isinstance(block, nn.Sequential)
    for convolution in block:
        x = normalized(activate(convolution(x)))
    return x


def _doubled(x: Tensor) -> Tensor:
    """Double height and width."""
    return F.interpolate(x, scale_factor=2, mode="nearest")
