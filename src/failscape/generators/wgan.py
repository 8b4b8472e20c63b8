"""The convolutional generator that is trained against a Wasserstein critic, with an encoder."""

from collections.abc import Sequence
from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from failscape.generators.convolutional import ConvEncoder, ConvGenerator, Critic, CriticGenerator


@final
class WGAN(ConvGenerator, CriticGenerator):
    r"""A convolutional generator, its critic, and an encoder that was trained after them.

    The critic $D$ approximates the Wasserstein distance $E[D(x)] - E[D(\hat x)]$ between real and generated images,
    held to gradients of norm 1 by a penalty; it is kept, since it says which images look least like real ones. The
    training is `failscape.training.WGANTask`.

    Args:
        image_shape: `(C, H, W)`, of any size; sides from 28 to 128 are what it is made for.
        channels: feature maps at each resolution, the smallest first; each resolution is twice the one before.
        latent_dim: D.

    Raises:
        GeneratorError: if the sizes do not fit each other.

    References:
        Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017.
    """

    family: ClassVar[str] = "wgan"

    def __init__(
        self, *, image_shape: Sequence[int], channels: Sequence[int] = (96, 48, 24), latent_dim: int = 64
    ) -> None:
        super().__init__(image_shape=image_shape, channels=channels, latent_dim=latent_dim)
        self.critic = Critic(self.image_shape, channels)
        self.encoder = ConvEncoder(self.image_shape, channels, latent_dim)

    def score(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
        """Return the critic's score of each image."""
        score: Tensor = self.critic(x)
        return score

    def critic_features(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F"]:
        """Return what the critic makes its score from."""
        assert isinstance(self.critic, Critic)
        return self.critic.features(x)

    def encode(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D"]:
        """Return the latent of each image."""
        self.check_images(x)
        z: Tensor = self.encoder(x)
        return z
