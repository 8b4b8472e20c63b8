"""The variational autoencoder that is judged in the feature space of a discriminator."""

from collections.abc import Sequence
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.generators.convolutional import Critic
from failscape.generators.convolutional_vae import ConvolutionalVAE


@final
class VAEGAN(ConvolutionalVAE):
    r"""A variational autoencoder whose reconstructions resemble the images in what a discriminator sees.

    Pixel by pixel the best guess at what an encoder has lost is a blur. In the features of a discriminator that learns
    to tell real images from reconstructed and sampled ones, a blur is as wrong as a misplaced edge. The discriminator
    is kept as `critic`, since it says which images look least like real ones. The training is
    `failscape.training.VAEGANTask`.

    Args:
        image_shape: `(C, H, W)`, of any size; sides from 28 to 128 are what it is made for.
        channels: feature maps at each resolution, the smallest first; each resolution is twice the one before.
        latent_dim: D.

    Raises:
        GeneratorError: if the sizes do not fit each other.

    Example:
        >>> generator = VAEGAN(image_shape=(3, 64, 64), channels=(96, 64, 32, 16), latent_dim=128)
        >>> generator.encode(generator.sample(2, rng=torch.Generator().manual_seed(0))).shape
        torch.Size([2, 128])

    References:
        Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", ICML 2016.
    """

    family: ClassVar[str] = "vae-gan"

    def __init__(
        self, *, image_shape: Sequence[int], channels: Sequence[int] = (96, 48, 24), latent_dim: int = 64
    ) -> None:
        super().__init__(image_shape=image_shape, channels=channels, latent_dim=latent_dim)
        self.critic = Critic(self.image_shape, channels)

    @torch.no_grad()
    def realism(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
        """Return the discriminator's score of each image: the logit of its being real."""
        self.check_images(x)
        score: Tensor = self.critic(x)
        return score
