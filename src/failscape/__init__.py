"""Find where, how and why an image classifier fails, see it in generated images, and mend it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from failscape import explain as explain
    from failscape.classifiers import Classifier as Classifier
    from failscape.classifiers import load_classifier as load_classifier
    from failscape.data import ImageSet as ImageSet
    from failscape.data import load_images as load_images
    from failscape.errors import FailscapeError as FailscapeError
    from failscape.generators import load_generator as load_generator

__version__ = "0.1.0"

# Loaded at first use, so that `failscape --help` does not wait for torch.
_HOMES = {
    "Classifier": "failscape.classifiers",
    "FailscapeError": "failscape.errors",
    "ImageSet": "failscape.data",
    "load_classifier": "failscape.classifiers",
    "load_generator": "failscape.generators",
    "load_images": "failscape.data",
}

__all__ = [
    "Classifier",
    "FailscapeError",
    "ImageSet",
    "__version__",
    "explain",
    "load_classifier",
    "load_generator",
    "load_images",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "explain":
        return import_module("failscape.explain")
    raise AttributeError(f"module 'failscape' has no attribute {name!r}")
