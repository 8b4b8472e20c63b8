"""The corner cases that people keep while they walk along directions, and the set that they make with the run's own.

A case is two files, named by what they hold: its tensors, and a record that is written last and removed first, so that
after a crash it is there as a whole or not at all.
"""

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

import pyarrow as pa
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from failscape.errors import DataError, StorageError
from failscape.explain import CornerCasesResult
from failscape.explain.case_set import write_case_set
from failscape.explain.passed_over import PASSED_OVER
from failscape.figures import png_bytes
from failscape.report.run import Run, Step
from failscape.storage import read_tensors, write_bytes, write_tensors
from failscape.web.directions import Direction, StartKind, View, Walk, influence_step

# Where a run keeps them.
FOLDER = "kept-corner-cases"
# What draws a case, and its start, again.
_LATENTS = ("styles", "starts", "noise")
_writing = threading.Lock()

Probabilities = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Moved(_Record):
    """How far a case was moved along a direction.

    Attributes:
        dimension: the style.
        id: its name in tables.
        layer: where it acts.
        description: what moving along it changes in a picture.
        deviations: how far, the way that the description says.
        shift: the same in the style's own units.
    """

    dimension: Annotated[int, Field(ge=0)]
    id: str
    layer: str
    description: str
    deviations: float
    shift: float


class Kept(_Record):
    """A corner case that a person kept.

    Attributes:
        id: of its picture and its styles.
        kept_at: seconds since 1970.
        y: its true class: the one asked for, or the label.
        class_names: K names.
        before: the classifier's probability of the true class at the start.
        probs: the classifier's probabilities.
        oracle_probs: those of the oracle, if there was one.
        start: where the walk began.
        value: which sample, class or image that was.
        moves: how it was reached from there.
        classifier: spec of what was misled.
        generator: spec of what drew it.
        oracle: spec of what judged.
    """

    id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    kept_at: float
    y: Annotated[int, Field(ge=0)]
    class_names: tuple[str, ...]
    before: float
    probs: Probabilities
    oracle_probs: Probabilities | None
    start: StartKind
    value: str
    moves: tuple[Moved, ...]
    classifier: str
    generator: str
    oracle: str | None

    @property
    def true_class(self) -> str:
        """The name of its true class."""
        return self.class_names[self.y]

    @property
    def says(self) -> int:
        """What the classifier takes it for."""
        return _likeliest(self.probs)

    @property
    def rival(self) -> int:
        """The most probable class but the true one."""
        return max((k for k in range(len(self.probs)) if k != self.y), key=self.probs.__getitem__)

    @property
    def oracle_says(self) -> int | None:
        """What the oracle takes it for."""
        return None if self.oracle_probs is None else _likeliest(self.oracle_probs)


@final
@dataclass(frozen=True, kw_only=True)
class CaseSet:
    """The corner cases of a run for one classifier and generator.

    Attributes:
        kept: by people, the first kept first.
        steps: those that found some by search, with what they found.
        elsewhere: how many are kept that were drawn by another generator or for another classifier.
        unreadable: how many records are broken.
    """

    kept: tuple[Kept, ...]
    steps: tuple[tuple[Step, CornerCasesResult], ...]
    elsewhere: int = 0
    unreadable: int = 0

    @property
    def found(self) -> int:
        """How many the steps found."""
        return sum(len(result.images) for _, result in self.steps)


def keep(
    view: View, before: View, walk: Walk, folder: Path, *, start: StartKind, value: str, moves: dict[int, float]
) -> tuple[Kept, bool]:
    """Keep an image as a corner case; the same picture of the same styles is kept once.

    Args:
        view: what is kept.
        before: what was seen at the start.
        walk: where it comes from.
        folder: of the run.
        start: where the walk began.
        value: which sample, class or image that was.
        moves: how far along which directions, by their places in the list.

    Returns:
        The case, and whether it is new.

    Raises:
        StorageError: if it cannot be written.
    """
    case = hashlib.sha256(png_bytes(view.x[0]) + view.s.numpy().tobytes()).hexdigest()[:16]
    kept = Kept(
        id=case,
        kept_at=time.time(),
        y=view.y,
        class_names=walk.classifier.class_names,
        before=_clamped(before.probs[0][0, view.y]),
        probs=[_clamped(p) for p in view.probs[0][0]],
        oracle_probs=None if walk.oracle is None else [_clamped(p) for p in view.probs[1][0]],
        start=start,
        value=value,
        moves=tuple(_moved(walk.directions[place], far) for place, far in moves.items() if far),
        classifier=str(walk.record["classifier"]),
        generator=str(walk.record["generator"]),
        oracle=None if walk.oracle is None else str(walk.record["oracle"]),
    )
    record = folder / FOLDER / f"{case}.json"
    with _writing:
        known = _read(record)
        if known is not None:
            return known, False
        tensors = {"image": _bytes(view.x), "original": _bytes(before.x)}
        tensors |= {"styles": view.s.clone(), "starts": before.s.clone(), "noise": view.noise.clone()}
        write_tensors(record.with_suffix(".safetensors"), tensors)
        write_bytes(record, (kept.model_dump_json(indent=2) + "\n").encode())
    return kept, True


