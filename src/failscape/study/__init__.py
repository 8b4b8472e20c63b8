"""A whole investigation: configuration, runner, run folder."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from failscape.study.config import StudyConfig as StudyConfig
    from failscape.study.demo import demo_study as demo_study
    from failscape.study.run_folder import read_steps as read_steps
    from failscape.study.runner import run_study as run_study

# Loaded at first use, so that the command line reads a configuration without waiting for torch.
_HOMES = {"StudyConfig": "config", "demo_study": "demo", "read_steps": "run_folder", "run_study": "runner"}

__all__ = ["StudyConfig", "demo_study", "read_steps", "run_study"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"failscape.study.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'failscape.study' has no attribute {name!r}")
