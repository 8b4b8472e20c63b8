"""The experiments of "Explaining an image classifier with a generative model conditioned by uncertainty"."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from failscape.classifiers import load_classifier
from failscape.data import load_images
from failscape.explain import UncertainResult
from failscape.figures import Plot
from failscape.generators import load_generator
from failscape.metrics import Estimate, rate
from failscape.study.config import StudyConfig
from failscape.study.reproduce.ablation import MOONS, SECONDS_EACH, Ablation, read_ablation, run_ablation
from failscape.study.reproduce.claims import Claim
from failscape.study.reproduce.moons import MoonsResult, run_moons
from failscape.training import GeneratorEvaluation

MINUTES = 4
WEIGHTS = (
    "mnist-clean",
    "mnist-corrupted",
    "mnist-oracle-corrupted",
    "mnist-stylegan2",
)

TRAININGS = SECONDS_EACH

_TEST = "embedded:mnist-test+half-corrupted"
# Several draws of the corruptions, since uncertain images are rare.
_REAL = f"{_TEST}*4"
_LEARNT = "embedded:mnist-train-10k"
_TRAINING = f"{_LEARNT}+half-corrupted*2"
# So many draws of the training images that requests come from, and of latents: a single one may be off by a fifth.
_QUALITY_SEEDS = (7, 8, 9, 10)

_EVEN = "Requests spread evenly over [0.5, 1) and the part of it that each class supports, 200 a class."
_CEILING = "Against real images of the same classes and confidences; requests count for which there is one."

CLAIMS = (
    Claim(
        key="moons.spearman",
        what="Moons: rank correlation, requested and obtained",
        paper="“correlated”",
        at_least=0.97,
    ),
    Claim(key="moons.mae", what="Moons: mean absolute error, requests from the data", at_most=0.03),
    Claim(key="moons.mae_low", what="Moons: the same, requests below 0.9", paper="“poor”", at_most=0.06),
    Claim(key="mnist.clean.accuracy", what="Classifier, clean digits: accuracy", paper="0.985", at_least=0.985),
    Claim(key="mnist.corrupted.accuracy", what="Classifier, corrupted digits: accuracy", paper="0.932", at_least=0.932),
    Claim(
        key="mnist.clean.training_accuracy",
        what="The same, 10,000 of the digits learnt from",
        paper="0.988",
        at_least=0.988,
    ),
    Claim(
        key="mnist.corrupted.training_accuracy",
        what="Classifier of corrupted digits, 10,000 of those learnt from, corrupted afresh",
        paper="0.940",
        at_least=0.940,
    ),
    Claim(
        key="mnist.corrupted.alone.spearman",
        what="Generator alone: rank correlation",
        paper="“some”",
        at_least=0.50,
        note=_EVEN,
    ),
    Claim(key="mnist.corrupted.alone.mae", what="Generator alone: mean absolute error", at_most=0.13, note=_EVEN),
    Claim(key="mnist.corrupted.alone.class", what="Generator alone: class kept", at_least=0.95),
    Claim(
        key="mnist.corrupted.alone.oracle_spearman_ratio",
        what="Generator alone: the oracle's rank correlation, of that on real images",
        at_least=0.9,
        note=_CEILING,
    ),
    Claim(
        key="mnist.corrupted.alone.oracle_class_ratio",
        what="Generator alone: the oracle's agreement on the class, of that on real images",
        at_least=0.9,
        note=_CEILING,
    ),
    Claim(key="mnist.corrupted.refined.spearman", what="Refined: rank correlation", at_least=0.98, note=_EVEN),
    Claim(key="mnist.corrupted.refined.mae", what="Refined: mean absolute error", at_most=0.02, note=_EVEN),
    Claim(key="mnist.corrupted.refined.class", what="Refined: class kept", at_least=0.95),
    Claim(
        key="mnist.corrupted.refined.oracle_spearman_ratio",
        what="Refined: the oracle's rank correlation, of that on real images",
        at_least=0.9,
        note=_CEILING,
    ),
    Claim(
        key="mnist.corrupted.refined.oracle_class_ratio",
        what="Refined: the oracle's agreement on the class, of that on real images",
        at_least=0.9,
        note=_CEILING,
    ),
    Claim(
        key="mnist.corrupted.frechet_ratio",
        what="Fréchet distance in the oracle's features, as a multiple of real against real",
        at_most=1.5,
        note="10,000 samples, requests from training images, as many of each class as among the test images; floor: "
        "these very images. Means of four draws of them, and of latents. Digits from all 60,000, which are not in the "
        "package, lie nearer to the test digits, so that the floor is lower: see docs/reproduce.md.",
    ),
    Claim(key="mnist.corrupted.recall", what="Recall: real test images covered by samples", at_least=0.6),
    Claim(
        key="mnist.corrupted.monotone",
        what="Confidence lowered at one latent and noise: rows that fall all the way, refined",
        paper="figure 3",
        at_least=0.95,
    ),
    Claim(
        key="mnist.corrupted.calibration_error_before",
        what="Expected calibration error of the classifier, before temperature scaling",
        paper="future work",
        note="Of the bare network, at temperature 1, on the same images as after.",
    ),
    Claim(
        key="mnist.corrupted.calibration_error_after",
        what="Expected calibration error of the classifier, after temperature scaling",
        paper="future work",
        note="Temperature fitted on one half of the test images, error measured on the other.",
    ),
)


def study(weights: Mapping[str, str]) -> StudyConfig:
    """Return the study.

    Args:
        weights: each of `WEIGHTS` to the spec it is loaded from.
    """
    return StudyConfig.from_mapping(
        {
            "name": "uncertainty-conditioned-gan",
            "images": {"spec": _REAL, "only": "all"},
            "classifier": {"spec": weights["mnist-corrupted"]},
            "oracle": {"spec": weights["mnist-oracle-corrupted"]},
            "generator": {"spec": weights["mnist-stylegan2"]},
            "steps": [
                {
                    "method": "uncertain-samples",
                    "title": "What the classifier is unsure of",
                },
                {
                    "method": "calibration",
                    "title": "Does the confidence mean what it says?",
                    "images": {"spec": _TEST, "only": "all"},
                    # The classifier carries its temperature, with which there would be nothing left to gain.
                    "settings": {"bare": True},
                },
            ],
        }
    )


def measure(weights: Mapping[str, str], out: Path, *, retrain: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure what is no step of the study: the moons, the accuracies, the generator's quality, the ablation.

    Args:
        weights: each of `WEIGHTS` to the spec it is loaded from.
        out: the run folder.
        retrain: train the generators of the ablation again.
        progress: is told in a line what is being done.
    """
    progress("moons: training a classifier and a generator")
    moons = run_moons(out / MOONS, progress=progress)
    progress("measuring accuracy and the generator's quality")
    return {
        "moons": moons,
        "accuracy": {
            "clean": _accuracy(weights["mnist-clean"], "embedded:mnist-test"),
            "corrupted": _accuracy(weights["mnist-corrupted"], _TEST),
        },
        "training_accuracy": {
            "clean": _accuracy(weights["mnist-clean"], _LEARNT),
            "corrupted": _accuracy(weights["mnist-corrupted"], f"{_LEARNT}+half-corrupted"),
        },
        "quality": _quality(weights),
        "ablation": _ablation(weights, out, progress) if retrain else read_ablation(),
    }


