"""What each part of the conditioning brings on corrupted digits: short trainings with parts left out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from failscape.classifiers import load_classifier
from failscape.data import load_images
from failscape.generators import load_generator
from failscape.study.reproduce.variant import Variant
from failscape.study.reproduce.weights import train_by
from failscape.training import GANSettings, GeneratorEvaluation

_WITHOUT_GUIDANCE: Mapping[str, Any] = {"perceive": False, "guidance": 0.0, "late_guidance": 0.0}

VARIANTS: Mapping[str, Variant] = {
    "scalar": Variant("bare score, concatenated (the paper)", {"embedding": "scalar", **_WITHOUT_GUIDANCE}),
    "projected": Variant("embedded score and projection", _WITHOUT_GUIDANCE),
    "guided": Variant("the same with guidance", {"perceive": False}),
    "perceived": Variant("as guided, the discriminator sees what the classifier sees (ours)", {}),
    "vector": Variant("as ours, the whole distribution", {"score": "vector"}),
    "uncalibrated": Variant("as ours, the classifier without its temperature", {"calibrated": False}),
}
"""What the ablation compares."""

IMAGES = 160_000
"""How many each training sees."""

_NAME = "digits-{name}-seed{seed}"
_TEST = "embedded:mnist-test+half-corrupted"
_REQUESTS = "embedded:mnist-train-10k+half-corrupted*2"
# Samples are drawn from another seed than any that the training used.
_FRESH = 2_000
# On one core of an EPYC with AVX-512 BF16.
_SECONDS = 650.0


def ablation_seconds(seed: int) -> dict[str, float]:
    """Return the name of each training of a seed's ablation to how long it took."""
    return {_NAME.format(name=name, seed=seed): _SECONDS for name in VARIANTS}


def settings_of(name: str, *, classifier: str, seed: int) -> GANSettings:
    """Return how the generator of a variant is trained: as the embedded one begins, on far fewer images.

    Args:
        name: of the variant.
        classifier: spec of the classifier whose verdicts are the condition.
        seed: of the training.
    """
    ours = {
        "name": _NAME.format(name=name, seed=seed),
        "data": "mnist:train+half-corrupted*4",
        "validation": "none",
        "classifier": classifier,
        "images": IMAGES,
        "even_share": 0.3,
        "r1": 0.01,
        "perceive": True,
        "decay_from": 0.4,
        "guidance": 0.2,
        "guidance_from": 0.25,
        "guidance_full": 0.4,
        "late_guidance": 0.2,
        "late_guidance_from": 0.7,
        # Nothing that is measured needs an encoder.
        "encoder_from": 1.0,
        "seed": seed,
        "checkpoint_every": 40_000,
        "log_every": 3_200,
    }
    return GANSettings.parse(ours | dict(VARIANTS[name].changes))


def digits_ablation(
    folder: Path,
    *,
    classifier: str,
    oracle: str,
    seed: int = 0,
    progress: Callable[[str], None] = lambda message: None,
) -> dict[str, dict[str, float]]:
    """Train one generator for each of `VARIANTS` on the verdicts of one classifier, and measure all.

    Args:
        folder: holds the numbered run folders; what is trained is not trained again, and what was cut off goes on.
        classifier: spec of the classifier.
        oracle: spec of a classifier that no training saw.
        seed: of the trainings.
        progress: is told in a line what is being done.

    Returns:
        Name of each variant to what `measure_digits` returns.
    """
    numbers = {}
    for name in VARIANTS:
        settings = settings_of(name, classifier=classifier, seed=seed)
        generator = train_by(settings, folder, progress=progress)
        numbers[name] = measure_digits(settings, generator, oracle=oracle)
    return numbers


def measure_digits(settings: GANSettings, generator: Path, *, oracle: str) -> dict[str, float]:
    """Return what `GeneratorEvaluation` says of a trained generator of corrupted digits, errors as `mae`.

    Args:
        settings: of its training.
        generator: its run folder.
        oracle: spec of a classifier that no training saw.
    """
    explained = load_classifier(settings.classifier)
    evaluation = GeneratorEvaluation(
        load_images(_TEST),
        load_images(_REQUESTS),
        classifier=explained if settings.calibrated else explained.with_temperature(1.0),
        oracle=load_classifier(oracle),
        score=settings.score,
        seed=_FRESH + settings.seed,
    )
    return {key.replace("mean_error", "mae"): number for key, number in evaluation(load_generator(generator)).items()}
