"""What people said: the label store, agreement between labellers, exports and imports."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from failscape.errors import MissingExtra
from failscape.labels.records import NOT_ANY, QUEUES, Event, LabelImage, NewLabel, Progress, Project, Queue
from failscape.labels.task import ORIGINS, LabelTask, Origin, label_task, teaching_value

if TYPE_CHECKING:
    from failscape.labels.store import LabelStore as LabelStore

# Loaded at first use: it needs SQLAlchemy, which is an extra.
_HOMES = {"LabelStore": "failscape.labels.store"}

__all__ = [
    "NOT_ANY",
    "ORIGINS",
    "QUEUES",
    "Event",
    "LabelImage",
    "LabelStore",
    "LabelTask",
    "NewLabel",
    "Origin",
    "Progress",
    "Project",
    "Queue",
    "label_task",
    "teaching_value",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        try:
            return getattr(import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            if error.name != "sqlalchemy":
                raise
            raise MissingExtra(
                "Expected SQLAlchemy for the label store, but it is not installed. Run: pip install 'failscape[web]'"
            ) from error
    raise AttributeError(f"module 'failscape.labels' has no attribute {name!r}")
