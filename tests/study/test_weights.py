import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from failscape import load_classifier, load_generator
from failscape.errors import SpecError
from failscape.generators import generator_provenance
from failscape.storage import latest_run_folder
from failscape.study.reproduce import weights
from failscape.study.reproduce.latent_sympathetic_examples import WEIGHTS
from failscape.study.reproduce.registry import REPRODUCTIONS
from failscape.study.reproduce.weights import recipe_names, recorded_seconds, say_how_long, train_embedded
from failscape.training import PolishSettings, VAESettings, read_settings
from failscape.training.classifier_task import ClassifierTask
from failscape.training.vae_task import VAETask

ASSETS = Path(str(files("failscape"))) / "assets"

COMMON = """
validation = "none"
images = 320
batch = 32
warmup = 32
ema_half_life = 32
evaluate_every = 160
checkpoint_every = 64
"""
KINDS = {
    "tiny-classifier": ('kind = "classifier"\nwidth = 4', ClassifierTask, load_classifier, "classifier"),
    "tiny-vae": ('kind = "vae"\nlatent_dim = 2\nhidden = [8]', VAETask, load_generator, "generator"),
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of two tiny recipes in place of the real one."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "some.npz", x=rng.random((64, 8, 8), dtype=np.float32), y=np.arange(64) % 2)
    recipes = tmp_path / "package" / "assets" / "recipes"
    recipes.mkdir(parents=True)
    for name, (kind, *_) in KINDS.items():
        (recipes / f"{name}.toml").write_text(f'name = "{name}"\ndata = "{tmp_path}/some.npz"\n{kind}{COMMON}')
    monkeypatch.setattr(weights, "files", lambda package: tmp_path / package.replace("failscape", "package"))
    return tmp_path


class TestEmbedded:
    def test_every_one_has_a_recipe(self) -> None:
        embedded = {path.stem for kind in ("classifiers", "generators") for path in (ASSETS / kind).glob("*.json")}
        assert set(recipe_names()) == embedded
        assert set(WEIGHTS) <= embedded

    @pytest.mark.parametrize("name", recipe_names())
    def test_every_one_was_made_by_its_recipe(self, name: str) -> None:
        (document,) = ASSETS.glob(f"*/{name}.json")
        provenance = json.loads(document.read_text())["provenance"]
        settings = read_settings(ASSETS / "recipes" / f"{name}.toml")
        assert settings.model_dump(mode="json").items() <= provenance["settings"].items()
        assert settings.name == name
        assert provenance["command"].endswith(f"train embedded {name}")
        assert provenance["reached"].keys() & {"accuracy", "elbo", "frechet", "reconstruction"}

    @pytest.mark.parametrize("name", REPRODUCTIONS)
    def test_each_is_made_after_the_classifiers_that_its_recipe_names(self, name: str) -> None:
        made = REPRODUCTIONS[name].WEIGHTS
        for number, weight in enumerate(made):
            settings = read_settings(ASSETS / "recipes" / f"{weight}.toml")
            specs = [getattr(settings, role, "none") for role in ("classifier", "oracle")]
            specs += [spec for spec in getattr(settings, "matched_by", ()) if not (ASSETS / "recipes" / spec).exists()]
            assert {spec.removeprefix("embedded:") for spec in specs if spec != "none"} <= set(made[:number])

    def test_how_long_each_took_is_on_record(self) -> None:
        seconds = {name: recorded_seconds(name) for name in recipe_names()}
        assert min(seconds.values()) > 0
        # As the recipe says.
        assert seconds["avatars-vae-gan"] == pytest.approx(67 * 60, rel=0.01)
        # With what it was made from, the three games before that, and the five networks that it was matched by.
        sparse = generator_provenance("embedded:mnist-stylegan2")
        polished = sparse["start"]
        matchers = [each["reached"]["seconds"] for each in polished["matched_by"].values()]
        assert len(matchers) == 5
        games = [polished["start"], polished["start"]["start"], polished["start"]["start"]["start"]]
        alone = sum(each["reached"]["seconds"] for each in (sparse, polished, *games))
        assert seconds["mnist-stylegan2"] == pytest.approx(alone + sum(matchers))

    @pytest.mark.parametrize("name", ["mnist-nothing", "../../mnist-clean", ""])
    def test_an_unknown_one_is_refused(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match=r"Expected one of avatars-beard, .* to retrain"):
            train_embedded(name, tmp_path)
        assert not list(tmp_path.iterdir())


class TestTraining:
    def test_what_a_recipe_begins_with_is_made_first(self, package: Path) -> None:
        recipes = package / "package" / "assets" / "recipes"
        game = f'kind = "gan"\ndata = "{package}/some.npz"\nvalidation = "none"\nclassifier = "none"\nfamily = "mlp"\n'
        game += "images = 32\nbatch = 16\nhidden = 4\n"
        for folder, start in (("first", "none"), ("second", "first/tiny-gan.toml")):
            (recipes / folder).mkdir()
            named = f'{game}name = "tiny-gan-{folder}"\nstart = "{start}"'
            (recipes / folder / "tiny-gan.toml").write_text(named)
        (recipes / "tiny-gan.toml").write_text(f'{game}name = "tiny-gan"\nstart = "second/tiny-gan.toml"')
        assert set(recipe_names()) == {*KINDS, "tiny-gan"}

        run = train_embedded("tiny-gan", package / "runs")

        assert [path.name for path in sorted((package / "runs").iterdir())] == [
            "00001-tiny-gan-first",
            "00002-tiny-gan-second",
            "00003-tiny-gan",
        ]
        assert run == package / "runs" / "00003-tiny-gan"
        for before, after in (("00001-tiny-gan-first", "00002-tiny-gan-second"), ("00002-tiny-gan-second", run.name)):
            assert read_settings(package / "runs" / after / "train.toml").start == str(package / "runs" / before)
        # What is complete needs nothing any more.
        shutil.rmtree(package / "runs" / "00001-tiny-gan-first")
        shutil.rmtree(package / "runs" / "00002-tiny-gan-second")
        assert train_embedded("tiny-gan", package / "runs") == run

    def test_one_that_is_polished_is_matched_by_what_was_trained_again(self, package: Path) -> None:
        recipes, runs = package / "package" / "assets" / "recipes", package / "runs"
        data = f'data = "{package}/some.npz"\nvalidation = "none"\nimages = 32\nbatch = 16\n'
        data += 'classifier = "embedded:tiny-classifier"\n'
        (recipes / "first").mkdir()
        game = f'kind = "gan"\n{data}channels = [4, 4]\nlatent_dim = 2\nstyle_dim = 4\nname = "tiny-first"'
        (recipes / "first" / "tiny.toml").write_text(game)
        polish = f'kind = "polish"\n{data}warmup = 0\nmatched_by = ["embedded:tiny-other", "first/tiny-more.toml"]\n'
        (recipes / "tiny.toml").write_text(f'{polish}name = "tiny"\nstart = "first/tiny.toml"')
        other = (recipes / "tiny-classifier.toml").read_text().replace("tiny-classifier", "tiny-other")
        (recipes / "tiny-other.toml").write_text(other)
        (recipes / "first" / "tiny-more.toml").write_text(other.replace("tiny-other", "tiny-more"))
        trained = {name: str(train_embedded(name, runs)) for name in ("tiny-classifier", "tiny-other")}

        run = train_embedded("tiny", runs)

        settings = read_settings(run / "train.toml")
        assert isinstance(settings, PolishSettings)
        assert settings.classifier == trained["tiny-classifier"]
        # What has a recipe of its own, and no embedded weights, is trained now.
        more = runs / "00004-tiny-more"
        assert (more / "classifier.json").exists()
        assert settings.start == str(runs / "00003-tiny-first")
        assert settings.matched_by == (trained["tiny-other"], str(more))
        # Its weights say what they owe to whom, and how long that took.
        provenance = generator_provenance(run)
        assert provenance["matched_by"].keys() == set(settings.matched_by)
        assert all(each["reached"]["seconds"] > 0 for each in provenance["matched_by"].values())

    def test_classifiers_that_were_trained_again_take_the_place_of_the_embedded_ones(self, package: Path) -> None:
        recipes, runs = package / "package" / "assets" / "recipes", package / "runs"
        game = f'kind = "gan"\ndata = "{package}/some.npz"\nvalidation = "none"\nfamily = "mlp"\n'
        game += 'images = 32\nbatch = 16\nhidden = 4\nclassifier = "embedded:tiny-classifier"\n'
        game += 'oracle = "embedded:tiny-oracle"\n'
        (recipes / "first").mkdir()
        (recipes / "first" / "tiny-gan.toml").write_text(f'{game}name = "tiny-gan-first"')
        (recipes / "tiny-gan.toml").write_text(f'{game}name = "tiny-gan"\nstart = "first/tiny-gan.toml"')
        oracle = (recipes / "tiny-classifier.toml").read_text().replace("tiny-classifier", "tiny-oracle")
        (recipes / "tiny-oracle.toml").write_text(oracle)
        classifier, oracle = (str(train_embedded(name, runs)) for name in ("tiny-classifier", "tiny-oracle"))

        made = train_embedded("tiny-gan", runs)

        for run in (latest_run_folder(runs, "tiny-gan-first"), made):
            assert run is not None
            settings = read_settings(run / "train.toml")
            assert (settings.classifier, settings.oracle) == (classifier, oracle)  # type: ignore[union-attr]

    def test_one_that_was_cut_off_does_not(self, package: Path) -> None:
        settings = weights._read_recipe("tiny-vae.toml", package / "runs")
        assert isinstance(settings, VAESettings)
        named = settings.model_copy(update={"classifier": "embedded:tiny-classifier", "target": "0"})
        (package / "package" / "assets" / "recipes" / "tiny-vae.toml").write_text(named.to_toml())
        (package / "runs" / "00001-tiny-classifier").mkdir(parents=True)

        assert weights._read_recipe("tiny-vae.toml", package / "runs") == named

    @pytest.mark.parametrize("name", KINDS)
    def test_goes_on_after_being_cut_off(self, name: str, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _, task, load, saved = KINDS[name]
        whole = train_embedded(name, package / "whole")
        assert load(whole).image_shape == (1, 8, 8)

        class Cut(BaseException):
            """The end of the process, as far as the training can tell."""

        step, steps = task.step, iter(range(100))

        def cut_off_at_the_sixth(self, *arguments, **options):  # type: ignore[no-untyped-def]
            if next(steps) == 5:
                raise Cut
            return step(self, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(task, "step", cut_off_at_the_sixth)
            with pytest.raises(Cut):
                train_embedded(name, package / "cut")
        half = package / "cut" / f"00001-{name}"
        assert not (half / f"{saved}.json").exists()

        assert train_embedded(name, package / "cut") == half
        records = [json.loads(line) for line in (half / "log.jsonl").read_text().splitlines()]
        assert any(record.get("event") == "resume" or "resume" in record.values() for record in records)
        assert (half / f"{saved}.safetensors").read_bytes() == (whole / f"{saved}.safetensors").read_bytes()
        assert [path.name for path in (package / "cut").iterdir()] == [half.name]

    def test_what_is_complete_is_not_trained_again(self, package: Path) -> None:
        said: list[str] = []
        first = train_embedded("tiny-vae", package / "out", progress=said.append)
        before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
        assert train_embedded("tiny-vae", package / "out", progress=said.append) == first
        assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
        assert "320 images" in said[0]
        assert said[1].startswith("tiny-vae: trained before")

    def test_a_run_that_never_began_is_no_obstacle(self, package: Path) -> None:
        (package / "out" / "00001-tiny-vae").mkdir(parents=True)
        assert train_embedded("tiny-vae", package / "out").name == "00002-tiny-vae"

    def test_how_long_it_will_take_is_said_of_what_is_missing(self, package: Path) -> None:
        said: list[str] = []
        out = package / "out"
        train_embedded("tiny-vae", out)
        made, missing = out / "tiny-vae", out / "tiny-classifier"
        for trainings in ({made: 60.0, missing: 90.0}, {missing: 9000.0}, {made: 60.0}):
            say_how_long(trainings, progress=said.append)
        assert said == [
            f"1 to be trained, which took {time} in all on the machine they were made on: tiny-classifier"
            for time in ("1.5 minutes", "2.5 hours")
        ]