def remove(case: str, folder: Path) -> None:
    """Remove a case that was kept, if it is still there.

    Args:
        case: its id.
        folder: of the run.

    Raises:
        StorageError: if it cannot be removed.
    """
    record = folder / FOLDER / f"{case}.json"
    with _writing:
        try:
            record.unlink(missing_ok=True)
            record.with_suffix(".safetensors").unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"Expected to remove a corner case from {record.parent}, but got: {error.strerror or error}. Make the "
                "run folder writable; nothing was removed."
            ) from error


def case_set(run: Run) -> CaseSet:
    """Return the corner cases of a run: those kept for the networks of its directions, and what steps found for these.

    In a run without directions the networks are those of its first step that found corner cases.
    """
    records = sorted((run.folder / FOLDER).glob("[!.]*.json"))
    every = [kept for kept in map(_read, records) if kept is not None]
    searched = [(step, step.result) for step in run.steps if isinstance(step.result, CornerCasesResult)]
    influence = influence_step(run)
    leading = influence[0] if influence is not None else searched[0][0] if searched else None
    if leading is None:
        return CaseSet(kept=(), steps=(), elsewhere=len(every), unreadable=len(records) - len(every))
    networks = _networks(leading)
    kept = sorted(
        (each for each in every if (each.classifier, each.generator) == networks), key=lambda each: each.kept_at
    )
    return CaseSet(
        kept=tuple(kept),
        steps=tuple((step, result) for step, result in searched if _networks(step) == networks),
        elsewhere=len(every) - len(kept),
        unreadable=len(records) - len(every),
    )


def picture(kept: Kept, folder: Path) -> Float[Tensor, "C H W"]:
    """Return the picture of a case.

    Raises:
        WeightsError: if its file is missing or broken.
    """
    return read_tensors(_tensors(kept, folder))["image"][0].float() / 255


def export(cases: CaseSet, run: Path, folder: Path) -> Path:
    """Write a set as `CornerCases` exports its own, so that a test bench takes both alike.

    Beside the columns of `CornerCasesResult.table` there are `origin`, the step or "kept"; `says`, what the classifier
    takes the image for; and for those kept `start`, where the walk began. In rows of those kept, `kind` is "kept",
    `dimension` is -1 but for moves along one direction, and `place` is missing, since nobody measured it.

    Args:
        cases: what is written.
        run: the run folder.
        folder: a new or an empty one.

    Returns:
        The folder.

    Raises:
        DataError: if there is no case, or they are of different classes or shapes.
        WeightsError: if what was kept is broken.
        StorageError: if the folder cannot be written.
    """
    found = [(step, result) for step, result in cases.steps if len(result.images)]
    results = [result for _, result in found]
    names = {each.class_names for each in cases.kept} | {result.class_names for result in results}
    if not names:
        raise DataError("Expected a corner case in the set, but there is none yet. Keep one on the page of directions.")
    tensors = [read_tensors(_tensors(kept, run)) for kept in cases.kept]
    shapes = {(each["image"].shape[1:], *(each[name].shape[1:] for name in _LATENTS)) for each in tensors}
    shapes |= {(result.images.shape[1:], *(getattr(result, name).shape[1:] for name in _LATENTS)) for result in results}
    if len(names) > 1 or len(shapes) > 1:
        raise DataError(
            "Expected corner cases of one set of classes, and of images and styles of one shape, but they have "
            "different ones: the classifier or the generator was changed meanwhile. Remove those that were kept before."
        )
    tables = [
        result.table.append_column(
            "origin", pa.array([step.folder.name] * len(result.images), pa.string())
        ).append_column("says", pa.array(_said(result), pa.string()))
        for step, result in found
    ]
    if cases.kept:
        tables.append(_table(cases.kept))
    passed = [
        result.passed.table.append_column("origin", pa.array([step.folder.name] * len(result.passed), pa.string()))
        for step, result in cases.steps
    ]
    latents = {
        name: torch.cat([*(getattr(result, name) for result in results), *(each[name] for each in tensors)])
        for name in _LATENTS
    }
    return write_case_set(
        folder,
        torch.cat([*(result.images for result in results), *(each["image"].float() / 255 for each in tensors)]),
        torch.cat([*(result.y for result in results), torch.tensor([kept.y for kept in cases.kept], dtype=torch.long)]),
        class_names=next(iter(names)),
        table=pa.concat_tables(tables, promote_options="permissive"),
        passed=pa.concat_tables([PASSED_OVER.append(pa.field("origin", pa.string())).empty_table(), *passed]),
        latents=latents,
    )


