from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from failscape.classifiers import build_network, save_classifier
from failscape.errors import ConfigError
from failscape.explain import CorruptionTableResult, LatentAccuracyResult, StyleDifferenceResult, load_result
from failscape.generators import ConditionSpace, StyleGAN2, save_generator
from failscape.report import write_report
from failscape.study import read_steps, run_study
from failscape.study.comparison import comparison_study

SHAPE, NAMES = (1, 8, 8), ("ant", "bee", "cat")
SMALL: dict[str, dict[str, Any]] = {
    "latent-accuracy": {"samples": 60, "influence_samples": 30, "top": 4, "bins": 2, "smallest_bin": 1, "shown": 2},
    "corruption-table": {"samples": 6, "corruptions": ["contrast", "shot_noise"]},
    "style-difference": {"samples": 30, "top": 1},
}


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three tiny classifiers, each less sure than the one before, images, and a generator with styles."""
    monkeypatch.chdir(tmp_path)
    network = build_network("plain-cnn", seed=0, image_shape=SHAPE, num_classes=3, width=4)
    for temperature, name in enumerate("ABC", start=1):
        save_classifier(
            Path(name),
            architecture="plain-cnn",
            sizes={"width": 4},
            state=network.state_dict(),
            temperature=float(temperature),
            class_names=NAMES,
            image_shape=SHAPE,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        space = ConditionSpace(num_classes=3).config
        sizes = {"channels": (4, 4), "latent_dim": 4, "style_dim": 8}
        save_generator(StyleGAN2(image_shape=SHAPE, condition=space, **sizes), Path("gan"))
    rng = np.random.default_rng(0)
    np.savez("images.npz", x=rng.random((12, 8, 8), dtype=np.float32), y=np.arange(12) % 3)
    return ["A", "B", "C"]


def test_every_step_compares_the_first_with_all_others(models: list[str], tmp_path: Path) -> None:
    study = comparison_study(models, images="images.npz", generator="gan", oracle="B", limit=8, settings=SMALL)
    run = run_study(study, out=tmp_path / "runs")
    steps = read_steps(run)
    assert [(step["method"], step["status"], step["compared_with"]) for step in steps] == [
        ("latent-accuracy", "done", ["B", "C"]),
        ("corruption-table", "done", ["B", "C"]),
        ("style-difference", "done", ["B", "C"]),
    ]
    results = [load_result(run / "steps" / step["folder"]) for step in steps]
    for result, kind in zip(results, (LatentAccuracyResult, CorruptionTableResult, StyleDifferenceResult), strict=True):
        assert isinstance(result, kind)
        assert result.classifiers == ("A", "B", "C")  # type: ignore[attr-defined]
        assert result.verification is not None
        assert result.verification.oracle_probs is not None
    page = write_report(run).read_text()
    assert "<h1>A, B and C, compared</h1>" in page
    assert "How they fail" in page


@pytest.mark.parametrize("classifiers", [[], ["A"], ["A", "B", "A"]])
def test_a_comparison_needs_two_different_classifiers(classifiers: list[str]) -> None:
    with pytest.raises(ConfigError, match="at least two different classifiers"):
        comparison_study(classifiers, images="images.npz", generator="gan")


def test_all_images_are_taken_right_and_wrong_ones_alike() -> None:
    study = comparison_study(["A", "B"], images="i", generator="g")
    assert (study.images.only, study.images.limit, study.oracle) == ("all", None, None)
