import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from failscape import load_generator, load_images
from failscape.generators import VAE, save_generator
from failscape.study.reproduce import families
from failscape.study.reproduce.families import RECIPES, Families, measure_families, read_families, run_families
from failscape.training import TrainingSettings

KEYS = {"frechet", "recall", "reconstruction", "parameters", "images_per_second", "images", "seconds"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two autoencoders, as trainings leave them: an embedded one, and one of random weights."""
    folder = tmp_path_factory.mktemp("families")
    random = VAE(image_shape=(1, 28, 28), latent_dim=2, hidden=(4,))
    embedded = load_generator("embedded:mnist-vae-10d")
    for name, generator, speed in (("vae", embedded, 1000.0), ("random", random, 7.0)):
        save_generator(generator, folder / name, provenance={"reached": {"images_per_second": speed, "seconds": 70.0}})
    return {name: folder / name for name in ("vae", "random")}


class TestMeasured:
    @pytest.fixture(scope="class")
    @classmethod
    def measured(cls, trained: dict[str, Path]) -> Families:
        digits = load_images("embedded:mnist-test")
        halves = digits.select(torch.arange(600)), digits.select(torch.arange(600, 1200))
        return measure_families(trained, *halves, "embedded:mnist-oracle-clean")

    def test_the_trained_one_is_better_in_every_way(self, measured: Families) -> None:
        good, bad = measured.rows["vae"], measured.rows["random"]
        assert measured.floor < good["frechet"] < bad["frechet"]
        assert good["recall"] > bad["recall"]
        assert good["reconstruction"] < bad["reconstruction"]
        assert (good["images_per_second"], good["seconds"], good["images"]) == (1000, 70, 70_000)

    def test_numbers_by_hand(self, measured: Families, trained: dict[str, Path]) -> None:
        x, generator = (
            load_images("embedded:mnist-test").read(torch.arange(600)),
            load_generator(str(trained["random"])),
        )
        with torch.no_grad():
            error = (generator(generator.encode(x)) - x).square().mean().sqrt()
        assert measured.rows["random"]["reconstruction"] == pytest.approx(float(error), rel=1e-4)
        # 784 values to 4, to mean and log-variance of 2; 2 to 4, to 784.
        assert measured.rows["random"]["parameters"] == (784 * 4 + 4) + (4 * 4 + 4) + (2 * 4 + 4) + (4 * 784 + 784)

    def test_every_number_has_its_key(self, measured: Families) -> None:
        numbers = measured.metrics
        assert numbers.pop("families.floor") == measured.floor
        assert set(numbers) == {f"families.{name}.{key}" for name in ("vae", "random") for key in KEYS}

    def test_they_are_drawn(self, measured: Families) -> None:
        (plot,) = measured.plots
        assert str(families.SECONDS) in plot.caption
        assert {RECIPES[name].critic_steps for name in ("wgan", "progressive")} == {2}
        assert "make 2 steps to one of the generator" in plot.caption
        drawing = plot.draw()
        drawing.canvas.draw()
        # A panel a number, each with both families, and the floor.
        shown = [ax for ax in drawing.axes if ax.get_visible()]
        assert len(shown) == len(KEYS)
        assert all(len(ax.patches) == 2 for ax in shown)
        assert "floor" in shown[0].get_legend().get_texts()[0].get_text()


class TestShipped:
    def test_every_family_has_its_numbers(self) -> None:
        shipped = read_families()
        assert list(shipped.rows) == list(RECIPES)
        assert all(set(row) == KEYS for row in shipped.rows.values())
        assert all(row["frechet"] > shipped.floor > 0 for row in shipped.rows.values())

    def test_all_were_trained_for_about_the_same_time(self) -> None:
        for name, row in read_families().rows.items():
            assert row["seconds"] == pytest.approx(families.SECONDS, rel=0.1), name
            assert row["images"] == pytest.approx(row["seconds"] * row["images_per_second"], rel=1e-3)

    def test_the_docs_state_them(self) -> None:
        page = (Path(__file__).parents[2] / "docs" / "reproduce.md").read_text()
        shipped = read_families()
        assert f"floor, {shipped.floor:.3f}" in page
        for name, row in shipped.rows.items():
            cells = (f"{row['frechet']:.3f}", f"{row['recall']:.3f}", f"{row['reconstruction']:.3f}")
            assert f"| `{name}` | {' | '.join(cells)} |" in page
            assert any(
                f"| `{name}` |" in line and line.endswith(f" {row['images']:,.0f} | {row['seconds']:.0f} |")
                for line in page.splitlines()
            )

    def test_its_origin_is_told(self) -> None:
        told = json.loads((files("failscape") / "assets" / "ablations" / "synthetic-data-generation.json").read_text())
        assert told["recipe"] == "failscape.study.reproduce.families.RECIPES"
        assert "--retrain" in told["made_by"]


def test_all_recipes_are_trained_and_measured_alike(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[TrainingSettings] = []

    def train(settings: TrainingSettings, out: Path, *, progress: object) -> Path:
        asked.append(settings)
        return trained["vae"]

    # Stands for twenty minutes of training, and for garments that need not be at hand.
    digits = load_images("embedded:mnist-test").select(torch.arange(400))
    monkeypatch.setattr(families, "train_by", train)
    monkeypatch.setattr(families, "load_images", lambda spec: digits)
    (tmp_path / "00001-families-wgan").mkdir()
    (tmp_path / "00001-families-wgan" / "generator.json").touch()
    found = run_families("embedded:mnist-oracle-clean", tmp_path)
    # Each is tried first, to find how many images it may see in the time: the trials here saw 1,000 a second.
    trials = [settings for settings in asked if settings.name.endswith("-trial")]
    assert [trial.name for trial in trials] == [f"{RECIPES[name].name}-trial" for name in RECIPES if name != "wgan"]
    told = [settings for settings in asked if settings not in trials]
    assert told[0] == RECIPES["wgan"]
    for trial, settings, recipe in zip(trials, told[1:], list(RECIPES.values())[1:], strict=True):
        assert trial.images == pytest.approx(recipe.images / 20, abs=recipe.batch)
        assert settings.images == pytest.approx(1000 * families.SECONDS, abs=recipe.batch)
        assert trial.images % recipe.batch == settings.images % recipe.batch == 0
        for told_alike in (trial, settings):
            changed = told_alike.model_dump().items() ^ recipe.model_dump().items()
            assert {key for key, _ in changed} <= {"name", "images"}
    assert list(found.rows) == list(RECIPES)
    assert found.rows["wgan"] == found.rows["vae"]
