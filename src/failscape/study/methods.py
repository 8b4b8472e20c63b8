"""From a step's settings, as a person wrote them, to a method."""

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final, get_args

from pydantic import ConfigDict, ValidationError, create_model

from failscape.data import ImageSet, load_images
from failscape.errors import ConfigError
from failscape.explain import METHODS, Method
from failscape.study.config import StepConfig, first_complaint


@final
@dataclass(frozen=True, kw_only=True)
class PreparedMethod:
    """A method that is ready to be called.

    Attributes:
        method: the method.
        image_sets: the settings that named images by a spec, and what was loaded for them.
    """

    method: Method[Any]
    image_sets: Mapping[str, ImageSet]


def prepare_method(step: StepConfig) -> PreparedMethod:
    """Build the method of a step; a setting that takes an `ImageSet` may name it by its spec.

    Raises:
        ConfigError: if there is no such method or setting, or a setting has a wrong value.
        FailscapeError: if images that a setting names cannot be loaded.
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
        if isinstance(value, str) and key in declared and _takes_images(declared[key].annotation)
    }
    settings = {**step.settings, **image_sets}
    fields: dict[str, Any] = {
        name: (entry.annotation, ... if entry.default is entry.empty else entry.default)
        for name, entry in declared.items()
    }
    strictness = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    checker = create_model("Settings", __config__=strictness, **fields)
    try:
        checked = checker.model_validate(settings)
        return PreparedMethod(method=build(**{key: getattr(checked, key) for key in settings}), image_sets=image_sets)
    except ValidationError as error:
        complaint = first_complaint(error, checker, f"the settings of {step.method}")
        raise ConfigError(complaint) from error
    except ValueError as error:
        raise ConfigError(f"Step {step.name!r}: {' '.join(str(error).split())}") from error


def _takes_images(annotation: Any) -> bool:
    return annotation is ImageSet or ImageSet in get_args(annotation)
