"""What a training is told: typed settings, resolved to TOML. Imports no torch, so `--help` stays quick."""

import tomllib
from pathlib import Path

from failscape.errors import ConfigError
from failscape.training.settings.base import TrainingSettings
from failscape.training.settings.classifiers import ClassifierSettings, FineTuningSettings
from failscape.training.settings.gan import GANSettings
from failscape.training.settings.polish import PolishSettings
from failscape.training.settings.steered import (
    ConvolutionalSettings,
    GuidedSettings,
    IntroVAESettings,
    VAEGANSettings,
    VAESettings,
    WGANSettings,
)

__all__ = [
    "AnySettings",
    "ClassifierSettings",
    "ConvolutionalSettings",
    "FineTuningSettings",
    "GANSettings",
    "GuidedSettings",
    "IntroVAESettings",
    "PolishSettings",
    "TrainingSettings",
    "VAEGANSettings",
    "VAESettings",
    "WGANSettings",
    "read_settings",
]

AnySettings = (
    ClassifierSettings
    | FineTuningSettings
    | GANSettings
    | IntroVAESettings
    | PolishSettings
    | VAEGANSettings
    | VAESettings
    | WGANSettings
)

_KINDS: dict[str, type[AnySettings]] = {
    "classifier": ClassifierSettings,
    "fine-tuning": FineTuningSettings,
    "gan": GANSettings,
    "intro-vae": IntroVAESettings,
    "polish": PolishSettings,
    "vae": VAESettings,
    "vae-gan": VAEGANSettings,
    "wgan": WGANSettings,
}


def read_settings(source: Path) -> AnySettings:
    """Read resolved settings, such as the `train.toml` of a run folder.

    Raises:
        ConfigError: if the file is missing, not TOML, of an unknown kind, or holds an unknown key.
    """
    try:
        values = tomllib.loads(source.read_text())
    except OSError as error:
        raise ConfigError(
            f"Expected readable settings in {source}, but got: {error.strerror}. Check the path."
        ) from error
    except ValueError as error:
        raise ConfigError(f"Expected TOML in {source}, but got: {error}. Correct the file.") from error
    kind = values.get("kind")
    if kind not in _KINDS:
        raise ConfigError(f"Expected kind = one of {', '.join(_KINDS)} in {source}, but got {kind!r}.")
    return _KINDS[kind].parse(values)
