"""All families of generators, trained on the same garments for the same time."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, final

import torch
from matplotlib.figure import Figure as Drawing

from failscape.classifiers import load_classifier
from failscape.data import ImageSet, load_images
from failscape.figures import Plot, rate_bars
from failscape.generators import Autoencoder, load_generator
from failscape.storage import read_json
from failscape.study.reproduce.weights import say_how_long, train_by
from failscape.training import (
    AnySettings,
    GeneratorEvaluation,
    IntroVAESettings,
    VAEGANSettings,
    VAESettings,
    WGANSettings,
)

SECONDS = 120
"""For how long each family is trained, about, on one core of the machine that the shipped numbers come from."""

_ASSET = files("failscape") / "assets" / "ablations" / "synthetic-data-generation.json"
_NUMBERS = ("frechet", "recall", "reconstruction", "parameters", "images_per_second")
_SEED = 5
_BATCH = 500

# What all are told alike. The weights of the losses are each family's defaults. Evaluated below, all in the same way.
_SHARED: Mapping[str, Any] = {
    "data": "fashion-mnist:train",
    "validation": "none",
    "ema_half_life": 5_000,
    "checkpoint_every": 10_000,
}
# Few channels and small batches, for there to be some hundred steps in so short a time.
_CONVOLUTIONS: Mapping[str, Any] = {
    **_SHARED,
    "batch": 32,
    "channels": (32, 16, 8),
    "latent_dim": 64,
    "bf16": False,
}

# `images` are what each sees in about `SECONDS`, by a short training before.
RECIPES: Mapping[str, AnySettings] = {
    "wgan": WGANSettings(name="families-wgan", images=24_960, critic_steps=2, **_CONVOLUTIONS),
    "progressive": WGANSettings(
        name="families-progressive", family="progressive", images=24_960, critic_steps=2, **_CONVOLUTIONS
    ),
    "vae-gan": VAEGANSettings(name="families-vae-gan", images=16_320, **_CONVOLUTIONS),
    "intro-vae": IntroVAESettings(name="families-intro-vae", images=21_600, **_CONVOLUTIONS),
    "vae": VAESettings(name="families-vae", images=435_200, latent_dim=16, learning_rate=1.5e-3, **_SHARED),
}
"""How each family is trained."""


@final
@dataclass(frozen=True)
class Families:
    """The numbers of all families.

    Attributes:
        rows: name of each family, a key of `RECIPES`, to its numbers.
        floor: Fréchet distance of training images from the same test images, in place of generated ones.
    """

    rows: Mapping[str, Mapping[str, float]]
    floor: float

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers under the keys of `metrics.json`."""
        numbers = {f"families.{name}.{key}": row[key] for name, row in self.rows.items() for key in _NUMBERS}
        return numbers | {"families.floor": self.floor}

    @property
    def plots(self) -> Sequence[Plot]:
        """One chart of all families."""
        return [
            Plot(
                name="families",
                title="The families of generators, each trained for the same time",
                caption=f"On Fashion-MNIST, about {SECONDS} seconds each on one core. Distance: Fréchet distance in "
                "the oracle's features, as a part of the largest. Error: root of the mean squared difference of a "
                "pixel between test images and their reconstructions. Lower is better in both. Recall: share of test "
                "images that samples cover, higher is better.",
                draw=partial(_draw, self),
            )
        ]


def read_families() -> Families:
    """Return the numbers that the package ships; `run_families` made them."""
    shipped = json.loads(_ASSET.read_text())
    return Families(rows=shipped["rows"], floor=shipped["floor"])


def run_families(oracle: str, out: Path, *, progress: Callable[[str], None] = lambda message: None) -> Families:
    """Train all families, which takes about `SECONDS` each, and return what they reach on the test images.

    Args:
        oracle: spec of the classifier in whose features distances are measured.
        out: holds one numbered run folder a training; those that were cut off go on, complete ones are kept.
        progress: is told in a line what is being done.

    Raises:
        FailscapeError: what the trainings raise.
    """
    say_how_long({recipe.name: float(SECONDS) for recipe in RECIPES.values()}, out, progress=progress)
    trained = {name: train_by(recipe, out, progress=progress) for name, recipe in RECIPES.items()}
    progress("measuring the families")
    return measure_families(trained, load_images("fashion-mnist:test"), load_images("fashion-mnist:train"), oracle)


@torch.no_grad()
def measure_families(trained: Mapping[str, Path], test: ImageSet, training: ImageSet, oracle: str) -> Families:
    """Measure all in the same way, on fresh samples and on test images.

    Args:
        trained: name of each family to the run folder of its training.
        test: images that none has seen, the first 10,000 of which count.
        training: images that they learnt from.
        oracle: as for `run_families`.
    """
    evaluation = GeneratorEvaluation(test, training, classifier=None, oracle=load_classifier(oracle), seed=_SEED)
    rows = {}
    for name, run in trained.items():
        generator = load_generator(str(run))
        assert isinstance(generator, Autoencoder), "every family has an encoder"
        quality = evaluation.quality(generator)
        reached = read_json(run / "generator.json")["provenance"]["reached"]
        rows[name] = {
            "frechet": quality["frechet"],
            "recall": quality["recall"],
            "reconstruction": _reconstruction(generator, test),
            "parameters": float(sum(each.numel() for each in generator.parameters())),
            "images_per_second": float(reached["images_per_second"]),
        }
    return Families(rows=rows, floor=evaluation.floor)


def _reconstruction(generator: Autoencoder, images: ImageSet) -> float:
    """Return the root of the mean squared difference of a pixel between images and what is drawn of their latents."""
    squares = sum(
        float((generator(generator.encode(batch.x)) - batch.x).double().square().sum())
        for batch in images.batches(_BATCH)
    )
    return math.sqrt(squares / (len(images) * math.prod(images.image_shape)))


def _draw(families: Families) -> Drawing:
    rows = families.rows.values()
    largest = max(row["frechet"] for row in rows)
    rates = {
        "distance": [row["frechet"] / largest for row in rows],
        "error": [row["reconstruction"] for row in rows],
        "recall": [row["recall"] for row in rows],
    }
    return rate_bars(rates, groups=list(families.rows), y_label="garments")
