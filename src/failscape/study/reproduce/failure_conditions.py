"""The experiments of "Leveraging generative models to characterize the failure conditions of image classifiers"."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from failscape.classifiers import load_classifier, penultimate_features
from failscape.data import load_images
from failscape.explain import (
    CornerCasesResult,
    CorruptionTableResult,
    LatentAccuracyResult,
    LatentMapResult,
    RealDirectionsResult,
    StyleInfluenceResult,
    to_8_bits,
)
from failscape.explain.corner_result import BEYOND, WITHIN
from failscape.figures import Plot
from failscape.generators import load_generator
from failscape.metrics import Estimate, frechet_distance, kernel_distance, mean, rate
from failscape.study.config import StudyConfig
from failscape.study.failure_conditions import failure_steps
from failscape.study.reproduce.claims import Claim

MINUTES = 9
TRAININGS: dict[str, float] = {}
WEIGHTS = (
    "mnist-blurred-and-noised",
    "mnist-clean",
    "mnist-corrupted",
    "mnist-oracle-corrupted",
    "mnist-stylegan2",
)

_TEST = "embedded:mnist-test+half-corrupted"
_PAPERS_DATA = "embedded:mnist-test+half-blurred-and-noised"
# As many images as the paper compares: 60,000 real ones, and 50,000 generated; for the floor 50,000 other real ones.
_REAL, _OTHERS, _GENERATED = "embedded:mnist-train-10k+half-corrupted*6", f"{_TEST}*5", 50_000
_SEED = 11
_BATCH = 500

CLAIMS = (
    Claim(
        key="classifier.accuracy",
        what="Classifier trained as the paper's: accuracy on digits of which half are blurred and then noised",
        paper="0.97",
        at_least=0.97,
        note="Of `mnist-blurred-and-noised`. What the steps explain is `mnist-corrupted`, whose verdicts the generator "
        "was conditioned on: its training images are blurred or noisy, and not both.",
    ),
    Claim(
        key="generator.frechet_ratio",
        what="Generator: Fréchet distance in the oracle's features, as a multiple of real against real",
        paper="FID 1.63",
        at_most=1.5,
        note="50,000 generated against 60,000 real ones, 10,000 training digits corrupted six times; floor: 10,000 "
        "test digits corrupted five times against the same.",
    ),
    Claim(key="generator.kid", what="Generator: kernel distance in the oracle's features"),
    Claim(key="spaces.z", what="Z: neighbours tell misclassified samples, balanced accuracy", paper="worst"),
    Claim(key="spaces.w", what="W: the same"),
    Claim(key="spaces.s", what="S: the same", paper="best"),
    Claim(
        key="influence.split_half",
        what="Influence: rank correlation of two halves of the samples",
        at_least=0.9,
    ),
    Claim(
        key="influence.ks_ratio",
        what="Kolmogorov–Smirnov statistic, the three most telling dimensions over the median of random ones",
        note="Chosen on one half of the samples, measured on the other.",
        paper="top differ, random do not",
        at_least=3.0,
    ),
    Claim(
        key="influence.ks_influential",
        what="The same statistic of the three dimensions of largest influence",
        note="On the other half, too. `influence.ks_random` is what random dimensions give.",
    ),
    Claim(key="corner_cases.found", what="Corner cases by single dimensions", paper="10 classes × 10", at_least=100.0),
    Claim(key="corner_cases.within", what="Share of them within the observed values"),
    Claim(key="corner_cases.beyond", what="Share of them beyond three times the observed range"),
    Claim(
        key="corner_cases.max_error",
        what="Largest distance of the probability from 0.50, on 8-bit pictures",
        paper="0.50",
        at_most=0.005,
    ),
    Claim(
        key="corner_cases.jumps",
        what="Cases where it jumps: between two neighbouring 8-bit pictures it falls by more than 0.01",
    ),
    Claim(key="corner_cases.joint", what="Joint corner cases, minimal in norm", paper="perspective", at_least=1.0),
    Claim(
        key="latent_accuracy.difference",
        what="Area under accuracy against distance: corrupted-trained less clean-trained",
        paper="clean falls faster",
        note="Paired over the same samples; the order is certain where the interval excludes zero. The generator was "
        "conditioned on the first one's verdicts, which favours it; the corruption table, on real images, does not.",
        above=0.0,
    ),
    Claim(
        key="latent_accuracy.difference_low",
        what="Lower end of the interval of that",
        above=0.0,
    ),
    *(
        Claim(
            key=f"corruption_table.mnist-clean.{name}", what=f"Clean-trained classifier: accuracy, {words}", paper=paper
        )
        for name, words, paper in (
            ("uncorrupted.0", "digits as they are", "0.9775"),
            ("gaussian_noise.5", "Gaussian noise, severity 5", "0.5975"),
            ("gaussian_blur.5", "Gaussian blur, severity 5", "0.3601"),
            ("contrast.5", "contrast, severity 5", "0.0891"),
        )
    ),
    Claim(
        key="real.agreement",
        what="Real images: classifier agrees on the reconstruction",
        paper="perspective",
        at_least=0.97,
    ),
    Claim(
        key="real.confirmed",
        what="Influential dimensions along which real accuracy falls",
        paper="perspective",
        at_least=1.0,
    ),
    Claim(
        key="real.beyond_chance",
        what="More such dimensions among the influential ones than among others drawn at random (1: yes)",
        paper="perspective",
        at_least=1.0,
        note="By Fisher's exact test at 5 %: dimensions go together in real images, and with how hard an image is.",
    ),
    Claim(
        key="real.distinct",
        what="How many of them are distinct",
        note="Those whose worst fifths share more than half of their images count once.",
    ),
    Claim(
        key="real.controls_confirmed",
        what="Share of other dimensions, drawn at random, along which real accuracy falls",
        note="By the same intervals.",
    ),
)


# From each the paper's figure of degradation is drawn.
_STARTS = ("class-mean", "sample", "real")


def study(weights: Mapping[str, str]) -> StudyConfig:
    """Return the study.

    Args:
        weights: each of `WEIGHTS` to the spec it is loaded from.
    """
    return StudyConfig.from_mapping(
        {
            "name": "failure-conditions",
            "images": {"spec": _TEST, "only": "all", "limit": 2000},
            "classifier": {"spec": weights["mnist-corrupted"]},
            "oracle": {"spec": weights["mnist-oracle-corrupted"]},
            "generator": {"spec": weights["mnist-stylegan2"]},
            "steps": failure_steps(others=[weights["mnist-clean"]], clean="embedded:mnist-test", starts=_STARTS),
        }
    )


def measure(weights: Mapping[str, str], out: Path, *, retrain: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure what is no step of the study: accuracy on the paper's data, and the generator's quality.

    Args:
        weights: each of `WEIGHTS` to the spec it is loaded from.
        out: the run folder; nothing is written.
        retrain: the weights were trained again; nothing else is to be.
        progress: is told in a line what is being done.
    """
    progress("measuring accuracy and the generator's quality")
    classifier, labelled = load_classifier(weights["mnist-blurred-and-noised"]), load_images(_PAPERS_DATA)
    right = torch.cat([classifier.predict(batch.x) == batch.y for batch in labelled.batches(1000)])
    return {"accuracy": rate(right), "quality": _quality(weights)}


