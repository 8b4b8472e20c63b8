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
from failscape.figures import Plot, bar_panels
from failscape.generators import Autoencoder, load_generator
from failscape.storage import latest_run_folder, read_json
from failscape.study.reproduce.weights import train_by
from failscape.training import (
    AnySettings,
    GeneratorEvaluation,
    IntroVAESettings,
    VAEGANSettings,
    VAESettings,
    WGANSettings,
)

SECONDS = 500
"""For how long each family is trained: it sees as many images as a trial says that it can in this time."""

# The part of its recipe's images that a trial takes; what begins at a part of a training does so in it, too.
_TRIAL = 0.05

_ASSET = files("failscape") / "assets" / "ablations" / "synthetic-data-generation.json"
_NUMBERS = ("frechet", "recall", "reconstruction", "parameters", "images_per_second", "images", "seconds")
_SEED = 5
_BATCH = 500

# What all are told alike. The weights of the losses are each family's defaults. Evaluated below, all in the same way.
_SHARED: Mapping[str, Any] = {
    "data": "fashion-mnist:train",
    "validation": "none",
    "ema_half_life": 10_000,
    "checkpoint_every": 50_000,
    "bf16": False,
}
# Few channels and small batches, for there to be some thousand steps in so short a time.
_CONVOLUTIONS: Mapping[str, Any] = {
    **_SHARED,
    "batch": 32,
    "channels": (32, 16, 8),
    "latent_dim": 64,
}

# `images` are what each saw in about `SECONDS` on one core; how many it is now is found by a trial.
RECIPES: Mapping[str, AnySettings] = {
    "wgan": WGANSettings(name="families-wgan", images=400_000, critic_steps=2, drift=1e-3, **_CONVOLUTIONS),
    "progressive": WGANSettings(
        name="families-progressive",
        family="progressive",
        images=376_000,
        critic_steps=2,
        drift=1e-3,
        **_CONVOLUTIONS,
    ),
    "vae-gan": VAEGANSettings(name="families-vae-gan", images=300_800, **_CONVOLUTIONS),
    "intro-vae": IntroVAESettings(name="families-intro-vae", images=400_000, **_CONVOLUTIONS),
    "vae": VAESettings(name="families-vae", images=5_350_400, latent_dim=16, **_SHARED),
}
"""How each family is trained."""

SECONDS_EACH: Mapping[str, float] = {recipe.name: SECONDS * (1 + _TRIAL) for recipe in RECIPES.values()}
"""Name of each training to how long it takes, its trial counted."""


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
        """One figure of all families and all their numbers."""
        return [
            Plot(
                name="families",
                title="The families of generators, each trained for the same time",
                caption=f"On Fashion-MNIST, {SECONDS} seconds of one core each, as far as a trial could tell: see the "
                "last panel. The critics of wgan and progressive make 2 steps to one of the generator, where the "
                "papers have 5 and 1, and are held against drift. Fréchet distance in the oracle's features, and its "
                "floor, that of training images in place of samples. Error: root mean squared difference of a pixel "
                "between test images and their reconstructions. Lower is better in both. Recall: share of test images "
                "that samples cover, higher is better. Parameters of all networks; images that the training saw in a "
                "second, and in all.",
                draw=partial(_draw, self),
            )
        ]


def read_families() -> Families:
    """Return the numbers that the package ships; `run_families` made them."""
    shipped = json.loads(_ASSET.read_text())
    return Families(rows=shipped["rows"], floor=shipped["floor"])


def run_families(oracle: str, out: Path, *, progress: Callable[[str], None] = lambda message: None) -> Families:
    """Train all families for `SECONDS` each, and return what they reach on the test images.

    How many images that is depends on the machine, and is found by a short trial of each, just before.

    Args:
        oracle: spec of the classifier in whose features distances are measured.
        out: holds one numbered run folder a training; those that were cut off go on, complete ones are kept.
        progress: is told in a line what is being done.

    Raises:
        FailscapeError: what the trainings raise.
    """
    trained = {
        name: train_by(_paced(recipe, out, progress=progress), out, progress=progress)
        for name, recipe in RECIPES.items()
    }
    progress("measuring the families")
    return measure_families(trained, load_images("fashion-mnist:test"), load_images("fashion-mnist:train"), oracle)


def _paced(recipe: AnySettings, out: Path, *, progress: Callable[[str], None]) -> AnySettings:
    """Return a recipe with as many images as it sees in `SECONDS`; one that was begun keeps what it began with."""
    if latest_run_folder(out, recipe.name) is not None:
        return recipe
    short = recipe.model_copy(
        update={"name": f"{recipe.name}-trial", "images": _whole_batches(_TRIAL * recipe.images, recipe.batch)}
    )
    speed = _reached(train_by(short, out, progress=progress))["images_per_second"]
    return recipe.model_copy(update={"images": _whole_batches(SECONDS * speed, recipe.batch)})


def _whole_batches(images: float, batch: int) -> int:
    return batch * max(1, round(images / batch))


def _reached(run: Path) -> dict[str, float]:
    reached: dict[str, float] = read_json(run / "generator.json")["provenance"]["reached"]
    return reached


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
        quality = evaluation(generator)
        reached = _reached(run)
        rows[name] = {
            "frechet": quality["frechet"],
            "recall": quality["recall"],
            "reconstruction": _reconstruction(generator, test),
            "parameters": float(sum(each.numel() for each in generator.parameters())),
            "images_per_second": reached["images_per_second"],
            "images": float(round(reached["images_per_second"] * reached["seconds"])),
            "seconds": reached["seconds"],
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
    titles = {
        "frechet": "Fréchet distance",
        "recall": "recall",
        "reconstruction": "error of reconstruction",
        "parameters": "parameters, thousands",
        "images_per_second": "images a second",
        "images": "images seen, thousands",
        "seconds": "seconds of training",
    }
    values = {title: [row[key] for row in families.rows.values()] for key, title in titles.items()}
    for key in ("parameters", "images"):
        values[titles[key]] = [count / 1000 for count in values[titles[key]]]
    return bar_panels(values, names=list(families.rows), references={titles["frechet"]: ("floor", families.floor)})
