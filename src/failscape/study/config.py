"""What a study is: the TOML file a person writes, and the same thing with every default filled in."""

import difflib
import json
import tomllib
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from failscape.errors import ConfigError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Spec = Annotated[str, Field(min_length=1)]
_MAX_CONFIG_BYTES = 2**20
# Within a step, whose names are filled in before validation, strictness would demand the tuple that JSON has not.
_FromList = Field(strict=False)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ImagesConfig(_Table):
    """Which images to explain: a labelled set, or image files with the class they should have.

    Attributes:
        spec: as `load_images` takes it.
        files: image files, in place of `spec`; they need `target`.
        target: the name of the class wanted for every image, in place of the labels.
        image_shape: `(C, H, W)` to bring the images to.
        only: which of them, by what the classifier says beside the label (or the target).
        limit: at most so many, the first ones in the order of the set.
        targets: what each image is to become: of its label (or the target), or of each other class in turn.
    """

    spec: Spec | None = None
    files: Annotated[tuple[Spec, ...], _FromList] = ()
    target: str | None = None
    image_shape: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], _FromList] | None = None
    only: Literal["mistakes", "correct", "all"] = "mistakes"
    limit: PositiveInt | None = None
    targets: Literal["label", "others"] = "label"

    @model_validator(mode="after")
    def _one_source(self) -> "ImagesConfig":
        if (self.spec is None) == (not self.files):
            raise ValueError("Expected either `spec` or `files` in [images]. Give one of the two.")
        if self.files and self.target is None:
            raise ValueError(
                "Expected `target` in [images] beside `files`, which have no labels. Name the class wanted."
            )
        return self


class ModelConfig(_Table):
    """A classifier, an oracle or a generator.

    Attributes:
        spec: as `load_classifier` or `load_generator` takes it.
    """

    spec: Spec


class StepConfig(_Table):
    """One method, run with what the study names, or with what the step names for itself alone.

    Attributes:
        method: a key of `failscape.explain.METHODS`.
        name: names the step's folder; by default the method.
        title: the heading in the report; by default made of the name.
        classifier: the spec of what this step explains.
        oracle: the spec of what grades this step. A step with a classifier of its own has no oracle but the one named
            here, since the study's is of the study's classifier, and may be of another task.
        generator: the spec of what draws the images of this step.
        images: what this step explains.
        settings: keyword arguments of the method.
    """

    method: Name
    name: Name = ""
    title: str = ""
    classifier: Spec | None = None
    oracle: Spec | None = None
    generator: Spec | None = None
    images: ImagesConfig | None = None
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _fill_names(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("method"), str):
            return given
        name = given.get("name", given["method"])
        title = name.replace("-", " ").capitalize() if isinstance(name, str) else ""
        return {"name": name, "title": title} | given


class StudyConfig(_Table):
    """A whole investigation.

    Attributes:
        name: names the run folder.
        seed: every random draw follows from it.
        images: what to explain.
        classifier: what is explained.
        oracle: another classifier, which grades what is found and guides nothing.
        generator: draws the images.
        steps: the methods, in order; each may name images, classifier, oracle and generator of its own.

    Example:
        >>> StudyConfig.from_mapping({"name": "x", "limitt": 3})
        Traceback (most recent call last):
        ...
        failscape.errors.ConfigError: Expected a known key in the study, but got 'limitt'. ...
    """

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    images: ImagesConfig
    classifier: ModelConfig
    oracle: ModelConfig | None = None
    generator: ModelConfig | None = None
    steps: tuple[StepConfig, ...]

    @model_validator(mode="after")
    def _steps_can_run(self) -> "StudyConfig":
        # Not a length constraint of the field: pydantic would add its complaint to that of a wrong step.
        if not 1 <= len(self.steps) <= 99:
            raise ValueError(f"Expected 1 to 99 [[steps]], but got {len(self.steps)}. Each names a `method`.")
        for step in self.steps:
            if self.generator is None and step.generator is None:
                raise ValueError(
                    f"Expected a generator for step {step.name!r}, but got none. "
                    "Add [generator], or `generator` to the step."
                )
        return self

    @classmethod
    def from_mapping(cls, given: dict[str, Any]) -> "StudyConfig":
        """Check a study given as nested dictionaries.

        Raises:
            ConfigError: if a key is unknown or missing, or a value of the wrong kind.
        """
        try:
            # By way of JSON, because only there strict validation takes a list for a tuple.
            return cls.model_validate_json(json.dumps(given, default=str))
        except ValidationError as error:
            raise ConfigError(first_complaint(error, cls, "the study")) from error

    @classmethod
    def from_toml(cls, source: Path) -> "StudyConfig":
        """Read a study.

        Raises:
            ConfigError: if the file cannot be read, is not TOML, or is not a study.
        """
        try:
            with source.open("rb") as file:
                content = file.read(_MAX_CONFIG_BYTES + 1)
            if len(content) > _MAX_CONFIG_BYTES:
                raise ConfigError(f"Expected a study of at most 1 MiB, but {source} is larger. Is it the right file?")
            document = tomllib.loads(content.decode())
        except OSError as error:
            raise ConfigError(
                f"Expected a readable study {source}, but got: {error.strerror}. Check the path."
            ) from error
        except ValueError as error:
            raise ConfigError(f"Expected TOML in {source}, but got: {error}. Correct that line.") from error
        return cls.from_mapping(document)

    def to_toml(self) -> str:
        """Return the study with every default filled in."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def first_complaint(error: ValidationError, model: type[BaseModel] | None, whole: str) -> str:
    """Say in one line what pydantic found first: the key, what was expected, what came, and close matches.

    Args:
        error: what pydantic raised.
        model: the class that was validated, for its known keys.
        whole: what to call the outermost table.
    """
    found = error.errors(include_url=False)
    # A mistyped key comes with a missing one; the mistyped one is what helps.
    first = next((entry for entry in found if entry["type"] == "extra_forbidden"), found[0])
    more = f" (And {len(found) - 1} more.)" if len(found) > 1 else ""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    if first["type"] == "extra_forbidden":
        *parents, unknown = first["loc"]
        known = _keys_at(model, parents) if model else []
        near = difflib.get_close_matches(str(unknown), known, n=2)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Known keys: {', '.join(known)}."
        place = f"`{key.rpartition('.')[0]}`" if parents else whole
        return f"Expected a known key in {place}, but got {str(unknown)!r}. {hint}{more}"
    if first["type"] == "missing":
        return f"Expected `{key}` in {whole}, but it is missing. Add it.{more}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"]) + more
    expected = first["msg"].partition(" should ")[2] or first["msg"]
    return f"Expected `{key}` to {expected}, but got {_shortened(first['input'])}. Correct it.{more}"


def _keys_at(model: type[BaseModel], parents: list[int | str]) -> list[str]:
    """Return the keys of the table at `parents`, walking through optional tables and lists of tables."""
    for part in parents:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            inner = [a for a in (annotation, *typing.get_args(annotation)) if isinstance(a, type)]
            model = next(a for a in inner if issubclass(a, BaseModel))
    return list(model.model_fields)


def _shortened(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "…"
