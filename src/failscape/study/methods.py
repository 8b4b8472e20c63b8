"""From a step's settings, as a person wrote them, to a method."""

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final, get_args, get_origin

from pydantic import ConfigDict, ValidationError, create_model

from failscape.classifiers import Classifier, load_classifier
from failscape.data import ImageSet, load_images
from failscape.errors import ConfigError
from failscape.explain import METHODS, Method
from failscape.explain.comparison import require_same_task
from failscape.study.config import StepConfig, first_complaint


@final
@dataclass(frozen=True, kw_only=True)
class PreparedMethod:
    """A method that is ready to be called.

    Attributes:
        method: the method.
        image_sets: the settings that named images by a spec, and what was loaded for them.
        classifiers: the settings that named classifiers by their specs, and what was loaded for each spec, in order.
    """

    method: Method[Any]
    image_sets: Mapping[str, ImageSet]
    classifiers: Mapping[str, tuple[tuple[str, Classifier], ...]]

    def check_fit(self, classifier: Classifier) -> None:
        """Refuse settings that do not fit the classifier that the step explains.

        Raises:
            ClassifierError: if classifiers among them take other images or know other classes.
            FailscapeError: if they name classes that it does not know.
        """
        self.method.check_classes(classifier.class_names)
        for loaded in self.classifiers.values():
            require_same_task(classifier, [each for _, each in loaded])


def prepare_method(step: StepConfig, *, allow_code: bool = False) -> PreparedMethod:
    """Build the method of a step.

    A setting that takes an `ImageSet` may name it by its spec, one that takes a `Classifier` as well, and one that
    takes several, `tuple[Classifier, ...]`, by a list of specs.

    Args:
        step: of a study.
        allow_code: whether `python:` specs may run their file.

    Raises:
        ConfigError: if there is no such method or setting, or a setting has a wrong value.
        FailscapeError: if images or classifiers that a setting names cannot be loaded.
    """
    if step.method not in METHODS:
        near = difflib.get_close_matches(step.method, METHODS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"Expected `steps.method` to be one of {', '.join(METHODS)}, but got {step.method!r}.{hint}")
    build = METHODS[step.method]
    # A class whose constructor declares nothing has that of `object`, which takes anything by its signature.
    has_settings = build.__init__ is not object.__init__
    declared = inspect.signature(build, eval_str=True).parameters if has_settings else {}
    image_sets = {
        key: load_images(value)
        for key, value in step.settings.items()
        if isinstance(value, str) and key in declared and _takes(declared[key].annotation, ImageSet)
    }
    classifiers: dict[str, tuple[tuple[str, Classifier], ...]] = {}
    settings = {**step.settings, **image_sets}
    for key, value in step.settings.items():
        annotation = declared[key].annotation if key in declared else None
        if isinstance(value, str) and _takes(annotation, Classifier):
            settings[key] = load_classifier(value, allow_code=allow_code)
            classifiers[key] = ((value, settings[key]),)
        elif _is_list_of_specs(value) and _takes_classifiers(annotation):
            settings[key] = tuple(load_classifier(spec, allow_code=allow_code) for spec in value)
            classifiers[key] = tuple(zip(value, settings[key], strict=True))
    fields: dict[str, Any] = {
        name: (entry.annotation, ... if entry.default is entry.empty else entry.default)
        for name, entry in declared.items()
    }
    strictness = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    checker = create_model("Settings", __config__=strictness, **fields)
    try:
        checked = checker.model_validate(settings)
        method = build(**{key: getattr(checked, key) for key in settings})
        return PreparedMethod(method=method, image_sets=image_sets, classifiers=classifiers)
    except ValidationError as error:
        complaint = first_complaint(error, checker, f"the settings of {step.method}")
        raise ConfigError(complaint) from error
    except ValueError as error:
        raise ConfigError(f"Step {step.name!r}: {' '.join(str(error).split())}") from error


def _takes(annotation: Any, kind: type) -> bool:
    """Whether a setting takes one of that kind, or none."""
    return annotation is kind or (get_origin(annotation) is not tuple and kind in get_args(annotation))


def _takes_classifiers(annotation: Any) -> bool:
    return get_origin(annotation) is tuple and get_args(annotation) == (Classifier, ...)


def _is_list_of_specs(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(spec, str) for spec in value)