def metrics(results: Mapping[str, Any]) -> dict[str, Estimate | float | int]:
    """Return the numbers of `metrics.json`.

    Args:
        results: name of each step to its result, and what `measure` returned.
    """
    numbers: dict[str, Estimate | float | int] = {"classifier.accuracy": results["accuracy"]}
    numbers |= {f"generator.{key}": value for key, value in results["quality"].items()}
    latent_map: LatentMapResult = results["latent-map"]
    for space in ("z", "w", "s"):
        numbers[f"spaces.{space}"] = _of(latent_map.summary, f"well_{space}", int(latent_map.summary["samples"]))
    influence: StyleInfluenceResult = results["style-influence"]
    for key in (
        "split_half",
        "ks_top",
        "ks_influential",
        "ks_random",
        "significant",
        "misclassified",
        "compared",
        "samples",
    ):
        numbers[f"influence.{key}"] = influence.summary[key]
    # Of a style that changes nothing all values are the same, and so the statistic is 0.
    numbers["influence.ks_ratio"] = influence.summary["ks_top"] / max(influence.summary["ks_random"], 1e-3)
    corners: CornerCasesResult = results["corner-cases"]
    for key in ("found", "max_error", "jumps", "without_effect", "not_reached", "joint", "joint_max_error"):
        numbers[f"corner_cases.{key}"] = corners.summary.get(key, float("nan"))
    places = corners.place[corners.single]
    numbers |= {
        "corner_cases.within": rate(places == WITHIN),
        "corner_cases.beyond": rate(places == BEYOND),
        "corner_cases.joint_norm": mean(corners.move[~corners.single]),
    }
    numbers |= _latent_accuracy(results["latent-accuracy"])
    numbers |= _real(results["real-directions"])
    return numbers | _corruption_table(results["corruption-table"])


