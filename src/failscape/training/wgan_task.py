"""Training of a generator against a Wasserstein critic with gradient penalty."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.generators import WGAN, Generator, Progressive
from failscape.generators.convolutional import CriticGenerator
from failscape.training.adversarial import clip_images
from failscape.training.gan_evaluation import GeneratorEvaluation
from failscape.training.generator_task import GeneratorTask, adam, check_oracle, update
from failscape.training.precision import autocast
from failscape.training.schedule import constant_cosine, set_learning_rate
from failscape.training.settings import WGANSettings
from failscape.training.target_guidance import TargetGuidance

# Gulrajani et al. 2017, algorithm 1.
_BETA2 = 0.9
_ENCODER_RATE = 0.4


@final
class WGANTask(GeneratorTask):
    r"""Fits a `WGAN` or a `Progressive` generator, its critic, and toward the end its encoder.

    The critic minimises $E[D(\hat x)] - E[D(x)] + \lambda E[(\|\nabla D(\bar x)\| - 1)^2] + \epsilon E[D(x)^2]$ with
    $\bar x$ on the lines between real and generated images; $\epsilon$ is `drift`, which keeps scores from drifting,
    and 0 in the paper of the WGAN-GP. After every `critic_steps` of its steps the generator makes one to minimise
    $-E[D(\hat x)]$, and the guidance if there is any.

    Args:
        settings: of the training.
        images: to learn from; labels are not used.
        guidance: a classifier's say on what is generated.
        oracle: in whose features distance is measured at evaluations.
        start: go on from a copy of this generator and its critic in place of random weights.

    Raises:
        GeneratorError: if the images have a size that `channels` cannot draw.
        ClassifierError: if the oracle takes images of another shape, or knows other classes.

    References:
        Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017.
        Karras et al., "Progressive Growing of GANs", ICLR 2018.
    """

    def __init__(
        self,
        settings: WGANSettings,
        *,
        images: ImageSet,
        guidance: TargetGuidance | None = None,
        oracle: Classifier | None = None,
        start: CriticGenerator | None = None,
    ) -> None:
        self._settings, self.half = settings, settings.half
        self._images, self._guidance, self._oracle = images, guidance, oracle
        if oracle is not None:
            check_oracle(oracle, images, images.class_names)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            generator = _generator(settings, images.image_shape) if start is None else deepcopy(start)
        self._generator: CriticGenerator = generator.requires_grad_(True).train()
        self._averaged_generator = deepcopy(generator).requires_grad_(False).eval()
        self.networks = nn.ModuleDict({"generator": generator})
        self.averaged = nn.ModuleDict({"generator": self._averaged_generator})
        self._rates = {"decoder": 1.0, "critic": 1.0, "encoder": _ENCODER_RATE}
        self._parts = {name: list(getattr(generator, name).parameters()) for name in self._rates}
        self.optimizers = {name: adam(part, beta2=_BETA2) for name, part in self._parts.items()}
        self._steps = 0
        self._evaluation: GeneratorEvaluation | None = None

    def step(
        self, x: Float[Tensor, "N C H W"], y: Int[Tensor, " N"], *, progress: float, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Update the critic once, and in their turns the generator and the encoder."""
        settings, generator = self._settings, self._generator
        factor = constant_cosine(progress, decay_from=settings.decay_from)
        for name, optimizer in self.optimizers.items():
            set_learning_rate(optimizer, settings.learning_rate * factor * self._rates[name])
        self._grow(progress)
        with self._autocast(), torch.no_grad():
            fake = clip_images(generator.draw(generator.sample_latents(len(x), rng=rng)))
            real = generator.shown(x)
        losses = self._step_critic(real, fake, rng)
        self._steps += 1
        if self._steps % settings.critic_steps == 0:
            losses |= self._step_generator(len(x), progress, rng)
            if progress >= settings.encoder_from:
                losses |= self._step_encoder(x, rng)
        return {name: loss.detach() for name, loss in losses.items()}

    def _step_critic(self, real: Tensor, fake: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        with self._autocast():
            on_real, on_fake = self._generator.score(torch.cat([real, fake])).chunk(2)
            penalty = wasserstein_penalty(self._generator.score, real, fake, rng=rng)
        distance = on_real.mean() - on_fake.mean()
        loss = self._settings.penalty * penalty - distance
        if self._settings.drift:
            loss = loss + self._settings.drift * on_real.square().mean()
        self._update("critic", loss.backward)
        return {"critic": loss, "distance": distance, "penalty": penalty}

    def _step_generator(self, n: int, progress: float, rng: torch.Generator) -> dict[str, Tensor]:
        generator, losses = self._generator, {}
        with self._autocast():
            fake = clip_images(generator.draw(generator.sample_latents(n, rng=rng)))
        # By way of the images, so that no gradient is computed for the critic's own weights.
        shown = fake.detach().requires_grad_()
        with self._autocast():
            loss = losses["generator"] = -generator.score(shown).mean()
        if self._guidance is not None and (weight := self._guidance.weight(progress)) > 0:
            losses["guidance"] = self._guidance(F.interpolate(shown, size=generator.image_shape[1:]), rng=rng)
            loss = loss + weight * losses["guidance"]
        (gradient,) = torch.autograd.grad(loss, shown)
        self._update("decoder", partial(fake.backward, gradient))
        return losses

    def _step_encoder(self, x: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Regress the latents of generated images; draw real ones again, as the critic's features see them."""
        averaged = self._averaged_generator
        real = averaged.shown(x)
        with self._autocast():
            with torch.no_grad():
                z = averaged.sample_latents(len(x), rng=rng)
                fake = averaged(z)
                seen = averaged.critic_features(real)
            found, encoded = self._generator.encode(torch.cat([fake, x])).float().chunk(2)
            again = clip_images(averaged.draw(encoded))
            features = (averaged.critic_features(again) - seen).float().square().mean()
        latent = (found - z).square().mean()
        pixels = (again - real).square().mean()
        loss = latent + features / seen.float().square().mean() + 20 * pixels
        self._update("encoder", loss.backward)
        return {"encoder_latent": latent, "encoder_features": features, "encoder_pixels": pixels}

    def _update(self, part: str, backward: Callable[[], Any]) -> None:
        update(self.optimizers[part], backward, self._parts[part])

    def _grow(self, progress: float) -> None:
        for network in (self._generator, self._averaged_generator):
            if isinstance(network, Progressive):
                network.stage = growth(progress, levels=network.levels, until=self._settings.grow_until)

    def _autocast(self) -> torch.autocast:
        return autocast("cpu", bf16=self._settings.bf16)

    @property
    def judged(self) -> Generator:
        """The averaged generator."""
        return self._averaged_generator

    @torch.no_grad()
    def evaluate(self, images: ImageSet) -> dict[str, float]:
        """Return Fréchet distance, floor, recall and precision."""
        if self._evaluation is None:
            self._evaluation = GeneratorEvaluation(
                images, self._images, classifier=None, oracle=self._oracle, seed=self._settings.seed
            )
        return self._evaluation(self._averaged_generator)

    def state(self) -> dict[str, Any]:
        """Return the networks' state and whose turn it is."""
        return super().state() | {"steps": self._steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        super().restore(state)
        self._steps = int(state["steps"])


def wasserstein_penalty(
    critic: Any, real: Float[Tensor, "N C H W"], fake: Float[Tensor, "N C H W"], *, rng: torch.Generator
) -> Float[Tensor, ""]:
    r"""Return $E[(\|\nabla D(\bar x)\|_2 - 1)^2]$ at $\bar x = u x + (1 - u) \hat x$ with $u$ drawn evenly from [0, 1].

    References:
        Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, eq. 3.
    """
    u = torch.rand(len(real), 1, 1, 1, generator=rng)
    between = torch.lerp(fake, real, u).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm: Tensor = gradient.flatten(1).norm(dim=1)
    return (norm - 1).square().mean()


def growth(progress: float, *, levels: int, until: float) -> float:
    """Return the stage of a progressive generator: each resolution is trained, the next one faded in, by turns.

    Args:
        progress: part of the training.
        levels: resolutions in all.
        until: part of the training at which it is whole.

    Example:
        >>> [growth(t, levels=3, until=0.8) for t in (0.0, 0.2, 0.3, 0.5, 0.8, 1.0)]
        [0.0, 0.0, 0.5, 1.0, 2.0, 2.0]
    """
    if until <= 0:
        return float(levels - 1)
    # Two spans a resolution: it is trained as it is, then the next one comes in.
    turns = min(progress / until, 1.0) * 2 * (levels - 1)
    done, within = divmod(turns, 2)
    return min(done + max(within - 1, 0.0), levels - 1.0)


def _generator(settings: WGANSettings, image_shape: tuple[int, int, int]) -> CriticGenerator:
    kind = Progressive if settings.family == "progressive" else WGAN
    return kind(image_shape=image_shape, channels=settings.channels, latent_dim=settings.latent_dim)
