"""What each part of the conditioning brings: the training on the moons with parts left out."""

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
from failscape.study.reproduce.moons import VARIANTS, ablation_seconds, moons_ablation

_ASSET = files("failscape") / "assets" / "ablations" / "uncertainty-conditioned-gan.json"
_NUMBERS = ("spearman", "mae", "mae_low", "class", "recall", "energy")
# Of the trainings, and of the samples that are measured.
_SEEDS = (0, 1, 2)

SECONDS_EACH: Mapping[str, float] = {
    name: seconds for seed in _SEEDS for name, seconds in ablation_seconds(seed).items()
}
"""Name of each training, but for those that are always made, to how long it took."""


@final
@dataclass(frozen=True)
class Ablation:
    """The numbers of all variants.

    Attributes:
        rows: name of each variant, a key of `VARIANTS`, to its numbers, one a seed.
    """

    rows: Mapping[str, Mapping[str, Sequence[float]]]

    @property
    def metrics(self) -> dict[str, Estimate | float | int]:
        """The means over the seeds under the keys of `metrics.json`, with Student's intervals."""
        return {
            f"ablation.{name}.{key}": mean_by_t(torch.tensor(row[key], dtype=torch.float64))
            for name, row in self.rows.items()
            for key in _NUMBERS
        }

    @property
    def plots(self) -> Sequence[Plot]:
        """One chart of all variants."""
        told = "; ".join(f"{name}: {VARIANTS[name].title}" for name in self.rows)
        return [
            Plot(
                name="ablation",
                title="What each part of the conditioning brings",
                caption="On the two moons, each generator trained in the same way but for what is said here, requests "
                f"drawn from the data; means over {len(_SEEDS)} seeds. {told[0].upper()}{told[1:]}. Error: mean "
                "absolute difference of requested and "
                "obtained confidence, below 0.9 and over all requests; lower is better. Class kept: share that the "
                "classifier takes for the class asked for. Recall: share of real points that samples cover.",
                draw=partial(_draw, self.rows),
            )
        ]


def read_ablation() -> Ablation:
    """Return the numbers that the package ships; `run_ablation` made them."""
    return Ablation(rows=json.loads(_ASSET.read_text())["rows"])


def run_ablation(out: Path, *, progress: Callable[[str], None]) -> Ablation:
    """Train all variants, from each seed, and return what they reach.

    Args:
        out: holds one numbered run folder a training; those that were cut off go on, complete ones are kept.
        progress: is told in a line what is being done.
    """
    rows: dict[str, dict[str, list[float]]] = {name: {key: [] for key in _NUMBERS} for name in VARIANTS}
    for seed in _SEEDS:
        for name, result in moons_ablation(out, seed=seed, progress=progress).items():
            numbers = result.metrics
            for key, values in rows[name].items():
                number = numbers[f"moons.{key}"]
                values.append(float(number.value if isinstance(number, Estimate) else number))
    return Ablation(rows=rows)


def _draw(rows: Mapping[str, Mapping[str, Sequence[float]]]) -> Drawing:
    shown = {
        "rank correlation": "spearman",
        "error": "mae",
        "error below 0.9": "mae_low",
        "class kept": "class",
        "recall": "recall",
    }
    rates = {label: [max(0.0, fmean(row[key])) for row in rows.values()] for label, key in shown.items()}
    return rate_bars(rates, groups=list(rows), y_label="generator alone, moons")
