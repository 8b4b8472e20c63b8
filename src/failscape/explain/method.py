"""The base of every method: check the input, run, and verify what was claimed.

A method never grades itself. Whatever it returns as `images` is rounded to 8 bits here, classified again, and
marked with what the classifier, and the oracle if one is given, now say.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Generic, Literal, TypeVar, final, get_args, get_origin

import pyarrow as pa
import torch
from jaxtyping import Float, Int, jaxtyped
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.errors import ClassifierError, GeneratorError, ImageError, LabelError, WeightsError
from failscape.figures import Figure, Finding
from failscape.generators import Generator
from failscape.storage import digest, read_json, read_tensors, write_json, write_tensors

Origin = Literal["generated", "test", "frontier"]
EIGHT_BITS: Mapping[str, bool] = {"eight_bits": True}
SHARED: Mapping[str, bool] = {"shared": True}


def to_8_bits(x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    """Round images to the 256 grey values that a saved image can hold, clipped to [0, 1]."""
    return (x.clamp(0, 1) * 255).round() / 255


def to_8_bits_with_gradient(x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    """Round as `to_8_bits` does, with the gradient of the images before rounding, which by itself has none."""
    return x + (to_8_bits(x) - x).detach()


@final
@dataclass(frozen=True, kw_only=True)
class Verification:
    """What is true of a result's images once they are rounded to 8 bits and classified again.

    Attributes:
        probs: the classifier's probabilities, shape `(N, K)`.
        oracle_probs: those of the oracle, if one was given.
    """

    probs: Float[Tensor, "N K"]
    oracle_probs: Float[Tensor, "N K"] | None = None

    @property
    def prediction(self) -> Int[Tensor, " N"]:
        """The classifier's verdict on each image."""
        return self.probs.argmax(dim=1)

    @property
    def oracle_prediction(self) -> Int[Tensor, " N"] | None:
        """The oracle's verdict on each image."""
        return None if self.oracle_probs is None else self.oracle_probs.argmax(dim=1)


