"""What a paper claims, what we set out to reach, and what was measured."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from failscape.metrics import Estimate
from failscape.storage import write_bytes, write_json


@final
@dataclass(frozen=True, kw_only=True)
class Claim:
    """One line of the comparison.

    Attributes:
        key: where the number stands in `metrics.json`, dots between nested names.
        what: what is measured, in plain words.
        paper: the paper's result, as text.
        at_least: the value to reach, if a lower bound.
        at_most: the value to reach, if an upper bound.
        above: the value to exceed, where to equal it is not enough.
        note: what a reader must know to judge the number.
    """

    key: str
    what: str
    paper: str = "–"
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    note: str = ""

    @property
    def target(self) -> str:
        """The value to reach, as text."""
        if self.above is not None:
            return f"> {self.above:g}"
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return f"≤ {self.at_most:g}" if self.at_most is not None else "–"

    def is_reached(self, value: float) -> bool | None:
        """Tell whether `value` is what was asked for; None where nothing was."""
        if math.isnan(value) or self.target == "–":
            return None
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
        )


def write_metrics(run: Path, numbers: Mapping[str, Estimate | float | int], claims: Sequence[Claim]) -> None:
    """Write `metrics.json`, dotted keys nested, and `claims.json`, in which the report finds the comparison.

    Every claim's key must be among the numbers. A number that does not exist (a mean of nothing) is null.

    Args:
        run: the run folder.
        numbers: dotted key to an estimate, written as `{"value", "low", "high", "n"}`, or to a plain number.
        claims: in the order to be shown.
    """
    nested: dict[str, Any] = {}
    for key, number in numbers.items():
        *parents, last = key.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = _plain(number)
    rows = []
    for claim in claims:
        number = numbers[claim.key]
        value = number.value if isinstance(number, Estimate) else float(number)
        interval = asdict(number) if isinstance(number, Estimate) else {"low": None, "high": None, "n": None}
        rows.append(
            {
                "key": claim.key,
                "what": claim.what,
                "paper": claim.paper,
                "target": claim.target,
                **{name: _finite(end) for name, end in interval.items()},
                "value": _finite(value),
                "reached": claim.is_reached(value),
                "note": claim.note,
            }
        )
    write_json(run / "metrics.json", nested)
    write_json_list(run / "claims.json", rows)


def write_json_list(target: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace `target` by a JSON list of objects in one step."""
    write_bytes(target, (json.dumps(rows, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())


def _plain(number: Estimate | float | int) -> Any:
    if isinstance(number, Estimate):
        return {name: _finite(value) for name, value in asdict(number).items()}
    return _finite(number)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