def figures(results: Mapping[str, Any]) -> Sequence[Plot]:
    """Return nothing: each of the paper's figures is one of a step."""
    return ()


def _latent_accuracy(result: LatentAccuracyResult) -> dict[str, Estimate | float | int]:
    numbers: dict[str, Estimate | float | int] = {}
    for row, curve in enumerate(result.curves):
        for key, found in (("area", result.area), ("trend", result.trend)):
            value, low, high = found[row].tolist()
            estimate = Estimate(value=value, low=low, high=high, n=result.samples)
            numbers[f"latent_accuracy.{key}.{curve.removeprefix('class ')}"] = estimate
    value, low, high = result.difference[0].tolist()
    difference = Estimate(value=value, low=low, high=high, n=result.samples)
    return numbers | {"latent_accuracy.difference": difference, "latent_accuracy.difference_low": low}


def _real(result: RealDirectionsResult) -> dict[str, Estimate | float | int]:
    """Return agreement, how many directions hold, and accuracy along each, from the harmless end to the harmful one."""
    summary = result.summary
    numbers: dict[str, Estimate | float | int] = {
        "real.agreement": rate(result.agrees),
        "real.largest_fall": result.largest_fall,
        "real.beyond_chance": int(result.is_beyond_chance),
    }
    if len(result.controls):
        numbers["real.controls_confirmed"] = rate(result.controls_confirmed)
    for key in ("directions", "confirmed", "distinct", "rising", "other_end", "generated_only", "untestable"):
        numbers[f"real.{key}"] = summary[key]
    for direction, dimension in enumerate(result.dimensions.tolist()):
        for part, accuracy in enumerate(result.accuracy(direction), start=1):
            numbers[f"real.accuracy_curve.s{dimension}.part{part}"] = accuracy
    return numbers


def _corruption_table(result: CorruptionTableResult) -> dict[str, Estimate | float | int]:
    return {
        f"corruption_table.{row['classifier']}.{row['corruption']}.{row['severity']}": Estimate(
            value=row["accuracy"], low=row["accuracy_low"], high=row["accuracy_high"], n=row["images"]
        )
        for row in result.table.to_pylist()
    }


@torch.no_grad()
def _quality(weights: Mapping[str, str]) -> dict[str, Estimate | float]:
    """Return Fréchet and kernel distance of samples from real images, and the Fréchet distance of other real ones."""
    oracle, generator = load_classifier(weights["mnist-oracle-corrupted"]), load_generator(weights["mnist-stylegan2"])
    space = generator.condition_space
    assert space is not None, "the embedded generator has one"
    rng = torch.Generator().manual_seed(_SEED)
    real, others = (
        torch.cat([penultimate_features(oracle, batch.x) for batch in load_images(spec).batches(_BATCH)])
        for spec in (_REAL, _OTHERS)
    )
    generated = torch.cat(
        [
            penultimate_features(
                oracle, to_8_bits(generator.sample(_BATCH, rng=rng, condition=space.sample(_BATCH, rng=rng)))
            )
            for _ in range(_GENERATED // _BATCH)
        ]
    )
    frechet, floor = frechet_distance(real, generated), frechet_distance(real, others)
    kid = kernel_distance(real, generated, rng=rng)
    return {"frechet": frechet, "floor": floor, "frechet_ratio": frechet / floor, "kid": kid}


def _of(summary: Mapping[str, float], key: str, n: int) -> Estimate:
    """Return what a summary holds of a number and its interval."""
    return Estimate(value=summary[key], low=summary[f"{key}_low"], high=summary[f"{key}_high"], n=n)