@dataclass(frozen=True, kw_only=True)
class Result(ABC):
    """What a method found. Report, web page and command line know only what is declared here.

    A subclass is a frozen dataclass of tensors, numbers, strings, tuples of strings and `None`. A field of 8-bit
    images is declared `field(metadata=EIGHT_BITS)` and is stored as bytes; one that is the same for every batch is
    declared `field(metadata=SHARED)`.

    Attributes:
        origin: where its images come from, for those who label them: drawn by a generator, drawn on a boundary of the
            classifier, or from the images that were explained, as they are or changed.
        images: the images that the result claims something about, in [0, 1], 8-bit values.
        verification: set by `Method.__call__`.
    """

    origin: ClassVar[Origin] = "generated"

    images: Float[Tensor, "N C H W"] = field(metadata=EIGHT_BITS)
    verification: Verification | None = None

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where each of the images comes from; as a rule all from the same."""
        return (self.origin,) * len(self.images)

    @property
    def made_from(self) -> tuple[str, ...]:
        """What each of the images is or was made from; "" where it is like no other.

        That is the id of an image that was given, or a name for a start that several were moved from: images of the
        same are nearly alike, and none of them says anything new of a classifier that was taught another.
        """
        return ("",) * len(self.images)

    @property
    @abstractmethod
    def summary(self) -> dict[str, float]:
        """The result in scalars."""

    @property
    @abstractmethod
    def table(self) -> pa.Table:
        """One row an image."""

    @property
    @abstractmethod
    def definitions(self) -> Mapping[str, str]:
        """What each key of `summary` and each column of `table` means."""

    @property
    @abstractmethod
    def figures(self) -> Sequence[Figure]:
        """What to show."""

    @property
    def findings(self) -> Sequence[Finding]:
        """What belongs on the first page of a report, the most important first; by default nothing."""
        return ()

    @property
    def checks(self) -> Mapping[str, str]:
        """What was found out about what other steps of a study name, such as a style dimension, by its name there."""
        return {}

    def with_checks(self, checks: Mapping[str, str]) -> "Result":
        """Return the result as it is to be told beside what other steps found out; by default as it is.

        Args:
            checks: those of all other steps of the same classifier and generator.
        """
        return self

    @final
    def save(self, folder: Path) -> None:
        """Save as `result.safetensors` and `result.json`."""
        tensors: dict[str, Tensor] = {}
        plain: dict[str, Any] = {}
        for name, value, eight_bits in self._leaves():
            if isinstance(value, Tensor):
                tensors[name] = (value * 255).round().to(torch.uint8) if eight_bits else value
            else:
                plain[name] = list(value) if isinstance(value, tuple) else value
        write_tensors(folder / "result.safetensors", tensors)
        header = {"type": type(self).__name__, "sha256": digest(folder / "result.safetensors")}
        write_json(folder / "result.json", header | {"values": plain})

    @final
    @classmethod
    def load(cls, folder: Path) -> "Result":
        """Load what `save` wrote.

        Raises:
            WeightsError: if the files are missing, broken, or of another kind of result.
        """
        tensors = read_tensors(folder / "result.safetensors")
        document = read_json(folder / "result.json")
        if document.get("type") != cls.__name__:
            raise WeightsError(f"Expected a {cls.__name__} in {folder}, but got {document.get('type')!r}.")
        if document.get("sha256") != digest(folder / "result.safetensors"):
            raise WeightsError(
                f"Expected the two files of the result in {folder} to belong together, but the tensors have another "
                "SHA-256 than result.json says. Run the step again."
            )
        plain = document.get("values")
        values: dict[str, Any] = (plain if isinstance(plain, dict) else {}) | tensors
        arguments: dict[str, Any] = {}
        for entry in fields(cls):
            if entry.name in values:
                value = values[entry.name]
                if entry.metadata.get("eight_bits") and isinstance(value, Tensor):
                    value = value.float() / 255
                arguments[entry.name] = tuple(value) if isinstance(value, list) else value
        probs = tensors.get("verification.probs")
        if probs is not None:
            oracle = tensors.get("verification.oracle_probs")
            arguments["verification"] = Verification(probs=probs, oracle_probs=oracle)
        _check_fields(cls, arguments, folder)
        return cls(**arguments)

    def _leaves(self) -> list[tuple[str, Any, bool]]:
        leaves = []
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Verification):
                leaves += [(f"verification.{e.name}", getattr(value, e.name), False) for e in fields(value)]
            elif value is not None:
                leaves.append((entry.name, value, bool(entry.metadata.get("eight_bits"))))
        return [leaf for leaf in leaves if leaf[1] is not None]


R = TypeVar("R", bound=Result)


class Method(ABC, Generic[R]):
    """A question that is answered with images.

    A method is one class with keyword-only settings, and one step to write, `run`. The call is final: it checks
    what it is given, runs, and verifies.

    Attributes:
        result_type: what `run` returns; `load_result` finds it by its name.
        ranks_over: the setting that says how many samples it ranks styles over by their influence, for a method that
            does so and has a `score` for it; "" for others. A study lets all its steps that rank styles begin with the
            same population, which then need be measured only once.
    """

    result_type: ClassVar[type[Result]]
    ranks_over: ClassVar[str] = ""

    @abstractmethod
    def run(
        self,
        classifier: Classifier,
        generator: Generator,
        x: Float[Tensor, "N C H W"],
        y: Int[Tensor, " N"],
        *,
        ids: tuple[str, ...],
        rng: torch.Generator,
    ) -> R:
        """Answer the question; the input has been checked, and what is claimed will be verified."""

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Refuse settings that name classes which the classifier does not know; before anything is computed.

        Args:
            class_names: those that it knows.

        Raises:
            FailscapeError: what `run` would raise of them.
        """

    @final
    def __call__(
        self,
        classifier: Classifier,
        generator: Generator,
        x: Float[Tensor, "N C H W"],
        y: Int[Tensor, " N"],
        *,
        rng: torch.Generator,
        oracle: Classifier | None = None,
        ids: Sequence[str] | None = None,
    ) -> R:
        """Check, run, verify.

        Args:
            classifier: what is explained.
            generator: what draws the images.
            x: images in [0, 1].
            y: the class that each image is to be classified as.
            rng: the source of every random draw.
            oracle: a classifier trained apart; it judges, and never guides.
            ids: a name for each image; by default its position.

        Raises:
            ImageError: if the images are not `(N, C, H, W)`, finite and in [0, 1].
            LabelError: if the labels are not one integer an image, or not classes of the classifier.
            ClassifierError: if classifier or oracle do not fit the images or each other.
            GeneratorError: if the generator draws images of another shape.
        """
        _check_images(x, y)
        _check_models(classifier, generator, oracle, x, y)
        names = tuple(str(i) for i in range(len(x))) if ids is None else tuple(ids)
        if len(names) != len(x):
            raise LabelError(f"Expected one id an image, {len(x)} in all, but got {len(names)}.")
        result = self.run(classifier, generator, x, y.long(), ids=names, rng=rng)
        # All that is saved in 8 bits is rounded now, so that a loaded result is the same as this one.
        eight_bits = [entry.name for entry in fields(result) if entry.metadata.get("eight_bits")]
        rounded: dict[str, Tensor] = {name: to_8_bits(getattr(result, name)) for name in eight_bits}
        images = rounded["images"]
        verification = Verification(
            probs=classifier.probs(images), oracle_probs=None if oracle is None else oracle.probs(images)
        )
        return replace(result, verification=verification, **rounded)


