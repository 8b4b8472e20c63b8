"""How classifiers and generators are fitted: one loop, checkpoints, averages, tasks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from failscape.training.classifier_task import ClassifierTask as ClassifierTask
    from failscape.training.fine_tuning import fine_tune as fine_tune
    from failscape.training.gan_evaluation import GeneratorEvaluation as GeneratorEvaluation
    from failscape.training.gan_task import GANTask as GANTask
    from failscape.training.intro_vae_task import IntroVAETask as IntroVAETask
    from failscape.training.loop import Hook as Hook
    from failscape.training.loop import train as train
    from failscape.training.polish_task import PolishTask as PolishTask
    from failscape.training.runs import resume_run as resume_run
    from failscape.training.runs import start_run as start_run
    from failscape.training.settings import AnySettings as AnySettings
    from failscape.training.settings import ClassifierSettings as ClassifierSettings
    from failscape.training.settings import FineTuningSettings as FineTuningSettings
    from failscape.training.settings import GANSettings as GANSettings
    from failscape.training.settings import IntroVAESettings as IntroVAESettings
    from failscape.training.settings import PolishSettings as PolishSettings
    from failscape.training.settings import TrainingSettings as TrainingSettings
    from failscape.training.settings import VAEGANSettings as VAEGANSettings
    from failscape.training.settings import VAESettings as VAESettings
    from failscape.training.settings import WGANSettings as WGANSettings
    from failscape.training.settings import read_settings as read_settings
    from failscape.training.steering import steer as steer
    from failscape.training.task import Task as Task
    from failscape.training.vae_gan_task import VAEGANTask as VAEGANTask
    from failscape.training.vae_task import VAETask as VAETask
    from failscape.training.wgan_task import WGANTask as WGANTask

# Loaded at first use, so that the command line reads the settings without waiting for torch.
_HOMES = {
    "AnySettings": "settings",
    "GANSettings": "settings",
    "GeneratorEvaluation": "gan_evaluation",
    "GANTask": "gan_task",
    "start_run": "runs",
    "ClassifierSettings": "settings",
    "ClassifierTask": "classifier_task",
    "FineTuningSettings": "settings",
    "fine_tune": "fine_tuning",
    "Hook": "loop",
    "IntroVAESettings": "settings",
    "IntroVAETask": "intro_vae_task",
    "PolishSettings": "settings",
    "PolishTask": "polish_task",
    "Task": "task",
    "TrainingSettings": "settings",
    "VAEGANSettings": "settings",
    "VAEGANTask": "vae_gan_task",
    "VAESettings": "settings",
    "VAETask": "vae_task",
    "WGANSettings": "settings",
    "WGANTask": "wgan_task",
    "read_settings": "settings",
    "steer": "steering",
    "resume_run": "runs",
    "train": "loop",
}

__all__ = [
    "AnySettings",
    "ClassifierSettings",
    "ClassifierTask",
    "FineTuningSettings",
    "GANSettings",
    "GANTask",
    "GeneratorEvaluation",
    "Hook",
    "IntroVAESettings",
    "IntroVAETask",
    "PolishSettings",
    "PolishTask",
    "Task",
    "TrainingSettings",
    "VAEGANSettings",
    "VAEGANTask",
    "VAESettings",
    "VAETask",
    "WGANSettings",
    "WGANTask",
    "fine_tune",
    "read_settings",
    "resume_run",
    "start_run",
    "steer",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"failscape.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'failscape.training' has no attribute {name!r}")
