import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from failscape import load_classifier, load_generator
from failscape.data import load_images
from failscape.data.moons import images_to_points, points_to_images
from failscape.metrics import Estimate
from failscape.study.reproduce import moons
from failscape.study.reproduce.moons import MoonsResult, energy_distance, moons_ablation, run_moons
from failscape.training.augmentation import jitter


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def result(n: int = 40) -> MoonsResult:
    """Every request is missed by 0.2, those below 0.9 by 0.1; every fourth point is taken for the other class."""
    requested = torch.linspace(0.6, 1, n)
    missed = torch.where(requested < 0.9, 0.1, 0.2)
    asked = torch.arange(n) % 2
    points = torch.randn(3, n, 2, generator=rng())
    return MoonsResult(
        real=points[0],
        asked=asked,
        requested=requested,
        generated=points[0] + torch.tensor([30.0, 40.0]),
        predicted=torch.where(torch.arange(n) % 4 == 0, 1 - asked, asked),
        obtained=requested - missed,
        others=points[2],
    )


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both trainings see a few batches only."""
    for name, less in (
        ("classifier_settings", {"images": 2560, "warmup": 0}),
        ("generator_settings", {"images": 512, "validation": "none"}),
    ):
        whole = getattr(moons, name)
        monkeypatch.setattr(moons, name, lambda *given, whole=whole, less=less: whole(*given).model_copy(update=less))


class TestMetrics:
    def test_numbers_are_those_of_the_tensors(self) -> None:
        numbers = result().metrics
        low = int((result().requested < 0.9).sum())
        expected = {"mae": ((0.1 * low + 0.2 * (40 - low)) / 40, 40), "mae_low": (0.1, low), "class": (0.75, 40)}
        for name, (value, n) in expected.items():
            estimate = numbers[f"moons.{name}"]
            assert isinstance(estimate, Estimate)
            assert (estimate.value, estimate.n) == (pytest.approx(value), n)
        # What is moved as a whole by (30, 40) has the squared distance 2500 and nothing in common with where it was.
        assert numbers["moons.frechet"] == pytest.approx(2500, rel=1e-4)
        for name in ("precision", "recall"):
            share = numbers[f"moons.{name}"]
            assert isinstance(share, Estimate)
            assert (share.value, share.n) == (0, 40)
        rho = spearmanr(result().requested, result().obtained).statistic
        assert numbers["moons.spearman"] == pytest.approx(rho, abs=1e-4)
        assert numbers["moons.spearman"] < 0.99

    def test_energy_distance_of_known_distributions(self) -> None:
        one, other = torch.randn(2, 4000, 1, generator=rng())
        assert energy_distance(one, other) == pytest.approx(0, abs=3e-3)
        # E|x - y| of normal distributions a apart: that of one normal distribution N(a, 2).
        a = 1.5
        between = 2 * math.exp(-(a**2) / 4) / math.sqrt(math.pi) + a * math.erf(a / 2)
        assert energy_distance(one, other + a) == pytest.approx(2 * between - 4 / math.sqrt(math.pi), abs=0.05)

    def test_a_collapsed_generator_is_told_by_its_distance_and_recall(self) -> None:
        points = images_to_points(load_images("moons").x)
        sure = torch.full((2000,), 0.99)
        labels = torch.zeros(2000, dtype=torch.long)
        fixed = {"asked": labels, "predicted": labels, "requested": sure, "obtained": sure}
        half = MoonsResult(
            real=points[:2000], generated=points[2000:4000] * torch.tensor([1.0, 0.2]), others=points[-2000:], **fixed
        )
        assert half.metrics["moons.energy"] > 20 * abs(half.metrics["moons.energy_floor"])
        assert half.metrics["moons.frechet"] > 20 * half.metrics["moons.frechet_floor"]
        assert half.metrics["moons.recall"].high < 0.6


class TestPlots:
    def test_points_are_coloured_by_what_was_requested_least_sure_on_top(self) -> None:
        drawn, shown = result(), result().plots[0].draw()
        for ax, points in zip(shown.axes, (drawn.real, drawn.generated), strict=False):
            (dots,) = ax.collections
            assert np.allclose(dots.get_array(), drawn.requested.flip(0))
            assert np.allclose(dots.get_offsets(), points.flip(0))
            assert dots.get_clim() == (0.5, 1.0)

    def test_requests_lie_where_they_were_obtained(self) -> None:
        drawn, shown = result(), result().plots[1].draw()
        dots = shown.axes[0].lines[1].get_xydata()
        assert np.allclose(dots, torch.stack([drawn.requested, drawn.obtained], dim=1))
        assert [plot.name for plot in drawn.plots] == ["moons-points", "moons-requests"]


@pytest.mark.usefixtures("tiny")
class TestRun:
    def test_it_trains_once_and_measures_what_the_classifier_says(self, tmp_path: Path) -> None:
        told: list[str] = []
        first = run_moons(tmp_path, progress=told.append)
        assert [line.split(":")[0] for line in told] == ["moons-classifier-seed0", "moons-generator-seed0"]
        again = run_moons(tmp_path, progress=told.append)
        assert all("trained before" in line for line in told[2:])
        for name in ("real", "requested", "generated", "obtained"):
            assert torch.equal(getattr(first, name), getattr(again, name))

        classifier = load_classifier(tmp_path / "00001-moons-classifier-seed0")
        for points, confidence, labels in (
            (first.real, first.requested, first.asked),
            (first.generated, first.obtained, first.predicted),
        ):
            probs = classifier.probs(points_to_images(points))
            assert torch.allclose(probs.amax(dim=1), confidence, atol=1e-4)
            assert torch.equal(probs.argmax(dim=1)[confidence > 0.501], labels[confidence > 0.501])
        assert len(first.real) == 5000
        generator = load_generator(tmp_path / "00002-moons-generator-seed0")
        assert (generator.family, generator.latent_dim) == ("mlp", 8)

    def test_a_seed_decides_everything_drawn(self, tmp_path: Path) -> None:
        one, other = run_moons(tmp_path, seed=1), run_moons(tmp_path, seed=2)
        assert torch.equal(one.real, other.real)
        assert not torch.equal(one.requested, other.requested)
        assert not torch.equal(one.generated, other.generated)

    def test_variants_share_the_classifier_and_differ_from_ours_in_what_they_say(self, tmp_path: Path) -> None:
        told: list[str] = []
        ours = run_moons(tmp_path)
        results = moons_ablation(tmp_path, progress=told.append)
        assert list(results) == list(moons.VARIANTS)
        assert [f"{'before' if 'before' in line else 'training'}" for line in told] == [
            "before", "training", "training", "before", "training", "training",
        ]  # fmt: skip
        for name, variant in results.items():
            # Without its temperature the same classifier is of another confidence.
            assert torch.equal(variant.requested, ours.requested) == (name != "uncalibrated")
            assert torch.equal(variant.generated, ours.generated) == (not moons.VARIANTS[name].changes)
        names = ("scalar", "projected", "vector", "uncalibrated")
        configs = [load_generator(next(tmp_path.glob(f"*-moons-{name}-*"))).condition_space for name in names]
        assert [(space.score, space.embedding) for space in configs if space is not None] == [
            ("confidence", "scalar"), ("confidence", "fourier"), ("vector", "fourier"), ("confidence", "fourier"),
        ]  # fmt: skip


def test_a_point_has_no_neighbours_to_be_shifted_to() -> None:
    x = load_images("moons").x[:50]
    assert torch.allclose(jitter(x, rng=rng()), x, atol=1e-6)


@pytest.mark.slow
def test_requests_are_met_and_the_points_look_like_moons(tmp_path: Path) -> None:
    before = time.process_time()
    result = run_moons(tmp_path)
    numbers = result.metrics
    # Of one thread's work; how long that takes on a busy machine is not its fault.
    assert time.process_time() - before < 120
    mae, mae_low = numbers["moons.mae"], numbers["moons.mae_low"]
    assert isinstance(mae, Estimate)
    assert isinstance(mae_low, Estimate)
    assert numbers["moons.spearman"] >= 0.97
    assert mae.high <= 0.03
    assert mae_low.high <= 0.06
    # Of the points' own variance. The floor is that of 5,000 points against 5,000, and a multiple of it is chance.
    assert numbers["moons.frechet"] < 0.005 * result.real.var(dim=0).sum()
    assert numbers["moons.energy"] < 0.003
    assert numbers["moons.recall"].value > 0.9
