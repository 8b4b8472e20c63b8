"""Training of a generator by an adversarial game, conditioned on what a frozen classifier says."""

import logging
from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.errors import CheckpointError
from failscape.generators import MLP, Condition, Generator, StyleGAN2
from failscape.generators.discriminator import ProjectionDiscriminator
from failscape.generators.mlp import MLPDiscriminator
from failscape.training.adversarial import (
    AdaptiveAugmentation,
    clip_images,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
)
from failscape.training.conditions import ConditionPool, StratifiedSampler
from failscape.training.distributed import find_device, workers
from failscape.training.encoder_losses import encoder_losses
from failscape.training.gan_evaluation import GeneratorEvaluation, reconstruction_error
from failscape.training.generator_task import GeneratorTask, adam, check_oracle, update
from failscape.training.guidance import guide
from failscape.training.perception import Perception
from failscape.training.precision import autocast
from failscape.training.sampler import Order
from failscape.training.schedule import constant_cosine, ramp, set_learning_rate
from failscape.training.settings import GANSettings
from failscape.training.target_guidance import TargetGuidance

_log = logging.getLogger(__name__)

_BETA2 = 0.99
# The shares of images that the discriminator tells rightly are averaged over about so many steps. Beyond this they
# leave the generator no chance; from the draw that they start at, that takes four times as many steps at least, so
# the first thousands of images, which any discriminator tells, are not yet a victory.
_MEMORY = 500
_VICTORY = 0.99


