"""A trained generator, trained further until a classifier gives its images a target distribution."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.errors import GeneratorError, TrainingError, UnsupportedGenerator
from failscape.generators import VAE, VAEGAN, Generator, IntroVAE
from failscape.generators.convolutional import CriticGenerator
from failscape.training.ema import ema_decay
from failscape.training.generator_task import GeneratorTask
from failscape.training.intro_vae_task import IntroVAETask
from failscape.training.settings import GuidedSettings, IntroVAESettings, VAEGANSettings, VAESettings, WGANSettings
from failscape.training.target_guidance import TargetGuidance
from failscape.training.vae_gan_task import VAEGANTask
from failscape.training.vae_task import VAETask
from failscape.training.wgan_task import WGANTask

# The first tenth of the steps brings the classifier's say in, and the averaged weights forget within a tenth.
_SPAN = 0.1
# A critic that has been trained keeps up with a generator that moves slowly.
_CRITIC_STEPS = 1
# As `embedded:fashion-wgan` was trained; a critic that was trained without it is held where its scores are.
_DRIFT = 1e-3


def steer(
    generator: Generator,
    classifier: Classifier,
    target: Float[Tensor, " K"],
    images: Float[Tensor, "M C H W"],
    *,
    steps: int = 200,
    weight: float | None = None,
    batch: int = 64,
    learning_rate: float = 1e-3,
    rng: torch.Generator,
) -> Generator:
    r"""Return a copy of a generator that went on training with the classifier's say on what it draws.

    What the generator was trained by goes on, against real images, so that the copy cannot leave what they look like;
    to its loss is added $k \cdot E[KL(t \| p(\hat x))]$, which is the cross-entropy where the target is one class.

    Args:
        generator: a WGAN, a progressive generator, a VAE, a VAE-GAN or an IntroVAE; it is not changed.
        classifier: gives the verdicts; it is not changed.
        target: $t$, the distribution wanted.
        images: real ones, in [0, 1], which it goes on learning from; at each step some are drawn.
        steps: of the generator.
        weight: k; by default 10, and 100 for a VAE or an IntroVAE, whose loss sums over pixels.
        batch: images a step.
        learning_rate: at the beginning; it falls to 0.
        rng: the source of every random draw.

    Raises:
        UnsupportedGenerator: if the generator is of a family that keeps nothing to be trained by.
        UnsupportedClassifier: if the classifier has no gradients.
        GeneratorError: if the images are of another shape, or there are none.
        TrainingError: if a loss is not finite.

    References:
        "Synthetic Data Generation To Better Perceive Classifier Predictions", sections 4.1 and 4.2.
    """
    if len(images) == 0 or tuple(images.shape[1:]) != generator.image_shape:
        raise GeneratorError(
            f"Expected images of shape {generator.image_shape} to go on learning from, but got {len(images)} of shape "
            f"{tuple(images.shape[1:])}. Give some of those that the generator was trained on."
        )

    def guidance(settings: GuidedSettings) -> TargetGuidance:
        k = settings.guidance if weight is None else weight
        return TargetGuidance(classifier, target, weight=k, full=_SPAN)

    seed = int(torch.randint(2**31, (), generator=rng))
    task, turns = _task(generator, images, guidance, batch=batch, learning_rate=learning_rate, seed=seed)
    total = steps * turns
    for index in range(total):
        rows = torch.randint(len(images), (batch,), generator=rng)
        losses = task.step(images[rows], torch.zeros_like(rows), progress=index / total, rng=rng)
        if not all(math.isfinite(float(loss)) for loss in losses.values()):
            raise TrainingError(
                f"Expected finite losses, but got {losses} after {index} steps. Steer with a smaller weight or a lower "
                "learning rate."
            )
        task.average(ema_decay(batch, index * batch, half_life=round(_SPAN * total * batch), ramp_up=_SPAN))
    return task.judged


def _task(
    generator: Generator,
    images: Float[Tensor, "M C H W"],
    guidance: Callable[[GuidedSettings], TargetGuidance],
    *,
    batch: int,
    learning_rate: float,
    seed: int,
) -> tuple[GeneratorTask, int]:
    """Return what trains a copy of the generator, and how many of its steps make one of the generator.

    Args:
        generator: to be copied.
        images: it goes on learning from.
        guidance: what is added to its loss, given the settings of its family, which know a weight.
        batch: images a step.
        learning_rate: at the beginning.
        seed: of the training.
    """
    told: dict[str, Any] = {"batch": batch, "learning_rate": learning_rate, "seed": seed}
    if isinstance(generator, VAE):
        plain = VAESettings(**told, warmup=0)
        return VAETask(plain, image_shape=generator.image_shape, guidance=guidance(plain), start=generator), 1
    learnt = ImageSet.from_tensors(images, torch.zeros(len(images), dtype=torch.long), name="images")
    if isinstance(generator, CriticGenerator):
        # What has grown up stays so.
        game = WGANSettings(**told, critic_steps=_CRITIC_STEPS, drift=_DRIFT, encoder_from=1.0, grow_until=0.0)
        return WGANTask(game, images=learnt, guidance=guidance(game), start=generator), _CRITIC_STEPS
    if isinstance(generator, VAEGAN):
        judged = VAEGANSettings(**told)
        return VAEGANTask(judged, images=learnt, guidance=guidance(judged), start=generator), 1
    if isinstance(generator, IntroVAE):
        introspective = IntroVAESettings(**told)
        return IntroVAETask(introspective, images=learnt, guidance=guidance(introspective), start=generator), 1
    raise UnsupportedGenerator(
        "Expected a generator that can be trained further, a WGAN, a progressive generator, a VAE, a VAE-GAN or an "
        f"IntroVAE, but got a {generator.family}, which keeps nothing to be trained by. Search in its latent space "
        "instead, or train one that is steered from the beginning, by `failscape train gan --target`."
    )
