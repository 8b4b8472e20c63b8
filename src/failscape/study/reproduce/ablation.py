"""What each part of the conditioning brings: trainings on the moons and on corrupted digits with parts left out."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import final

import torch
from matplotlib.figure import Figure as Drawing

from failscape.figures import Plot, rate_bars
from failscape.metrics import Estimate, mean_by_t
from failscape.study.reproduce import digits, moons
from failscape.study.reproduce.variant import Variant

MOONS, DIGITS = "moons", "digits"
"""What is ablated on, and the folders of its trainings."""

_ASSET = files("failscape") / "assets" / "ablations" / "uncertainty-conditioned-gan.json"

Rows = Mapping[str, Mapping[str, Sequence[float]]]
"""Name of each variant to its numbers, one a seed."""


@final
@dataclass(frozen=True, kw_only=True)
class Subject:
    """What generators are trained on with parts left out.

    Attributes:
        title: of the chart.
        told: what the chart's caption says of requests and trainings.
        variants: what is compared.
        numbers: the keys of what is measured.
        shown: name of each series of the chart to its key.
        seeds: of the trainings, and of the samples that are measured.
    """

    title: str
    told: str
    variants: Mapping[str, Variant]
    numbers: Sequence[str]
    shown: Mapping[str, str]
    seeds: Sequence[int]


SUBJECTS: Mapping[str, Subject] = {
    MOONS: Subject(
        title="What each part of the conditioning brings: two moons",
        told="Each generator trained in the same way but for what is said here; requests drawn from the data.",
        variants=moons.VARIANTS,
        numbers=("spearman", "mae", "mae_low", "class", "recall", "energy"),
        shown={
            "rank correlation": "spearman",
            "error": "mae",
            "error below 0.9": "mae_low",
            "class kept": "class",
            "recall": "recall",
        },
        seeds=(0, 1, 2),
    ),
    DIGITS: Subject(
        title="What each part of the conditioning brings: corrupted digits",
        told=f"Each generator trained in the same way on {digits.IMAGES:,} images, a fraction of what the embedded one "
        "saw, but for what is said here; requests spread evenly over classes and confidences from 0.5.",
        variants=digits.VARIANTS,
        numbers=(
            "spearman", "mae", "class", "oracle_spearman", "oracle_mae", "oracle_class", "frechet",
            "floor", "recall", "precision",
        ),
        shown={
            "rank correlation": "spearman",
            "rank correlation, oracle": "oracle_spearman",
            "error": "mae",
            "class kept": "class",
            "class, oracle": "oracle_class",
            "recall": "recall",
        },
        seeds=(0, 1),
    ),
}  # fmt: skip
"""Name of each to what is ablated on it."""

SECONDS_EACH: Mapping[str, float] = {
    f"{name}/{training}": seconds
    for name, seconds_of in ((MOONS, moons.ablation_seconds), (DIGITS, digits.ablation_seconds))
    for seed in SUBJECTS[name].seeds
    for training, seconds in seconds_of(seed).items()
}
"""Folder and name of each training, but for those that are always made, to how long it took."""


@final
@dataclass(frozen=True)
class Ablation:
    """The numbers of all variants.

    Attributes:
        rows: the numbers of each of `SUBJECTS`.
    """

    rows: Mapping[str, Rows]

    @property
    def metrics(self) -> dict[str, Estimate | float | int]:
        """The means over the seeds under the keys of `metrics.json`; of three or more with Student's intervals."""
        return {
            f"ablation.{subject}.{name}.{key}": _mean(row[key])
            for subject, rows in self.rows.items()
            for name, row in rows.items()
            for key in SUBJECTS[subject].numbers
        }

    @property
    def plots(self) -> Sequence[Plot]:
        """One chart of all variants for each of `SUBJECTS`."""
        return [
            Plot(
                name=f"ablation-{name}",
                title=SUBJECTS[name].title,
                caption=_caption(SUBJECTS[name], rows),
                draw=partial(_draw, SUBJECTS[name], rows, y_label=f"generator alone, {name}"),
            )
            for name, rows in self.rows.items()
        ]


def read_ablation() -> Ablation:
    """Return the numbers that the package ships; `run_ablation` made them."""
    return Ablation(rows=json.loads(_ASSET.read_text())["rows"])


def run_ablation(out: Path, *, classifier: str, oracle: str, progress: Callable[[str], None]) -> Ablation:
    """Train all variants, from each seed, and return what they reach.

    Args:
        out: holds a folder for each of `SUBJECTS`, and in it one numbered run folder a training; those that were cut
            off go on, complete ones are kept.
        classifier: spec of the classifier of corrupted digits.
        oracle: spec of another one, which no training sees.
        progress: is told in a line what is being done.
    """

    def on_moons(seed: int) -> Mapping[str, Mapping[str, float]]:
        results = moons.moons_ablation(out / MOONS, seed=seed, progress=progress)
        return {name: _without_intervals(result.metrics, prefix=f"{MOONS}.") for name, result in results.items()}

    def on_digits(seed: int) -> Mapping[str, Mapping[str, float]]:
        folder = out / DIGITS
        return digits.digits_ablation(folder, classifier=classifier, oracle=oracle, seed=seed, progress=progress)

    return Ablation(rows={MOONS: _rows(MOONS, on_moons), DIGITS: _rows(DIGITS, on_digits)})


def _rows(subject: str, measured: Callable[[int], Mapping[str, Mapping[str, float]]]) -> Rows:
    """Return the numbers of a subject, of which `measured` returns those of a seed for each variant."""
    told = SUBJECTS[subject]
    by_seed = [measured(seed) for seed in told.seeds]
    return {name: {key: [numbers[name][key] for numbers in by_seed] for key in told.numbers} for name in told.variants}


def _mean(values: Sequence[float]) -> Estimate | float:
    # An interval from two values reaches so far beyond what a rate can be that it says nothing.
    return mean_by_t(torch.tensor(values, dtype=torch.float64)) if len(values) > 2 else fmean(values)


def _without_intervals(numbers: Mapping[str, Estimate | float | int], *, prefix: str) -> dict[str, float]:
    return {
        key.removeprefix(prefix): float(number.value if isinstance(number, Estimate) else number)
        for key, number in numbers.items()
    }


def _caption(subject: Subject, rows: Rows) -> str:
    variants = "; ".join(f"{name}: {subject.variants[name].title}" for name in rows)
    caption = (
        f"{subject.told} Means over {len(subject.seeds)} seeds. {variants[0].upper()}{variants[1:]}. Error: mean "
        "absolute difference of requested and obtained confidence; lower is better. Class kept: share that the "
        "classifier takes for the class asked for. Recall: share of the real ones that samples cover."
    )
    if "frechet" not in subject.numbers:
        return caption
    distances = ", ".join(f"{name} {fmean(row['frechet']):.2f}" for name, row in rows.items())
    return f"{caption} Fréchet distance in the oracle's features, which has no upper end: {distances}."


def _draw(subject: Subject, rows: Rows, *, y_label: str) -> Drawing:
    rates = {label: [max(0.0, fmean(row[key])) for row in rows.values()] for label, key in subject.shown.items()}
    return rate_bars(rates, groups=list(rows), y_label=y_label)