@final
class GANTask(GeneratorTask):
    """Fits a generator, its discriminator and, toward the end, its encoder.

    The condition of a real image is what the frozen classifier says of it; a batch of generated images is asked for
    exactly the conditions of the real batch beside it, so that the discriminator cannot tell them by what was asked.

    Args:
        settings: of the training.
        images: to learn from; the classifier is asked about each of them once.
        classifier: whose verdicts are the condition, or None for a generator without condition.
        guidance: what is added to the loss of one without condition, if anything.
        oracle: judges at evaluations.

    Attributes:
        pool: the conditions of the images.

    Raises:
        DataError: if there are fewer images than a batch, or a class that no image is taken for.
        ClassifierError: if classifier or oracle take images of another shape, or know other classes.
        UnsupportedClassifier: if guidance or perception is asked for and the classifier has no gradients.
        GeneratorError: if the images have a size that `channels` cannot draw.
        TrainingError: if there is no such device.
    """

    def __init__(
        self,
        settings: GANSettings,
        *,
        images: ImageSet,
        classifier: Classifier | None = None,
        guidance: TargetGuidance | None = None,
        oracle: Classifier | None = None,
    ) -> None:
        assert classifier is None or guidance is None, "a classifier either makes conditions or steers"
        self._settings, self.half, self._guidance = settings, settings.half, guidance
        self._device = find_device(settings.device)
        # It is asked at each step, several times.
        classifier = None if classifier is None else classifier.to(self._device)
        self._classifier = classifier
        self._oracle = oracle
        if classifier is not None and max(settings.guidance, settings.late_guidance) > 0:
            classifier.require_gradients("guidance", "Train with --guidance 0: the discriminator alone then binds.")
        self._perception: Perception | None = None
        if classifier is not None and settings.perceive:
            classifier.require_gradients("perception", "Train with --perceive=false: it then judges images alone.")
            self._perception = Perception(classifier, images)
        if oracle is not None:
            check_oracle(oracle, images, (images if classifier is None else classifier).class_names)
        self.pool = ConditionPool(
            images, classifier, batch=settings.batch, score=settings.score, embedding=settings.embedding
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            generator, discriminator = _networks(settings, images.image_shape, self.pool, self._perception)
        self._generator = generator.to(self._device)
        self._discriminator = discriminator.to(self._device)
        self._averaged_generator = deepcopy(self._generator).requires_grad_(False).eval()
        self.networks = nn.ModuleDict({"generator": generator, "discriminator": discriminator})
        self.averaged = nn.ModuleDict({"generator": self._averaged_generator})
        self._drawn = [p for name, p in generator.named_parameters() if not name.startswith("encoder.")]
        self._encoding = [p for name, p in generator.named_parameters() if name.startswith("encoder.")]
        # The step of a penalty comes before every `penalty_every` others, so rates and memories are set to match.
        lazy = settings.penalty_every / (settings.penalty_every + 1)
        self._rates = {"generator": 1.0, "discriminator": lazy, "encoder": 0.4}
        self.optimizers = {
            "generator": adam(self._drawn, beta2=_BETA2),
            "discriminator": adam(discriminator.parameters(), beta2=_BETA2**lazy),
        }
        if self._encoding:
            self.optimizers["encoder"] = adam(self._encoding, beta2=_BETA2)
        self._augmentation = AdaptiveAugmentation()
        # Steps made, and the moving shares of real and generated images that the discriminator tells rightly.
        self._steps = 0
        self._told = {"real": 0.5, "fake": 0.5}
        self._warned = False
        self._evaluation: GeneratorEvaluation | None = None

    def sampler(self, images: ImageSet, seed: int) -> Order:
        """Return the order of the images: a part of each batch is drawn evenly over class and score."""
        if self._classifier is None or self._settings.even_share == 0:
            return super().sampler(images, seed)
        return StratifiedSampler(self.pool, share=self._settings.even_share, seed=seed)

    def step(
        self, x: Float[Tensor, "N C H W"], y: Int[Tensor, " N"], *, progress: float, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Update discriminator and generator once each, and the encoder when its time has come."""
        settings, group = self._settings, workers()
        for name, optimizer in self.optimizers.items():
            # The encoder begins when the others' rates have nearly fallen to nothing, so it has a time of its own.
            time = _since(settings.encoder_from, progress) if name == "encoder" else progress
            factor = constant_cosine(time, decay_from=settings.decay_from) * self._rates[name]
            set_learning_rate(optimizer, settings.learning_rate * factor)
        x, n = x.to(self._device), len(x)
        condition = self.pool.conditions_of(x, y)

        # One pass of the generator serves both networks.
        z = group.mine(lambda m: self._generator.sample_latents(m, rng=rng), n).to(self._device)
        with self._autocast():
            fake = clip_images(self._draw(z, condition, rng))

        losses, real = self._step_discriminator(x, fake.detach(), condition, rng)
        if progress >= settings.generator_from:
            losses["generator"], gradient = self._mislead(fake.detach(), real, condition, rng)
            weight = _guidance_weight(settings, progress)
            if self._classifier is not None and condition is not None and weight > 0:
                losses["guidance"], guidance = guide(
                    self._classifier, fake.detach(), x, condition, score=settings.score, rng=rng
                )
                gradient = gradient + weight * guidance
            if self._guidance is not None and (weight := self._guidance.weight(progress)) > 0:
                shown = fake.detach().requires_grad_()
                losses["guidance"] = self._guidance(shown, rng=rng)
                gradient = gradient + weight * torch.autograd.grad(losses["guidance"], shown)[0]
            update(self.optimizers["generator"], partial(fake.backward, gradient), self._drawn)
        if self._encoding and progress >= settings.encoder_from:
            losses |= self._step_encoder(x, fake.detach(), z, condition)
        self._steps += 1
        self._watch(len(x))
        return {name: group.mean(loss.detach()) for name, loss in losses.items()}

    def _step_discriminator(
        self, x: Tensor, fake: Tensor, condition: Condition | None, rng: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Update the discriminator; return its losses and the scores of the real images."""
        optimizer, parameters = self.optimizers["discriminator"], list(self._discriminator.parameters())
        penalties = self._step_penalties(x, fake, condition, rng)
        # Real and generated in one pass; the groups of the minibatch deviation never mix them.
        parts = [self._augmented(x, rng), self._augmented(fake, rng)]
        with torch.no_grad():
            seen = [self._seen(part, rng) for part in parts]
        scores = self._judged(
            self._discriminator.views(torch.cat(parts)),
            None if condition is None else condition.twice(),
            tuple(torch.cat(both) for both in zip(*seen, strict=True)),
        )
        real, generated = scores.chunk(2)
        relativistic = self._settings.loss == "relativistic"
        loss = discriminator_loss(real, generated, relativistic=relativistic)
        update(optimizer, loss.backward, parameters)
        told = _told_rightly(real, generated, relativistic=relativistic)
        for name, share in told.items():
            self._told[name] += (float(workers().mean(share)) - self._told[name]) / _MEMORY
        losses = {"discriminator": loss, "told_real": told["real"], "told_fake": told["fake"]} | penalties
        return losses, real.detach()

    def _mislead(
        self, fake: Tensor, real: Tensor, condition: Condition | None, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the generator's part of the game, and its gradient in the fakes."""
        fake.requires_grad_()
        shown = self._augmented(fake, rng)
        seen = self._seen(shown, rng)
        scores = self._judged(self._discriminator.views(shown), condition, seen)
        loss = generator_loss(scores, real, relativistic=self._settings.loss == "relativistic")
        (gradient,) = torch.autograd.grad(loss, fake)
        return loss, gradient

    def _step_penalties(
        self, x: Tensor, fake: Tensor, condition: Condition | None, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Update the discriminator by the gradient penalties, if it is their turn; return them."""
        settings = self._settings
        if self._steps % settings.penalty_every or not (settings.r1 or settings.r2):
            return {}
        penalties = {}
        total = torch.zeros((), device=self._device)
        for name, weight, images in (("r1", settings.r1, x), ("r2", settings.r2, fake)):
            if weight:
                # Of what the discriminator is given, and not through the classifier or the contrast: their gradients
                # are so large in faint images that it would have to be blind to these.
                shown = self._augmented(images, rng)
                with torch.no_grad():
                    seen = self._seen(shown, rng)
                judge = partial(self._judged, condition=condition, seen=seen)
                penalties[name] = gradient_penalty(judge, self._discriminator.views(shown))
                total = total + weight * settings.penalty_every * penalties[name]
        update(self.optimizers["discriminator"], total.backward, self._discriminator.parameters())
        return penalties

    def _step_encoder(self, x: Tensor, fake: Tensor, z: Tensor, condition: Condition | None) -> dict[str, Tensor]:
        """Teach the encoder; real images drawn again should be alike to the discriminator, too."""
        generator, discriminator = self._averaged_generator, self._discriminator
        assert isinstance(self._generator, StyleGAN2)
        assert isinstance(generator, StyleGAN2)
        assert isinstance(discriminator, ProjectionDiscriminator)
        losses, loss, (x, again) = encoder_losses(
            self._generator, generator, x, fake, z, condition, autocast=self._autocast()
        )
        with self._autocast():
            with torch.no_grad():
                seen = discriminator.trunk(x)
            features = (discriminator.trunk(again).float() - seen.float()).square().mean()
        update(self.optimizers["encoder"], (loss + features).backward, self._encoding)
        return losses | {"encoder_features": features}

    def _draw(self, z: Tensor, condition: Condition | None, rng: torch.Generator) -> Tensor:
        generator = self._generator
        if not isinstance(generator, StyleGAN2):
            return generator.draw(z, condition)
        w = generator.mapping(z, condition)
        generator.follow_mean(workers().mean(w.detach().float().mean(dim=0, keepdim=True)))
        noise = workers().mine(lambda m: generator.draw_noise(m, rng=rng), len(z)).to(self._device)
        return generator.draw(generator.styles(w), noise).float()

    def _judged(self, views: Tensor, condition: Condition | None, seen: tuple[Tensor, ...]) -> Tensor:
        with self._autocast():
            scores: Tensor = self._discriminator(views, condition, *seen)
        return scores

    def _augmented(self, x: Tensor, rng: torch.Generator) -> Tensor:
        return self._augmentation(x, rng=rng) if self._settings.augment == "adaptive" else x

    def _seen(self, x: Tensor, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Return what the discriminator is told of images beside them: nothing, or what the classifier sees."""
        return () if self._perception is None else (self._perception(x, rng=rng),)

    def _autocast(self) -> torch.autocast:
        return autocast(self._device.type, bf16=self._settings.bf16)

    @property
    def _won(self) -> bool:
        return min(self._told.values()) > _VICTORY

    def _watch(self, images: int) -> None:
        """Adapt the augmentation, and warn, once, of a discriminator that leaves the generator no chance."""
        if self._settings.augment == "adaptive":
            self._augmentation.adapt(2 * self._told["real"] - 1, images * workers().world)
        if self._won and not self._warned:
            self._warned = True
            if not workers().first:
                return
            _log.warning(
                "The discriminator has won: over the last %d steps it told %.1f %% of the real and %.1f %% of the "
                "generated images rightly (half would be a draw). Raise r1, lower the learning rate, or use "
                "--augment adaptive if the images are few.",
                _MEMORY, 100 * self._told["real"], 100 * self._told["fake"],
            )  # fmt: skip

    @property
    def judged(self) -> Generator:
        """The averaged generator, on the CPU, where latents are drawn and classifiers judge."""
        if self._device.type == "cpu":
            return self._averaged_generator
        return deepcopy(self._averaged_generator).cpu()

    def learnt_conditions(self, n: int, *, rng: torch.Generator) -> Condition | None:
        """Draw the conditions of `n` images learnt from."""
        return self.pool.draw(n, rng=rng)

    @torch.no_grad()
    def evaluate(self, images: ImageSet) -> dict[str, float]:
        """Return Fréchet distance, floor, recall, how well requests are met, and what the encoder finds."""
        if self._evaluation is None:
            self._evaluation = GeneratorEvaluation(
                images,
                self.pool.images,
                classifier=self._classifier,
                oracle=self._oracle,
                score=self._settings.score,
                conditions=self.pool.conditions,
                seed=self._settings.seed,
            )
        numbers = self._evaluation(self.judged)
        if self._encoding:
            numbers["reconstruction"] = reconstruction_error(self.judged, images, self.pool)
        return numbers | {f"told_{name}": share for name, share in self._told.items()}

    def state(self) -> dict[str, Any]:
        """Return the networks' state and how the game stands."""
        game = {"steps": self._steps, "told": self._told, "augmentation": self._augmentation.probability}
        return super().state() | {"game": game}

    def begin_with(self, state: Mapping[str, Any]) -> None:
        """Begin with the averaged generator and the discriminator of another training's last state.

        Raises:
            CheckpointError: if it is the state of other networks.
        """
        try:
            averaged, networks = state["averaged"], state["networks"]
            self.averaged.load_state_dict(averaged)
            named = {name: tensor for name, tensor in networks.items() if name.startswith("discriminator.")}
            self.networks.load_state_dict(averaged | named)
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"Expected a training of the same networks to begin with, but its content does not fit: "
                f"{str(error).partition(chr(10))[0]}. Give the same `family`, `channels`, `score` and images of the "
                "same size as there."
            ) from error

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        super().restore(state)
        self._steps, self._told = state["game"]["steps"], dict(state["game"]["told"])
        self._augmentation.probability = state["game"]["augmentation"]
        self._warned = self._won


def _told_rightly(real: Tensor, generated: Tensor, *, relativistic: bool) -> dict[str, Tensor]:
    """Return the shares of real and of generated images that the discriminator tells rightly.

    The scores of the relativistic game have no zero, so there both are the share of pairs in which the real image
    scores higher.
    """
    if relativistic:
        share = (real > generated).float().mean()
        return {"real": share, "fake": share}
    return {"real": (real > 0).float().mean(), "fake": (generated < 0).float().mean()}


def _since(start: float, progress: float) -> float:
    """Return the progress of what begins at `start` of a training and ends with it."""
    return max(0.0, progress - start) / (1 - start) if start < 1 else 0.0


def _guidance_weight(settings: GANSettings, progress: float) -> float:
    early = settings.guidance * ramp(progress, settings.guidance_from, settings.guidance_full)
    return early + settings.late_guidance * ramp(progress, settings.late_guidance_from, 1.0)


def _networks(
    settings: GANSettings, image_shape: tuple[int, int, int], pool: ConditionPool, perception: Perception | None
) -> tuple[StyleGAN2 | MLP, ProjectionDiscriminator | MLPDiscriminator]:
    space = pool.space
    condition = None if space is None else space.config
    baseline = settings.embedding == "scalar"
    if settings.family == "mlp":
        mlp = MLP(image_shape=image_shape, latent_dim=settings.latent_dim, hidden=settings.hidden, condition=condition)
        return mlp, MLPDiscriminator(image_shape, settings.hidden, space, concatenate=baseline)
    judging = settings.discriminator_channels or settings.channels
    style = StyleGAN2(
        image_shape=image_shape,
        channels=settings.channels,
        encoder_channels=judging,
        latent_dim=settings.latent_dim,
        style_dim=settings.style_dim,
        condition=condition,
    )
    seen = 0 if perception is None else perception.width
    return style, ProjectionDiscriminator(style.image_shape, judging, space, concatenate=baseline, seen=seen)
