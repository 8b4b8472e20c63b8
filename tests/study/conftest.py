import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch
from matplotlib.figure import Figure as Drawing

from failscape.classifiers import build_network, save_classifier
from failscape.errors import GeneratorError
from failscape.explain import METHODS, Method, Result
from failscape.figures import Figure, Plot
from failscape.generators import VAE, save_generator
from failscape.study import StudyConfig


@dataclass(frozen=True, kw_only=True)
class ProbeResult(Result):
    draw: torch.Tensor
    mean: float
    plotted: bool

    @property
    def summary(self) -> dict[str, float]:
        return {"mean": self.mean, "draw": float(self.draw), "nothing": float("nan")}

    @property
    def table(self) -> pa.Table:
        return pa.table({"image": list(range(len(self.images)))})

    @property
    def definitions(self) -> Mapping[str, str]:
        return {"mean": "mean grey value"}

    @property
    def figures(self) -> Sequence[Figure]:
        return [Plot(name="empty", title="", caption="", draw=Drawing)] if self.plotted else []


class Probe(Method[ProbeResult]):
    """Returns the images as they are and one random draw; counts how often it ran."""

    result_type: ClassVar[type[Result]] = ProbeResult
    runs: ClassVar[int] = 0

    def __init__(self, *, pause: float = 0.0, fails: bool = False, plot: bool = False) -> None:
        if pause < 0:
            raise ValueError(f"Expected `pause` >= 0, but got {pause}.")
        self.pause, self.fails, self.plot = pause, fails, plot

    def run(self, classifier: Any, generator: Any, x: Any, y: Any, *, ids: Any, rng: Any) -> ProbeResult:
        type(self).runs += 1
        time.sleep(self.pause)
        if self.fails:
            raise GeneratorError("Expected luck, but got none. Try again.")
        return ProbeResult(images=x, draw=torch.rand((), generator=rng), mean=float(x.mean()), plotted=self.plot)


def build_world(folder: Path) -> dict[str, Any]:
    """Save a tiny classifier, oracle, two VAEs and 30 labelled images; return a study of them."""
    shape = (1, 8, 8)
    for name, seed in (("classifier", 0), ("oracle", 1)):
        network = build_network("plain-cnn", seed=seed, image_shape=shape, num_classes=3, width=4)
        save_classifier(
            folder / f"{name}.safetensors",
            architecture="plain-cnn",
            sizes={"width": 4},
            state=network.state_dict(),
            class_names=("ant", "bee", "cat"),
            image_shape=shape,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_generator(VAE(image_shape=shape, latent_dim=2, hidden=(16,)), folder / "vae.safetensors")
        save_generator(VAE(image_shape=shape, latent_dim=3, hidden=(16,)), folder / "vae3.safetensors")
    rng = np.random.default_rng(0)
    np.savez(folder / "images.npz", x=rng.random((30, 8, 8), dtype=np.float32), y=np.arange(30) % 3)
    return {
        "name": "toy",
        "images": {"spec": str(folder / "images.npz")},
        "classifier": {"spec": str(folder / "classifier.safetensors")},
        "oracle": {"spec": str(folder / "oracle.safetensors")},
        "generator": {"spec": str(folder / "vae.safetensors")},
        "steps": [{"method": "probe", "name": "first"}, {"method": "probe", "name": "second"}],
    }


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> type[Probe]:
    monkeypatch.setitem(METHODS, "probe", Probe)
    monkeypatch.setattr(Probe, "runs", 0)
    return Probe


@pytest.fixture
def world(tmp_path: Path, probe: type[Probe]) -> dict[str, Any]:
    """A study as nested dictionaries, whose files lie in `tmp_path`."""
    return build_world(tmp_path)


@pytest.fixture
def config(world: dict[str, Any]) -> StudyConfig:
    return StudyConfig.from_mapping(world)