def _table(cases: Sequence[Kept]) -> pa.Table:
    """Return what is said of cases, in the columns of `CornerCasesResult.table` and a few more."""
    rows = []
    for kept in cases:
        one = kept.moves[0] if len(kept.moves) == 1 else None
        norm = sum(move.deviations**2 for move in kept.moves) ** 0.5
        # Signed as the style itself is, where a move is signed as its description is.
        signed = norm if one is None else abs(one.deviations) * (1 if one.shift > 0 else -1)
        rows.append(
            {
                "id": kept.id,
                "true_class": kept.true_class,
                "kind": "kept",
                "dimension": -1 if one is None else one.dimension,
                "layer": "all" if one is None else one.layer,
                "direction": "all" if one is None else "up" if one.shift > 0 else "down",
                "shift": norm if one is None else one.shift,
                "deviations": signed,
                "place": None,
                "before": kept.before,
                "probability": kept.probs[kept.y],
                "prediction": kept.class_names[kept.rival],
                "description": "; ".join(f"{move.description} × {move.deviations:+.1f}" for move in kept.moves),
                "oracle_prediction": None if kept.oracle_says is None else kept.class_names[kept.oracle_says],
                "origin": "kept",
                "says": kept.class_names[kept.says],
                "start": f"{kept.start} {kept.value}",
            }
        )
    text: tuple[str, ...] = ("id", "true_class", "kind", "layer", "direction", "place", "prediction", "description")
    text += ("oracle_prediction", "origin", "says", "start")
    numbers = dict.fromkeys(("shift", "deviations", "before", "probability"), pa.float32())
    types = dict.fromkeys(text, pa.string()) | {"dimension": pa.int64()} | numbers
    return pa.table({name: pa.array([row[name] for row in rows], types[name]) for name in rows[0]})


def _likeliest(probs: Sequence[float]) -> int:
    return max(range(len(probs)), key=probs.__getitem__)


def _said(result: CornerCasesResult) -> list[str]:
    assert result.verification is not None
    return [result.class_names[k] for k in result.verification.prediction.tolist()]


def _moved(direction: Direction, deviations: float) -> Moved:
    return Moved(
        dimension=direction.dimension,
        id=direction.id,
        layer=direction.layer,
        description=direction.description,
        deviations=deviations,
        shift=deviations * direction.unit,
    )


def _networks(step: Step) -> tuple[str, str]:
    return str(step.record.get("classifier")), str(step.record.get("generator"))


def _read(record: Path) -> Kept | None:
    """Return a case that was kept; None for one that is not there or broken."""
    try:
        kept = Kept.model_validate_json(record.read_bytes())
    except (OSError, ValidationError):
        return None
    whole = record.stem == kept.id and record.with_suffix(".safetensors").is_file()
    fits = kept.y < len(kept.class_names) == len(kept.probs) == len(kept.oracle_probs or kept.probs)
    return kept if whole and fits else None


def _tensors(kept: Kept, folder: Path) -> Path:
    return folder / FOLDER / f"{kept.id}.safetensors"


def _bytes(x: Float[Tensor, "1 C H W"]) -> Tensor:
    return (x * 255).round().to(torch.uint8)


def _clamped(p: Tensor) -> float:
    return min(1.0, max(0.0, float(p)))