class BatchedMethod(Method[R]):
    """A method that goes through the images one batch at a time.

    `map` answers for one batch, `reduce` joins the answers. Every batch has its own random stream, drawn from
    `rng` beforehand, so the result does not depend on where or in which order batches are computed.
    """

    batch_size: int = 256

    @abstractmethod
    def map(
        self,
        classifier: Classifier,
        generator: Generator,
        x: Float[Tensor, "N C H W"],
        y: Int[Tensor, " N"],
        *,
        ids: tuple[str, ...],
        rng: torch.Generator,
    ) -> R:
        """Answer for one batch."""

    def reduce(self, partials: Sequence[R]) -> R:
        """Join the answers: tensors and tuples row after row, everything else from the first."""
        if len(partials) == 1:
            return partials[0]
        joined: dict[str, Any] = {}
        for entry in fields(partials[0]):
            values = [getattr(partial, entry.name) for partial in partials]
            if entry.metadata.get("shared"):
                continue
            if isinstance(values[0], Tensor):
                joined[entry.name] = torch.cat(values)
            elif isinstance(values[0], tuple):
                joined[entry.name] = tuple(item for value in values for item in value)
        return replace(partials[0], **joined)

    @final
    def run(
        self,
        classifier: Classifier,
        generator: Generator,
        x: Float[Tensor, "N C H W"],
        y: Int[Tensor, " N"],
        *,
        ids: tuple[str, ...],
        rng: torch.Generator,
    ) -> R:
        """Map over the batches and reduce."""
        starts = range(0, len(x), self.batch_size)
        seeds = torch.randint(2**62, (len(starts),), generator=rng).tolist()
        partials = []
        for start, seed in zip(starts, seeds, strict=True):
            part = slice(start, start + self.batch_size)
            stream = torch.Generator().manual_seed(seed)
            partials.append(self.map(classifier, generator, x[part], y[part], ids=ids[part], rng=stream))
        return self.reduce(partials)


def _check_fields(kind: type[Result], arguments: Mapping[str, Any], folder: Path) -> None:
    """Refuse what a file holds in place of a result: fields missing, of other types, or of lengths at odds."""
    with jaxtyped("context"):
        for entry in fields(kind):
            if entry.name not in arguments:
                fits = entry.default is not MISSING
            elif entry.name == "verification":
                fits = all(_fits(getattr(arguments[entry.name], e.name), e.type) for e in fields(Verification))
            else:
                fits = _fits(arguments[entry.name], entry.type)
            if not fits:
                raise WeightsError(
                    f"Expected a complete {kind.__name__} in {folder}, but {entry.name!r} is missing or of another "
                    "type or shape. Run the step again."
                )


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, UnionType):
        return any(_fits(value, part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    return isinstance(value, (int, float) if kind is float else kind)


def _check_images(x: Tensor, y: Tensor) -> None:
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise ImageError(
            f"Expected images and labels as torch tensors, but got {type(x).__name__} and {type(y).__name__}. Convert "
            "them with torch.from_numpy."
        )
    if x.ndim != 4 or x.dtype != torch.float32 or len(x) == 0:
        raise ImageError(
            f"Expected at least one image, float32 of shape (N, C, H, W), but got {x.dtype} of shape {tuple(x.shape)}."
        )
    if not x.isfinite().all() or x.min() < 0 or x.max() > 1:
        raise ImageError(
            f"Expected images in [0, 1], but got values from {x.min():.3g} to {x.max():.3g}. Divide 8-bit images by "
            "255 and remove NaN."
        )
    if y.shape != (len(x),) or y.is_floating_point() or y.dtype == torch.bool:
        raise LabelError(
            f"Expected one integer label an image, shape ({len(x)},), but got {y.dtype} of shape {tuple(y.shape)}."
        )


def _check_models(
    classifier: Classifier, generator: Generator, oracle: Classifier | None, x: Tensor, y: Tensor
) -> None:
    shape = tuple(x.shape[1:])
    if classifier.image_shape != shape:
        raise ClassifierError(
            f"Expected images of shape {classifier.image_shape} (C, H, W) for {classifier.name}, but got {shape}. "
            "Resize the images."
        )
    if generator.image_shape != shape:
        raise GeneratorError(
            f"Expected a generator of images of shape {shape}, but this one draws {generator.image_shape}. Train one "
            "on images of that shape: `failscape train vae`."
        )
    if oracle is not None and (oracle.image_shape != shape or oracle.num_classes != classifier.num_classes):
        raise ClassifierError(
            f"Expected an oracle for images of shape {shape} and {classifier.num_classes} classes, but "
            f"{oracle.name} takes {oracle.image_shape} and has {oracle.num_classes}."
        )
    if oracle is not None and oracle.class_names != classifier.class_names:
        raise ClassifierError(
            f"Expected an oracle of the same classes as {classifier.name}, {classifier.class_names}, but "
            f"{oracle.name} has {oracle.class_names}. Give both the same class names, in the same order."
        )
    if y.min() < 0 or y.max() >= classifier.num_classes:
        raise LabelError(
            f"Expected labels from 0 to {classifier.num_classes - 1}, the classes of {classifier.name}, but got "
            f"{int(y.min())} to {int(y.max())}."
        )
