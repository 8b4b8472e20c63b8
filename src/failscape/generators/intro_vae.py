"""The variational autoencoder whose encoder is its own discriminator."""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.generators.convolutional_vae import ConvolutionalVAE
from failscape.generators.vae import divergence


@final
class IntroVAE(ConvolutionalVAE):
    r"""A variational autoencoder that compares what it draws with real images by itself.

    The encoder gives real images a posterior near the prior and generated ones a posterior far from it; the decoder
    draws images that the encoder cannot tell so. There is no other discriminator. The training is
    `failscape.training.IntroVAETask`.

    Args:
        image_shape: `(C, H, W)`, of any size; sides from 28 to 128 are what it is made for.
        channels: feature maps at each resolution, the smallest first; each resolution is twice the one before.
        latent_dim: D.

    Raises:
        GeneratorError: if the sizes do not fit each other.

    Example:
        >>> generator = IntroVAE(image_shape=(1, 28, 28), latent_dim=16)
        >>> x = generator.sample(3, rng=torch.Generator().manual_seed(0))
        >>> torch.equal(generator.realism(x), -divergence(*generator.posterior(x)))
        True

    References:
        Huang et al., "IntroVAE: Introspective Variational Autoencoders for Photographic Image Synthesis", NeurIPS 2018.
    """

    family: ClassVar[str] = "intro-vae"

    @torch.no_grad()
    def realism(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
        r"""Return $-KL(q(z|x) \| p(z))$ of each image in nats, which the encoder has learnt to raise for real ones."""
        return -divergence(*self.posterior(x))
