"""What each part of the conditioning brings: the same training with parts left out."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, final

from matplotlib.figure import Figure as Drawing

from failscape.figures import Plot, rate_bars
from failscape.metrics import Estimate
from failscape.storage import read_json
from failscape.study.reproduce.weights import train_by
from failscape.training import GANSettings, read_settings

_FOLDER = files("failscape") / "assets" / "ablations"
_NAME = "uncertainty-conditioned-gan"
# What each variant changes in the recipe, which is the full method in small.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "scalar": {"embedding": "scalar", "guidance": 0.0},
    "projected": {"guidance": 0.0},
    "guided": {},
    "vector": {"score": "vector"},
    "uncalibrated": {"calibrated": False},
}
_TITLES = {
    "scalar": "class and bare confidence, concatenated (the paper)",
    "projected": "embedded logit, projection",
    "guided": "the same, with guidance",
    "vector": "whole probability vector, with guidance",
    "uncalibrated": "as guided, classifier not calibrated",
}
_NUMBERS = ("spearman", "mean_error", "class", "oracle_spearman", "oracle_class", "frechet", "floor", "recall")


@final
@dataclass(frozen=True)
class Ablation:
    """The numbers of all variants.

    Attributes:
        rows: name of each variant to its numbers.
        images: seen by each in training.
    """

    rows: Mapping[str, Mapping[str, float]]
    images: int

    @property
    def metrics(self) -> dict[str, Estimate | float | int]:
        """The numbers under the keys of `metrics.json`."""
        numbers: dict[str, Estimate | float | int] = {"ablation.images": self.images}
        return numbers | {f"ablation.{name}.{key}": row[key] for name, row in self.rows.items() for key in _NUMBERS}

    @property
    def plots(self) -> Sequence[Plot]:
        """One chart of all variants."""
        told = "; ".join(f"{name}: {_TITLES[name]}" for name in self.rows)
        return [
            Plot(
                name="ablation",
                title="What each part of the conditioning brings",
                caption=f"Generator alone, a smaller network trained on {self.images:,} images each, requests spread "
                f"evenly over [0.5, 1). {told[0].upper()}{told[1:]}. The numbers, with Fréchet distance and recall, "
                "are in metrics.json under “ablation”.",
                draw=partial(_draw, self.rows),
            )
        ]


def read_ablation() -> Ablation:
    """Return the numbers that the package ships; `run_ablation` made them."""
    document = json.loads((_FOLDER / f"{_NAME}.json").read_text())
    return Ablation(rows=document["rows"], images=document["images"])


def run_ablation(out: Path, *, progress: Callable[[str], None]) -> Ablation:
    """Train all variants, which takes about a quarter of an hour each, and return what they reach.

    Args:
        out: holds one numbered run folder a variant; trainings that were cut off go on, complete ones are kept.
        progress: is told in a line what is being done.
    """
    with as_file(_FOLDER / f"{_NAME}.toml") as source:
        recipe = read_settings(source)
    assert isinstance(recipe, GANSettings)
    rows = {}
    for name, changes in VARIANTS.items():
        settings = GANSettings.parse(recipe.model_dump() | dict(changes) | {"name": f"ablation-{name}"})
        run = train_by(settings, out, progress=progress)
        reached = read_json(run / "generator.json")["provenance"]["reached"]
        rows[name] = {key: float(reached[key]) for key in _NUMBERS}
    return Ablation(rows=rows, images=recipe.images)


def _draw(rows: Mapping[str, Mapping[str, float]]) -> Drawing:
    shown = {"rank correlation": "spearman", "class kept": "class", "oracle agrees on class": "oracle_class"}
    rates = {label: [max(0.0, row[key]) for row in rows.values()] for label, key in shown.items()}
    return rate_bars(rates, groups=list(rows), y_label="generator alone")
