"""Training of a variational autoencoder whose encoder tells what its decoder draws from real images."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.generators.intro_vae import IntroVAE
from failscape.generators.vae import divergence
from failscape.training.convolutional_vae_task import ConvolutionalVAETask
from failscape.training.settings import IntroVAESettings
from failscape.training.target_guidance import TargetGuidance


@final
class IntroVAETask(ConvolutionalVAETask[IntroVAE]):
    r"""Fits an `IntroVAE`: an encoder and a decoder that play against each other.

    With $R(x) = KL(q(z|x) \| p(z))$ in nats, $\tilde x$ for reconstructions, $\hat x$ for samples, and the squared
    error $A = \frac12 \|\tilde x - x\|^2$ summed over pixels,

    - the encoder minimises $R(x) + \alpha ([m - R(\tilde x)]^+ + [m - R(\hat x)]^+) + \beta A$;
    - the decoder $\alpha (R(\tilde x) + R(\hat x)) + \beta A$, and the guidance if there is any.

    Both make their step from the same pass, where the paper updates the encoder before the decoder.

    Args:
        settings: of the training.
        images: to learn from; labels are not used.
        guidance: a classifier's say on the samples.
        oracle: in whose features distance is measured at evaluations.
        start: go on from a copy of this generator in place of random weights.

    Raises:
        GeneratorError: if the images have a size that `channels` cannot draw.
        ClassifierError: if the oracle takes images of another shape, or knows other classes.

    References:
        Huang et al., "IntroVAE: Introspective Variational Autoencoders for Photographic Image Synthesis", NeurIPS 2018,
        algorithm 1.
    """

    def __init__(
        self,
        settings: IntroVAESettings,
        *,
        images: ImageSet,
        guidance: TargetGuidance | None = None,
        oracle: Classifier | None = None,
        start: IntroVAE | None = None,
    ) -> None:
        self._settings = settings
        super().__init__(settings, images=images, guidance=guidance, oracle=oracle, start=start)

    def _build(self, image_shape: tuple[int, int, int]) -> IntroVAE:
        settings = self._settings
        return IntroVAE(image_shape=image_shape, channels=settings.channels, latent_dim=settings.latent_dim)

    def step(
        self, x: Float[Tensor, "N C H W"], y: Int[Tensor, " N"], *, progress: float, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Update encoder and decoder once; all losses in nats an image, or in half squared pixel values."""
        settings = self._settings
        self._set_rates(progress)
        drawn = self._draw(x, rng)
        with self._autocast():
            mean, log_variance = self._network.posterior(drawn.judged)
        told = divergence(mean, log_variance)

        # What each network is to lower.
        again, samples = told.chunk(2)
        losses = {
            "divergence": drawn.divergence.mean(),
            "squares": 0.5 * (drawn.reconstructions - x).square().flatten(1).sum(dim=1).mean(),
            "divergence_again": again.mean(),
            "divergence_samples": samples.mean(),
            "hinge": introspection(again, settings.margin) + introspection(samples, settings.margin),
        }
        said, guidance = self._guide(drawn, progress=progress, rng=rng)
        losses |= said
        faithful = settings.reconstruction * losses["squares"]
        fooling = losses["divergence_again"] + losses["divergence_samples"]
        game = settings.adversarial * fooling + guidance

        # All gradients before any step, since they share their graphs.
        encoder = list(self._network.encoder.parameters())
        self.optimizers["encoder"].zero_grad(set_to_none=True)
        (settings.adversarial * losses["hinge"]).backward(inputs=encoder, retain_graph=True)
        latent = self._spread(drawn, faithful, game)
        torch.autograd.backward([drawn.z, losses["divergence"]], [latent, torch.ones(())], inputs=encoder)
        for optimizer in self.optimizers.values():
            optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}


def introspection(told: Float[Tensor, " N"], margin: float) -> Float[Tensor, ""]:
    r"""Return the mean of $[m - R]^+$: what the encoder lacks in pushing generated images from the prior.

    Args:
        told: R, the divergence of each image's posterior from the prior, in nats.
        margin: m.

    Example:
        >>> introspection(torch.tensor([2.0, 30.0]), margin=10.0)
        tensor(4.)
    """
    return F.relu(margin - told).mean()
