"""What the convolutional autoencoders with a distribution over latents share."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from failscape.generators.convolutional import ConvEncoder, ConvGenerator
from failscape.generators.vae import split_posterior


class ConvolutionalVAE(ConvGenerator):
    r"""Prior $N(0, I)$, posterior $q(z|x) = N(\mu(x), \sigma^2(x))$, and a convolutional decoder.

    What the pixels' distribution is, and so what a good reconstruction is, is each family's own.

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
        super().__init__(image_shape=image_shape, channels=channels, latent_dim=latent_dim)
        self.encoder = ConvEncoder(self.image_shape, channels, 2 * latent_dim)

    def posterior(self, x: Float[Tensor, "N C H W"]) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]]:
        """Return mean and log-variance of the distribution over the latents of each image.

        Raises:
            GeneratorError: if the images have another shape than `image_shape`.
        """
        self.check_images(x)
        return split_posterior(self.encoder(x))

    def encode(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D"]:
        """Return the mean of the distribution over the latents of each image."""
        return self.posterior(x)[0]
