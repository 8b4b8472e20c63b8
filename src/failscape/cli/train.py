"""The trainings; each flag is a field of the training's settings."""

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

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

train = App(name="train", help="Train a classifier or a generator.")
_CLASSIFIER, _GAN, _VAE, _WGAN = ClassifierSettings(), GANSettings(), VAESettings(), WGANSettings()
_INTRO_VAE, _VAE_GAN = IntroVAESettings(), VAEGANSettings()


@train.command
def classifier(
    *,
    settings: Annotated[ClassifierSettings, Parameter(name="*")] = _CLASSIFIER,
    out: Path = Path("runs"),
    resume: Path | None = None,
    dry_run: bool = False,
) -> int:
    """Train a reference classifier.

    Args:
        settings: of the training.
        out: where numbered run folders are made.
        resume: go on in this run folder, by the settings written there.
        dry_run: print the resolved settings and do nothing.
    """
    return _train(settings, out=out, resume=resume, dry_run=dry_run)


@train.command
def vae(
    *,
    settings: Annotated[VAESettings, Parameter(name="*")] = _VAE,
    out: Path = Path("runs"),
    resume: Path | None = None,
    dry_run: bool = False,
    allow_code: bool = False,
) -> int:
    """Train a variational autoencoder; a classifier may steer it toward a class or a frontier.

    Args:
        settings: of the training.
        out: where numbered run folders are made.
        resume: go on in this run folder, by the settings written there.
        dry_run: print the resolved settings and do nothing.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    return _train(settings, out=out, resume=resume, dry_run=dry_run, allow_code=allow_code)


@train.command
def gan(
    *,
    settings: Annotated[GANSettings, Parameter(name="*")] = _GAN,
    out: Path = Path("runs"),
    resume: Path | None = None,
    dry_run: bool = False,
    allow_code: bool = False,
) -> int:
    """Train a generator of images of a class and of a classifier's certainty, by an adversarial game.

    Several processes, GPUs or machines share the work: torchrun --nproc-per-node 2 -m failscape train gan.

    Args:
        settings: of the training.
        out: where numbered run folders are made.
        resume: go on in this run folder, by the settings written there.
        dry_run: print the resolved settings and do nothing.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    return _train(settings, out=out, resume=resume, dry_run=dry_run, allow_code=allow_code)


@train.command
def wgan(
    *,
    settings: Annotated[WGANSettings, Parameter(name="*")] = _WGAN,
    out: Path = Path("runs"),
    resume: Path | None = None,
    dry_run: bool = False,
    allow_code: bool = False,
) -> int:
    """Train a generator against a Wasserstein critic; a classifier may steer it toward a class or a frontier.

    Args:
        settings: of the training.
        out: where numbered run folders are made.
        resume: go on in this run folder, by the settings written there.
        dry_run: print the resolved settings and do nothing.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    return _train(settings, out=out, resume=resume, dry_run=dry_run, allow_code=allow_code)


@train.command
def vae_gan(
    *,
    settings: Annotated[VAEGANSettings, Parameter(name="*")] = _VAE_GAN,
    out: Path = Path("runs"),
    resume: Path | None = None,
    dry_run: bool = False,
    allow_code: bool = False,
) -> int:
    """Train an autoencoder that a discriminator judges, by its features; a classifier may steer it.

    Args:
        settings: of the training.
        out: where numbered run folders are made.
        resume: go on in this run folder, by the settings written there.
        dry_run: print the resolved settings and do nothing.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    return _train(settings, out=out, resume=resume, dry_run=dry_run, allow_code=allow_code)


@train.command
def intro_vae(
    *,
    settings: Annotated[IntroVAESettings, Parameter(name="*")] = _INTRO_VAE,
    out: Path = Path("runs"),
    resume: Path | None = None,
    dry_run: bool = False,
    allow_code: bool = False,
) -> int:
    """Train a variational autoencoder whose encoder is the discriminator; a classifier may steer it.

    Args:
        settings: of the training.
        out: where numbered run folders are made.
        resume: go on in this run folder, by the settings written there.
        dry_run: print the resolved settings and do nothing.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    return _train(settings, out=out, resume=resume, dry_run=dry_run, allow_code=allow_code)


@train.command
def embedded(name: str, /, *, out: Path = Path("runs")) -> int:
    """Train the weights that the package embeds again, by their recipe.

    Args:
        name: of the weights, such as mnist-vae-10d.
        out: where numbered run folders are made; a training that was cut off there goes on.
    """
    from failscape.study.reproduce.weights import train_embedded

    sys.stdout.write(f"{train_embedded(name, out)}\n")
    return 0


def _train(settings: AnySettings, *, out: Path, resume: Path | None, dry_run: bool, allow_code: bool = False) -> int:
    if resume is not None:
        settings = _settings_of(resume, settings)
    if dry_run:
        sys.stdout.write(settings.to_toml())
        return 0
    from failscape.training import resume_run, start_run

    if resume is None:
        folder = start_run(settings, out, allow_code=allow_code)
    else:
        folder = resume_run(resume, allow_code=allow_code)
    # The processes that torchrun starts share one standard output.
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(f"{folder}\n")
    return 0


def _settings_of(folder: Path, typed: AnySettings) -> AnySettings:
    """Return the settings a run was begun with, and refuse flags that contradict them."""
    begun = read_settings(folder / "train.toml")
    if type(begun) is not type(typed):
        raise ConfigError(
            f"Expected {folder} to be the training of a {typed.kind}, but it is that of a {begun.kind}. "
            f"Use `failscape train {begun.kind} --resume`."
        )
    for key in sorted(typed.model_fields_set):
        if getattr(typed, key) != getattr(begun, key):
            raise ConfigError(
                f"Expected {key} = {getattr(begun, key)}, as {folder} was begun with, but got "
                f"{getattr(typed, key)}. Leave the flag out, or start a new training."
            )
    return begun
