"""The convolutional decoder that families without styles share; their encoders and critics are residual trunks."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from failscape.errors import GeneratorError
from failscape.generators.condition import Condition
from failscape.generators.discriminator import ResidualTrunk
from failscape.generators.generator import Autoencoder
from failscape.generators.layers import ACTIVATION_GAIN, EqualizedConv, EqualizedLinear, activate, normalized


def checked_sizes(
    image_shape: Sequence[int], channels: Sequence[int], latent_dim: int
) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Return `(C, H, W)` and the smallest resolution, of which the image is `2 ** (len(channels) - 1)` times as large.

    Where a side is no such multiple the smallest resolution is rounded up, and what is drawn is cropped.

    Raises:
        GeneratorError: if a size is not positive, or there are more resolutions than the image can be halved to.
    """
    if len(image_shape) != 3 or not channels or min(*image_shape, *channels, latent_dim) < 1:
        raise GeneratorError(
            "Expected a (C, H, W) `image_shape`, a positive `latent_dim` and one positive number of `channels` a "
            f"resolution, but got {tuple(image_shape)}, {latent_dim}, {tuple(channels)}."
        )
    colours, height, width = (int(side) for side in image_shape)
    factor = 2 ** (len(channels) - 1)
    if min(height, width) < 2 * factor:
        raise GeneratorError(
            f"Expected images of at least {2 * factor} pixels for {len(channels)} resolutions, but got {height} × "
            f"{width}. Give fewer entries in `channels`."
        )
    return (colours, height, width), (math.ceil(height / factor), math.ceil(width / factor))


class ConvGenerator(Autoencoder):
    """A generator that draws by a `ConvDecoder`; what else it holds is its family's own.

    Args:
        image_shape: `(C, H, W)`, of any size; sides from 28 to 128 are what it is made for.
        channels: feature maps at each resolution, the smallest first; each resolution is twice the one before.
        latent_dim: D.

    Raises:
        GeneratorError: if the sizes do not fit each other.
    """

    def __init__(
        self, *, image_shape: Sequence[int], channels: Sequence[int] = (96, 48, 24), latent_dim: int = 64
    ) -> None:
        super().__init__()
        self.image_shape, _ = checked_sizes(image_shape, channels, latent_dim)
        self.latent_dim = latent_dim
        self.config = {"image_shape": list(image_shape), "channels": list(channels), "latent_dim": latent_dim}
        self.decoder: nn.Module = ConvDecoder(self.image_shape, channels, latent_dim)

    def draw(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N C H W"]:
        """Draw as `forward` does, without clipping to [0, 1]: what the training differentiates."""
        drawn: Tensor = self.decoder(z)
        return 0.5 + 0.5 * drawn

    def forward(self, z: Float[Tensor, "N D"], condition: Condition | None = None) -> Float[Tensor, "N C H W"]:
        """Draw the images of the latents, in [0, 1]; a condition is refused."""
        self.check_latents(z)
        self.check_condition(condition, len(z))
        return self.draw(z).clamp(0, 1)


class CriticGenerator(Autoencoder):
    """A generator that keeps the critic it was trained against, and an encoder that was trained after both.

    Attributes:
        decoder: from latents to images.
        critic: from images to scores.
        encoder: from images to latents.
    """

    decoder: nn.Module
    critic: nn.Module
    encoder: nn.Module

    @abstractmethod
    def draw(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N C h w"]:
        """Draw images for the critic, without clipping to [0, 1]: what the training differentiates."""

    @abstractmethod
    def score(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, " N"]:
        """Return the critic's score of images as `draw` and `shown` give them, differentiable."""

    @abstractmethod
    def critic_features(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N F"]:
        """Return what the critic makes its score from."""

    def shown(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C h w"]:
        """Return images as the critic is to see them; by default as they are."""
        return x

    @torch.no_grad()
    def realism(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
        """Return the critic's score of each image."""
        self.check_images(x)
        return self.score(self.shown(x))


class ConvDecoder(nn.Module):
    """From latents to images: one layer, then two convolutions a resolution, each twice as large as the one before.

    Activations are scaled to unit size at each pixel, which keeps them from growing without normalising over a batch:
    an image depends on its own latent alone.

    Args:
        image_shape: `(C, H, W)`.
        channels: feature maps at each resolution, the smallest first.
        latent_dim: D.

    References:
        Karras et al., "Progressive Growing of GANs", ICLR 2018, section 4.2: pixel-wise normalisation.
    """

    def __init__(self, image_shape: tuple[int, int, int], channels: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self._shape, self._base = checked_sizes(image_shape, channels, latent_dim)
        self.flat = EqualizedLinear(latent_dim, channels[0] * self._base[0] * self._base[1], gain=ACTIVATION_GAIN)
        self.blocks = nn.ModuleList(
            nn.ModuleList(EqualizedConv(a, after, 3, gain=ACTIVATION_GAIN) for a in (before, after))
            for before, after in pairwise([channels[0], *channels])
        )
        self.to_image = EqualizedConv(channels[-1], self._shape[0], 1)

    def forward(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N C H W"]:
        """Return the images before any squashing into [0, 1], in float32."""
        x = normalized(activate(self.flat(z)).unflatten(1, (-1, *self._base)))
        for index, (first, second) in enumerate(self._pairs()):
            # Convolved first and enlarged after: a quarter of the work.
            x = activate(first(x))
            if index:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = normalized(activate(second(normalized(x))))
        _, height, width = self._shape
        top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
        drawn: Tensor = self.to_image(x)
        return drawn[:, :, top : top + height, left : left + width].float()

    def _pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        pairs = []
        for block in self.blocks:
            assert isinstance(block, nn.ModuleList)
            pairs.append((block[0], block[1]))
        return pairs


class ConvEncoder(nn.Module):
    """From images to rows of numbers, such as latents, or means and log-variances of latents.

    Args:
        image_shape: `(C, H, W)`.
        channels: as the decoder's, the smallest resolution first.
        outputs: length of a row.
    """

    def __init__(self, image_shape: tuple[int, int, int], channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.trunk = ResidualTrunk(image_shape, channels)
        self.head = EqualizedLinear(self.trunk.width, outputs)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N O"]:
        """Return one row an image, in float32."""
        row: Tensor = self.head(self.trunk(x))
        return row.float()


class Critic(nn.Module):
    """From images to one score each, the higher the more real; no image's depends on the others in its batch.

    Args:
        image_shape: `(C, H, W)`.
        channels: as the decoder's, the smallest resolution first.
    """

    def __init__(self, image_shape: tuple[int, int, int], channels: Sequence[int]) -> None:
        super().__init__()
        self.trunk = ResidualTrunk(image_shape, channels)
        self.head = EqualizedLinear(self.trunk.width, 1)

    def features(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F"]:
        """Return the features that the score is made from."""
        features: Tensor = self.trunk(x)
        return features

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
        """Return one score an image, in float32."""
        return self._score(self.features(x))

    def look(self, x: Float[Tensor, "N C H W"]) -> tuple[Float[Tensor, " N"], list[Tensor]]:
        """Return the scores, and what each block of the trunk makes of the images."""
        maps = self.trunk.maps(x)
        return self._score(self.trunk.summarize(maps[-1])), maps

    def _score(self, features: Tensor) -> Tensor:
        score: Tensor = self.head(features)
        return score[:, 0].float()
