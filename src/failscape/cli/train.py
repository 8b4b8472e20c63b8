"""The trainings; each flag is a field of the training's settings."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from failscape.errors import ConfigError
from failscape.training import (
    AnySettings,
    ClassifierSettings,
    GANSettings,
    IntroVAESettings,
    PolishSettings,
    VAEGANSettings,
    VAESettings,
    WGANSettings,
    read_settings,
)

# No command has a list beside a positional argument, which it could swallow.
train = App(name="train", help="Train a classifier or a generator.", default_parameter=Parameter(consume_multiple=True))


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Where a training is made, and whether.

    Attributes:
        out: where numbered run folders are made.
        resume: go on in this run folder, by the settings written there.
        dry_run: print the resolved settings and do nothing.
    """

    out: Path = Path("runs")
    resume: Path | None = None
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class _CodeRun(_Run):
    """The same, of what may be trained with a classifier of the user's own.

    Attributes:
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """

    allow_code: bool = False


_RUN, _CODE_RUN = _Run(), _CodeRun()
_CLASSIFIER, _GAN, _VAE, _WGAN = ClassifierSettings(), GANSettings(), VAESettings(), WGANSettings()
_INTRO_VAE, _POLISH, _VAE_GAN = IntroVAESettings(), PolishSettings(), VAEGANSettings()


@train.command
def classifier(
    *,
    settings: Annotated[ClassifierSettings, Parameter(name="*")] = _CLASSIFIER,
    run: Annotated[_Run, Parameter(name="*")] = _RUN,
) -> int:
    """Train a reference classifier.

    Args:
        settings: of the training.
        run: where it is made.
    """
    return _train(settings, run)


@train.command
def vae(
    *,
    settings: Annotated[VAESettings, Parameter(name="*")] = _VAE,
    run: Annotated[_CodeRun, Parameter(name="*")] = _CODE_RUN,
) -> int:
    """Train a variational autoencoder; a classifier may steer it toward a class or a frontier.

    Args:
        settings: of the training.
        run: where it is made.
    """
    return _train(settings, run)


@train.command
def gan(
    *,
    settings: Annotated[GANSettings, Parameter(name="*")] = _GAN,
    run: Annotated[_CodeRun, Parameter(name="*")] = _CODE_RUN,
) -> int:
    """Train a generator of images of a class and of a classifier's certainty, by an adversarial game.

    Several processes, GPUs or machines share the work: torchrun --nproc-per-node 2 -m failscape train gan.

    Args:
        settings: of the training.
        run: where it is made.
    """
    return _train(settings, run)


@train.command
def polish(
    *,
    settings: Annotated[PolishSettings, Parameter(name="*")] = _POLISH,
    run: Annotated[_CodeRun, Parameter(name="*")] = _CODE_RUN,
) -> int:
    """Bring a generator of `train gan` nearer to its requests and to the means of real images, and else keep it.

    Args:
        settings: of the training.
        run: where it is made.
    """
    return _train(settings, run)


@train.command
def wgan(
    *,
    settings: Annotated[WGANSettings, Parameter(name="*")] = _WGAN,
    run: Annotated[_CodeRun, Parameter(name="*")] = _CODE_RUN,
) -> int:
    """Train a generator against a Wasserstein critic; a classifier may steer it toward a class or a frontier.

    Args:
        settings: of the training.
        run: where it is made.
    """
    return _train(settings, run)


@train.command
def vae_gan(
    *,
    settings: Annotated[VAEGANSettings, Parameter(name="*")] = _VAE_GAN,
    run: Annotated[_CodeRun, Parameter(name="*")] = _CODE_RUN,
) -> int:
    """Train an autoencoder that a discriminator judges, by its features; a classifier may steer it.

    Args:
        settings: of the training.
        run: where it is made.
    """
    return _train(settings, run)


@train.command
def intro_vae(
    *,
    settings: Annotated[IntroVAESettings, Parameter(name="*")] = _INTRO_VAE,
    run: Annotated[_CodeRun, Parameter(name="*")] = _CODE_RUN,
) -> int:
    """Train a variational autoencoder whose encoder is the discriminator; a classifier may steer it.

    Args:
        settings: of the training.
        run: where it is made.
    """
    return _train(settings, run)


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


def _train(settings: AnySettings, run: _Run) -> int:
    if run.resume is not None:
        settings = _settings_of(run.resume, settings)
    if run.dry_run:
        sys.stdout.write(settings.to_toml())
        return 0
    from failscape.training import resume_run, start_run

    allow_code = isinstance(run, _CodeRun) and run.allow_code
    if run.resume is None:
        folder = start_run(settings, run.out, allow_code=allow_code)
    else:
        folder = resume_run(run.resume, allow_code=allow_code)
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
