"""What people said: the label store, agreement between labellers, exports and imports."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from failscape.errors import MissingExtra
from failscape.explain.method import Origin
from failscape.labels.agreement import Agreement, PairAgreement, cohen_kappa, consensus, fleiss_kappa, measure_agreement
from failscape.labels.orders import OrderComparison, OrderShare, compare_orders
from failscape.labels.records import NOT_ANY, QUEUES, Event, LabelImage, NewLabel, Progress, Project, Queue
from failscape.labels.task import NOT_ANY_NAME, ORIGINS, LabelTask, label_task, teaching_value

if TYPE_CHECKING:
    from failscape.labels.decision import Decision as Decision
    from failscape.labels.decision import decisions as decisions
    from failscape.labels.decision import labelled_images as labelled_images
    from failscape.labels.decision import project_of as project_of
    from failscape.labels.exports import FORMATS as FORMATS
    from failscape.labels.exports import ExportReport as ExportReport
    from failscape.labels.exports import export_labels as export_labels
    from failscape.labels.imports import ImportReport as ImportReport
    from failscape.labels.imports import import_labels as import_labels
    from failscape.labels.store import LabelStore as LabelStore

# Loaded at first use: they need SQLAlchemy, which is an extra.
_HOMES = {
    "FORMATS": "failscape.labels.exports",
    "Decision": "failscape.labels.decision",
    "ExportReport": "failscape.labels.exports",
    "ImportReport": "failscape.labels.imports",
    "LabelStore": "failscape.labels.store",
    "decisions": "failscape.labels.decision",
    "export_labels": "failscape.labels.exports",
    "import_labels": "failscape.labels.imports",
    "labelled_images": "failscape.labels.decision",
    "project_of": "failscape.labels.decision",
}

__all__ = [
    "FORMATS",
    "NOT_ANY",
    "NOT_ANY_NAME",
    "ORIGINS",
    "QUEUES",
    "Agreement",
    "Decision",
    "Event",
    "ExportReport",
    "ImportReport",
    "LabelImage",
    "LabelStore",
    "LabelTask",
    "NewLabel",
    "OrderComparison",
    "OrderShare",
    "Origin",
    "PairAgreement",
    "Progress",
    "Project",
    "Queue",
    "cohen_kappa",
    "compare_orders",
    "consensus",
    "decisions",
    "export_labels",
    "fleiss_kappa",
    "import_labels",
    "label_task",
    "labelled_images",
    "measure_agreement",
    "project_of",
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
