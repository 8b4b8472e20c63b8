"""What the adversarial trainings of convolutional autoencoders share: who learns from which gradient, and numbers."""

from abc import abstractmethod
from copy import deepcopy
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.generators.convolutional_vae import ConvolutionalVAE
from failscape.generators.vae import divergence, draw_latents
from failscape.training.adversarial import clip_images
from failscape.training.gan_evaluation import GeneratorEvaluation
from failscape.training.generator_task import GeneratorTask, adam, check_oracle
from failscape.training.precision import autocast
from failscape.training.schedule import constant_cosine, set_learning_rate
from failscape.training.settings import ConvolutionalSettings
from failscape.training.target_guidance import TargetGuidance

_EVALUATION_BATCH = 500
# What is reconstructed stays the same from step to step, other than an adversary, so momentum pays: after 400 steps on
# avatars the error was 0.026 with it and 0.033 without, at the same rate.
_MOMENTUM = 0.9

Network = TypeVar("Network", bound=ConvolutionalVAE)


@dataclass(frozen=True)
class Drawn:
    """Reconstructions of a batch and half as many samples, with the graph that they came from.

    Attributes:
        z: latents of the reconstructions, drawn from the posteriors of the images.
        divergence: of each posterior from the prior, in nats.
        images: reconstructions, and samples, in [0, 1].
        reconstructions: the first, cut off from the graph: losses are computed on them.
        samples: the second, likewise.
    """

    z: Float[Tensor, "N D"]
    divergence: Float[Tensor, " N"]
    images: tuple[Tensor, Tensor]
    reconstructions: Float[Tensor, "N C H W"]
    samples: Float[Tensor, "M C H W"]

    @property
    def judged(self) -> Float[Tensor, "J C H W"]:
        """As many of the reconstructions as there are samples, the first ones, then the samples.

        Half a batch of each costs half of two batches, and is told from real images as well.
        """
        return torch.cat([self.reconstructions[: len(self.samples)], self.samples])


class ConvolutionalVAETask(GeneratorTask, Generic[Network]):
    """Fits an encoder and a decoder, each by terms of its own, in one pass of both.

    Args:
        settings: of the training.
        images: to learn from; labels are not used.
        guidance: a classifier's say on the samples.
        oracle: in whose features distance is measured at evaluations.
        start: go on from a copy of this generator in place of random weights.

    Raises:
        GeneratorError: if the images have a size that `channels` cannot draw.
        ClassifierError: if the oracle takes images of another shape, or knows other classes.
    """

    _network: Network

    def __init__(
        self,
        settings: ConvolutionalSettings,
        *,
        images: ImageSet,
        guidance: TargetGuidance | None = None,
        oracle: Classifier | None = None,
        start: Network | None = None,
    ) -> None:
        if oracle is not None:
            check_oracle(oracle, images, images.class_names)
        self._images, self._guidance, self._oracle = images, guidance, oracle
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = self._build(images.image_shape) if start is None else deepcopy(start)
        self._network = network.requires_grad_(True).train()
        self._averaged_network = deepcopy(network).requires_grad_(False).eval()
        self.networks = nn.ModuleDict({"generator": self._network})
        self.averaged = nn.ModuleDict({"generator": self._averaged_network})
        self.optimizers = {
            "encoder": adam(network.encoder.parameters(), beta1=_MOMENTUM),
            "decoder": adam(network.decoder.parameters(), beta1=_MOMENTUM),
        }
        self._bf16, self.half, self._seed = settings.bf16, settings.half, settings.seed
        self._learning_rate, self._decay_from = settings.learning_rate, settings.decay_from
        self._evaluation: GeneratorEvaluation | None = None

    @abstractmethod
    def _build(self, image_shape: tuple[int, int, int]) -> Network:
        """Return the network with random weights."""

    def _set_rates(self, progress: float) -> None:
        factor = constant_cosine(progress, decay_from=self._decay_from)
        for optimizer in self.optimizers.values():
            set_learning_rate(optimizer, self._learning_rate * factor)

    def _draw(self, x: Tensor, rng: torch.Generator) -> Drawn:
        """Draw images of the latents of `x`, and half as many of latents from the prior."""
        network = self._network
        with self._autocast():
            mean, log_variance = network.posterior(x)
            z = draw_latents(mean, log_variance, rng=rng)
            latents = (z, network.sample_latents((len(x) + 1) // 2, rng=rng))
            images = tuple(clip_images(network.draw(each)) for each in latents)
        again, samples = (each.detach().requires_grad_() for each in images)
        return Drawn(
            z=z,
            divergence=divergence(mean, log_variance),
            images=(images[0], images[1]),
            reconstructions=again,
            samples=samples,
        )

    def _guide(
        self, drawn: Drawn, *, progress: float, rng: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor | float]:
        """Return the classifier's say on the samples, if it has one, and the same with its weight, for the loss."""
        if self._guidance is None or (weight := self._guidance.weight(progress)) == 0:
            return {}, 0.0
        say = self._guidance(drawn.samples, rng=rng)
        return {"guidance": say}, weight * say

    def _spread(self, drawn: Drawn, reconstruction: Tensor, game: Tensor) -> Tensor:
        """Leave gradients in the decoder, by both losses; return that of `reconstruction` in the latents of images.

        The encoder is to make latents that can be drawn from, and none that win the game: Larsen et al. and Huang et
        al. both hand it the first gradient alone.

        Args:
            drawn: what was drawn.
            reconstruction: a loss on `drawn.reconstructions`.
            game: a loss on these and `drawn.samples`.
        """
        again, samples = drawn.images
        (faithful,) = torch.autograd.grad(reconstruction, drawn.reconstructions, retain_graph=True)
        winning, of_samples = torch.autograd.grad(game, (drawn.reconstructions, drawn.samples))
        (latent,) = torch.autograd.grad(again, drawn.z, faithful, retain_graph=True)
        self.optimizers["decoder"].zero_grad(set_to_none=True)
        decoder = list(self._network.decoder.parameters())
        torch.autograd.backward([again, samples], [faithful + winning, of_samples], inputs=decoder)
        return latent

    def _autocast(self) -> torch.autocast:
        return autocast("cpu", bf16=self._bf16)

    @property
    def judged(self) -> Network:
        """The averaged generator."""
        return self._averaged_network

    @torch.no_grad()
    def evaluate(self, images: ImageSet) -> dict[str, float]:
        """Return how far reconstructions are from the images, and with an oracle how far samples are.

        Returns:
            `reconstruction`: root of the mean squared difference of a pixel, drawn from the posterior's mean;
            `divergence`: of the posteriors from the prior, in nats; and Fréchet distance, floor, recall and precision.
        """
        error = nats = 0.0
        for batch in images.batches(_EVALUATION_BATCH):
            mean, log_variance = self.judged.posterior(batch.x)
            error += float((self.judged(mean) - batch.x).square().mean(dim=(1, 2, 3)).double().sum())
            nats += float(divergence(mean, log_variance).double().sum())
        numbers = {"reconstruction": (error / len(images)) ** 0.5, "divergence": nats / len(images)}
        if self._oracle is None:
            return numbers
        if self._evaluation is None:
            self._evaluation = GeneratorEvaluation(
                images, self._images, classifier=None, oracle=self._oracle, seed=self._seed
            )
        return numbers | self._evaluation(self.judged)