def metrics(results: Mapping[str, Any]) -> dict[str, Estimate | float | int]:
    """Return the numbers of `metrics.json`.

    Args:
        results: name of each step to its result, and what `measure` returned.
    """
    moons: MoonsResult = results["moons"]
    numbers: dict[str, Estimate | float | int] = dict(moons.metrics)
    for key in ("accuracy", "training_accuracy"):
        numbers |= {f"mnist.{name}.{key}": accuracy for name, accuracy in results[key].items()}
    uncertain: UncertainResult = results["uncertain-samples"]
    found = uncertain.estimates
    for part in ("alone", "refined", "real"):
        for key in ("spearman", "error", "class", "oracle_spearman", "oracle_class"):
            if f"{part}_{key}" in found:
                numbers[f"mnist.corrupted.{part}.{'mae' if key == 'error' else key}"] = found[f"{part}_{key}"]
    for part in ("alone", "refined"):
        for key in ("oracle_spearman_ratio", "oracle_class_ratio"):
            numbers[f"mnist.corrupted.{part}.{key}"] = found[f"{part}_{key}"]
    numbers["mnist.corrupted.monotone"] = found["monotone"]
    quality = results["quality"]
    for key in ("frechet", "floor", "recall", "precision"):
        numbers[f"mnist.corrupted.{key}"] = quality[key]
    numbers["mnist.corrupted.frechet_ratio"] = quality["frechet"] / quality["floor"]
    calibration = results["calibration"].summary
    for key in ("temperature", "calibration_error_before", "calibration_error_after"):
        numbers[f"mnist.corrupted.{key}"] = calibration[key]
    ablation: Ablation = results["ablation"]
    return numbers | ablation.metrics


def figures(results: Mapping[str, Any]) -> Sequence[Plot]:
    """Return the paper's figure 2 and the ablation."""
    moons: MoonsResult = results["moons"]
    ablation: Ablation = results["ablation"]
    return [*moons.plots, *ablation.plots]


def _ablation(weights: Mapping[str, str], out: Path, progress: Callable[[str], None]) -> Ablation:
    classifier, oracle = weights["mnist-corrupted"], weights["mnist-oracle-corrupted"]
    return run_ablation(out, classifier=classifier, oracle=oracle, progress=progress)


@torch.no_grad()
def _accuracy(classifier: str, images: str) -> Estimate:
    explained, labelled = load_classifier(classifier), load_images(images)
    return rate(torch.cat([explained.predict(batch.x) == batch.y for batch in labelled.batches(1000)]))


def _quality(weights: Mapping[str, str]) -> dict[str, Estimate | float]:
    """Return Fréchet distance and floor, each a mean over draws, and recall and precision of the first."""
    test, training = load_images(_TEST), load_images(_TRAINING)
    classifier, oracle = (load_classifier(weights[name]) for name in ("mnist-corrupted", "mnist-oracle-corrupted"))
    generator = load_generator(weights["mnist-stylegan2"])
    draws = [
        GeneratorEvaluation(test, training, classifier=classifier, oracle=oracle, seed=seed) for seed in _QUALITY_SEEDS
    ]
    means = {
        "frechet": fmean(draw.distance(generator) for draw in draws),
        "floor": fmean(draw.floor for draw in draws),
    }
    return draws[0].quality(generator) | means
