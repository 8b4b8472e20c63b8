import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

import failscape
from failscape.classifiers import NETWORKS
from failscape.errors import ConfigError
from failscape.training import (
    AnySettings,
    ClassifierSettings,
    GANSettings,
    IntroVAESettings,
    VAEGANSettings,
    VAESettings,
    WGANSettings,
    read_settings,
)
from failscape.training.settings import GuidedSettings


@pytest.mark.parametrize(
    "settings",
    [
        ClassifierSettings(learning_rate=1 / 3, validation="none", half=True),
        ClassifierSettings(data="mnist:train+half-corrupted", calibrate=True),
        VAESettings(hidden=(7, 5), kl_warmup=10, name="two-d"),
        GANSettings(channels=(32, 16), score="vector", classifier="none", device="cuda:1", bf16=False),
        GANSettings(family="mlp", hidden=7),
        GANSettings(target="3", calibrated=False),
    ],
)
def test_toml_gives_the_same_settings_back(settings: AnySettings, tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text(settings.to_toml())

    assert read_settings(path) == settings


@pytest.mark.parametrize(
    ("data", "given", "resolved"),
    [
        ("mnist:train", "auto", "mnist:test"),
        ("mnist:train+half-corrupted", "auto", "mnist:test+half-corrupted"),
        ("folder", "auto", "none"),
        ("mnist:train", "none", "none"),
        ("folder", "other", "other"),
    ],
)
def test_validation_is_the_test_split_unless_another_is_named(data: str, given: str, resolved: str) -> None:
    settings = ClassifierSettings(data=data, validation=given)

    assert settings.validation == resolved
    assert f'validation = "{resolved}"' in settings.to_toml()


@pytest.mark.parametrize(
    ("settings", "weight"),
    [
        (VAESettings, 100.0),
        (IntroVAESettings, 100.0),
        (VAEGANSettings, 10.0),
        (WGANSettings, 10.0),
    ],
)
def test_guidance_weighs_as_much_as_the_loss_of_the_family_asks(settings: type[GuidedSettings], weight: float) -> None:
    assert settings().guidance == weight
    assert f"guidance = {weight}" in settings().to_toml()


@pytest.mark.parametrize(
    ("given", "drift"),
    [
        ({}, 0.0),
        ({"family": "progressive"}, 1e-3),
        ({"family": "progressive", "drift": 0.0}, 0.0),
        ({"drift": 1e-2}, 1e-2),
    ],
)
def test_scores_may_drift_as_each_paper_has_it(given: dict[str, Any], drift: float, tmp_path: Path) -> None:
    settings = WGANSettings.parse(given)
    assert settings.drift == drift
    (tmp_path / "train.toml").write_text(settings.to_toml())
    assert read_settings(tmp_path / "train.toml") == settings


def test_architectures_are_those_that_can_be_built() -> None:
    assert set(get_args(ClassifierSettings.model_fields["architecture"].annotation)) == set(NETWORKS)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('kind = "flow"', "'flow'"),
        ('kind = "gan"\ndevice = "tpu"', "device = 'tpu'"),
        ('kind = "gan"\nwarmup = 20000', "warmup = 20000"),
        ('kind = "gan"\nscore = "certainty"', "score = 'certainty'"),
        ('kind = "gan"\nchannels = []', "channels"),
        ('kind = "gan"\neven_share = 1.5', "even_share = 1.5"),
        ('kind = "gan"\ntarget = "3"\nclassifier = "none"', "Expected a `classifier` and a weight of `guidance`"),
        ('kind = "gan"\ntarget = "3"\nguidance = 0', "Expected a `classifier` and a weight of `guidance`"),
        ('kind = "gan"\ntarget = "3"\nlate_guidance = 0.1', "neither `late_guidance` nor `perceive`"),
        ('kind = "gan"\ntarget = "3"\nperceive = true', "neither `late_guidance` nor `perceive`"),
        (
            'kind = "gan"\ntarget = "3"\nscore = "margin"\neven_share = 0.5',
            "only settings that have an effect, but got `score`, `even_share` beside a `target`",
        ),
        ('kind = "gan"\ntarget = "3"\nembedding = "scalar"', "got `embedding` beside a `target`"),
        ('kind = "gan"\nfamily = "mlp"\nchannels = [8, 4]', "got `channels` beside the family mlp"),
        (
            'kind = "gan"\nfamily = "mlp"\ndiscriminator_channels = [8]\nstyle_dim = 8\nencoder_from = 0.5',
            "got `discriminator_channels`, `style_dim`, `encoder_from` beside the family mlp",
        ),
        ('kind = "gan"\noracle = "embedded:mnist-corrupted"', "an oracle that takes no part in the training, but got"),
        ('kind = "wgan"\nclassifier = "a"\ntarget = "3"\noracle = "a"', "takes no part in the training, but got a"),
        ('kind = "gan"\nclassifier = "runs/1"\noracle = "runs/1"', "but got runs/1, which does. Name another"),
        ("images = 3", "None"),
        ("kind = ", "TOML"),
        ('kind = "vae"\nimages = 0', "images = 0"),
        ('kind = "vae"\nimagse = 5', "imagse = 5"),
        ('kind = "vae"\nhidden = []', "hidden"),
        ('kind = "vae"\nimage_shape = [3, 32]', "image_shape"),
        ('kind = "wgan"\ndrift = -1', "drift = -1"),
        ('kind = "wgan"\nguidance_from = 0.5', "no sooner than it begins, at 0.5 of the training, but got 0.2"),
        ('kind = "gan"\nguidance_from = 0.3\nguidance_full = 0.1', "at 0.3 of the training, but got 0.1"),
        ('kind = "classifier"\narchitecture = "residual-cnn"\nwidth = 12', "multiple of 8"),
        ('kind = "classifier"\nlearning_rate = nan', "learning_rate"),
        (
            'kind = "classifier"\nvalidation = "none"\ncalibrate = true',
            "Expected `validation` images beside `calibrate`",
        ),
        ('kind = "classifier"\ndata = "photos"\ncalibrate = true', "Expected `validation` images beside `calibrate`"),
    ],
)
def test_wrong_settings_are_refused_by_name(content: str, part: str, tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text(content)

    with pytest.raises(ConfigError, match=part) as caught:
        read_settings(path)

    assert "\n" not in str(caught.value)


def test_the_recipes_of_the_package_are_accepted() -> None:
    recipes = [*(Path(failscape.__file__).parent / "assets" / "recipes").rglob("*.toml")]
    games = [settings for settings in map(read_settings, recipes) if isinstance(settings, GANSettings)]
    assert len(games) == 3
    assert all(game.oracle != game.classifier for game in games)


def test_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_settings(tmp_path / "train.toml")


def test_settings_do_not_import_torch() -> None:
    code = "import sys; from failscape.training import VAESettings; VAESettings(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
