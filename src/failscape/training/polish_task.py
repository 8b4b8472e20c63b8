"""Polishing of a trained generator: no game any more, but what it still misses by little."""

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.errors import UnsupportedGenerator
from failscape.generators import Condition, Generator, StyleGAN2
from failscape.generators.condition import Embedding
from failscape.training.adversarial import clip_images
from failscape.training.conditions import ConditionPool
from failscape.training.encoder_losses import encoder_losses
from failscape.training.feature_matching import FeatureMatching
from failscape.training.gan_evaluation import GeneratorEvaluation, even_requests, reconstruction_error
from failscape.training.generator_task import GeneratorTask, adam, check_oracle, update
from failscape.training.guidance import condition_loss
from failscape.training.precision import autocast
from failscape.training.schedule import set_learning_rate, warmup_cosine
from failscape.training.settings import PolishSettings

# The encoder's rate against the generator's, as beside the game.
_ENCODER_RATE = 2.0
# Styles of a smaller deviation hardly vary at all, and need not vary less.
_STILL = 1e-3


@final
class PolishTask(GeneratorTask):
    """Brings a trained generator nearer to its requests and to what real images are like together, and else leaves it.

    A game between two networks ends in small swings about its balance. At its end a generator may draw one hand of
    writing too often, or a little too much ink: each image passes, but the means of thousands differ from those of
    real ones, and so does what goes together in them. Here the discriminator has no say. The loss is how far means and
    covariances of features are from real ones, class by class (`FeatureMatching`), how far the classifier's verdicts
    are from what was asked (`condition_loss`), and how far each image is from what the generator drew of the same
    latent and noise before. What is matched are images whose conditions are those of real ones; the classifier has its
    say on others, asked for evenly over classes and scores. So neither spoils what the other mends.

    A condition enters a generator through one mapping, so that each style may move a little with it, and what is found
    of the images that are hard to tell is found in all styles. With `sparsity` the loss is also the mean, over images
    and styles, of how far a style moves when another score is asked for, in the deviations of that style. Of such a
    sum of sizes the small ones vanish first, as in the lasso: what the score must change is left to few.

    Args:
        settings: of the training.
        images: those that the generator was trained on.
        start: the generator to begin with; it is not changed.
        classifier: whose verdicts are the condition.
        matched_by: classifiers whose mean features are matched; by default that one.
        oracle: judges at evaluations.

    Attributes:
        pool: the conditions of the images.

    Raises:
        UnsupportedGenerator: if the generator is no StyleGAN2, has no condition, or draws other images.
        DataError: if there are fewer images than a batch, or a class that no image is taken for.
        ClassifierError: if a classifier or the oracle takes images of another shape, or knows other classes.
        UnsupportedClassifier: if a classifier has no gradients.
    """

    def __init__(
        self,
        settings: PolishSettings,
        *,
        images: ImageSet,
        start: Generator,
        classifier: Classifier,
        matched_by: Sequence[Classifier] = (),
        oracle: Classifier | None = None,
    ) -> None:
        self._settings, self.half = settings, settings.half
        self._classifier, self._oracle = classifier, oracle
        for judge in (classifier, *matched_by):
            judge.require_gradients("polishing", "Choose another `classifier`, or leave it out of `matched_by`.")
        if oracle is not None:
            check_oracle(oracle, images, classifier.class_names)
        style, self._score, embedding = _supported(start, images, classifier)
        self.pool = ConditionPool(images, classifier, batch=settings.batch, score=self._score, embedding=embedding)
        assert self.pool.space is not None, "there is a classifier"
        # Conditions are those of this classifier, which may have been trained anew.
        generator = StyleGAN2(**(style.config | {"condition": self.pool.space.config}))
        generator.load_state_dict(style.state_dict())
        self._generator, self._before = generator, deepcopy(generator).requires_grad_(False).eval()
        self._averaged_generator = deepcopy(self._before)
        # Without a weight nobody looks at the real images.
        judges = (matched_by or (classifier,)) if settings.matching > 0 else ()
        self._matching = FeatureMatching(judges, self.pool, spread=settings.spread)
        # The running means are part of the state.
        self.networks = nn.ModuleDict({"generator": generator, "matching": self._matching})
        self.averaged = nn.ModuleDict({"generator": self._averaged_generator})
        named = list(generator.named_parameters())
        self._drawn = [parameter for name, parameter in named if not name.startswith("encoder.")]
        self._encoding = [parameter for name, parameter in named if name.startswith("encoder.")]
        self.optimizers = {"generator": adam(self._drawn), "encoder": adam(self._encoding)}
        self._evaluation: GeneratorEvaluation | None = None

    def step(
        self, x: Float[Tensor, "N C H W"], y: Int[Tensor, " N"], *, progress: float, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Update the generator once, and the encoder when its time has come."""
        settings, generator = self._settings, self._generator
        factor = warmup_cosine(progress, warmup=settings.warmup / settings.images)
        set_learning_rate(self.optimizers["generator"], settings.learning_rate * factor)
        # First as real images have it, whose means are to be met; then evenly over the scores, for the guidance.
        condition = self.pool.conditions_of(x, y)
        assert condition is not None
        n, asked = len(x), self._with_even(condition, rng)
        z, noise = generator.sample_latents(len(asked), rng=rng), generator.draw_noise(len(asked), rng=rng)
        with autocast("cpu", bf16=settings.bf16):
            w = generator.mapping(z, asked)
            fake = clip_images(generator.draw(generator.styles(w), noise).float())
        generator.follow_mean(w[:n].detach())
        shown = fake.detach()
        if not shown.isfinite().all():
            # The loop ends at a loss of NaN and says where; the classifier would complain of itself.
            return {"anchor": shown.sum() * torch.nan}
        losses, gradient = {}, torch.zeros_like(shown)
        if settings.anchor > 0:
            with torch.no_grad(), autocast("cpu", bf16=settings.bf16):
                styles = self._before.styles(self._before.mapping(z, asked))
                before = clip_images(self._before.draw(styles, noise).float())
            losses["anchor"] = (shown - before).square().mean()
            gradient += settings.anchor * 2 * (shown - before) / shown.numel()
        if settings.matching > 0:
            terms, matching = self._matching(shown[:n], condition, pace=factor)
            losses |= terms
            gradient[:n] += settings.matching * matching
        if settings.guidance > 0:
            losses["guidance"], guidance = self._guide(shown[n:], asked[slice(n, None)])
            gradient[n:] += settings.guidance * guidance
        ends, gradients = [fake], [gradient]
        if settings.sparsity > 0:
            losses["sparsity"] = self._told_by_styles(z, asked, rng)
            ends.append(losses["sparsity"])
            gradients.append(torch.tensor(settings.sparsity))
        update(self.optimizers["generator"], partial(torch.autograd.backward, ends, gradients), self._drawn)
        if progress >= settings.encoder_from:
            losses |= self._step_encoder(x, shown[:n], z[:n], condition, progress)
        return {name: loss.detach() for name, loss in losses.items()}

    def _with_even(self, condition: Condition, rng: torch.Generator) -> Condition:
        """Return conditions, and as many more as `guided` says, drawn evenly over classes and scores."""
        if self._settings.guidance == 0:
            return condition
        assert self.pool.space is not None
        y = torch.randint(self.pool.space.num_classes, (self._settings.guided,), generator=rng)
        return Condition.cat([condition, self._even(y, rng)])

    def _even(self, y: Int[Tensor, " N"], rng: torch.Generator) -> Condition:
        """Return conditions of these classes, evenly over their scores."""
        assert self.pool.space is not None
        assert self.pool.conditions is not None
        return even_requests(self.pool.space, y, like=self.pool.conditions, rng=rng)

    def _told_by_styles(self, z: Tensor, condition: Condition, rng: torch.Generator) -> Tensor:
        """Return how far styles move when other scores are asked for, in their deviations, in the mean."""
        generator = self._generator
        # Anew, not those that images were drawn of: rounded to bfloat16, moves that are to vanish would be lost.
        asked, other = (
            generator.styles(generator.mapping(z, each)) for each in (condition, self._even(condition.y, rng))
        )
        # The last batch may be of one image.
        deviation = asked.detach().std(dim=0, correction=0).clamp_min(_STILL)
        return ((asked - other).abs() / deviation).mean()

    def _guide(self, fake: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Return by how much the conditions are missed in the mean, and the gradient of that in the images.

        No image is disturbed before, as it is in the game: the anchor is the guard, and so little is learnt so late.
        """
        fake = fake.detach().requires_grad_()
        loss = condition_loss(self._classifier(fake), condition, score=self._score).mean()
        (gradient,) = torch.autograd.grad(loss, fake)
        return loss, gradient

    def _step_encoder(
        self, x: Tensor, fake: Tensor, z: Tensor, condition: Condition, progress: float
    ) -> dict[str, Tensor]:
        """Teach the encoder, at a rate of its own."""
        settings = self._settings
        time = (progress - settings.encoder_from) / (1 - settings.encoder_from)
        rate = settings.learning_rate * _ENCODER_RATE * warmup_cosine(time, warmup=0.0)
        set_learning_rate(self.optimizers["encoder"], rate)
        losses, loss, _ = encoder_losses(
            self._generator,
            self._averaged_generator,
            x,
            fake,
            z,
            condition,
            autocast=autocast("cpu", bf16=settings.bf16),
        )
        update(self.optimizers["encoder"], loss.backward, self._encoding)
        return losses

    @property
    def judged(self) -> Generator:
        """The averaged generator."""
        return self._averaged_generator

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
                score=self._score,
                conditions=self.pool.conditions,
                seed=self._settings.seed,
            )
        numbers: dict[str, Any] = self._evaluation(self.judged)
        return numbers | {"reconstruction": reconstruction_error(self.judged, images, self.pool)}


def _supported(start: Generator, images: ImageSet, classifier: Classifier) -> tuple[StyleGAN2, str, Embedding]:
    """Return the generator, its score and how that is embedded, if it can be polished."""
    space = start.condition_space
    if not isinstance(start, StyleGAN2) or space is None or start.image_shape != images.image_shape:
        raise UnsupportedGenerator(
            f"Expected a stylegan2 of images of shape {images.image_shape}, conditioned on what a classifier says, but "
            f"got a {start.family} of {start.image_shape}{'' if space is not None else ' without a condition'}. Name "
            "another `start`, or other `data`."
        )
    if space.num_classes != classifier.num_classes:
        raise UnsupportedGenerator(
            f"Expected a generator of the {classifier.num_classes} classes of {classifier.name}, but this one takes "
            f"conditions of {space.num_classes}. Name another `start`, or the classifier that it was trained with."
        )
    return start, space.score, space.embedding
