"""Numbers and names as a reader wants them: rounded, shares in percent, names with their definitions."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

MINUS = "\N{MINUS SIGN}"
EN_DASH = "\N{EN DASH}"
NO_BREAK = "\N{NO-BREAK SPACE}"

# A definition that begins so defines a share of a whole, which reads best in percent.
_SHARES = ("share", "rate", "fraction", "proportion", "accuracy")


@final
@dataclass(frozen=True)
class Term:
    """A name that the reader meets, with the identifier of its definition on the page, if it has one."""

    text: str
    ref: str | None


@final
@dataclass(frozen=True)
class Glossary:
    """The definitions of one step or figure, each with an identifier that is unique on the page.

    Attributes:
        prefix: what the identifiers begin with.
        definitions: name to meaning.
    """

    prefix: str
    definitions: Mapping[str, str]

    @property
    def entries(self) -> list[tuple[str, str, str]]:
        """Identifier, readable name and meaning of each definition."""
        return [(f"{self.prefix}-{i}", readable(name), text) for i, (name, text) in enumerate(self.definitions.items())]

    def term(self, name: str) -> Term:
        """Return a name with the identifier of its definition."""
        places = {key: i for i, key in enumerate(self.definitions)}
        return Term(readable(name), f"{self.prefix}-{places[name]}" if name in places else None)

    def is_share(self, name: str) -> bool:
        """Return whether the definition says that this is a share of a whole."""
        return self.definitions.get(name, "").lower().startswith(_SHARES)


@final
@dataclass(frozen=True)
class Row:
    """One line of a summary."""

    term: Term
    value: str
    interval: str
    count: str


def summary_rows(summary: Mapping[str, float | int | None], glossary: Glossary) -> list[Row]:
    """Return the lines of a summary; `KEY_low`, `KEY_high` and `KEY_n` join the line of their KEY."""
    rows = []
    for key in measured(summary, glossary.definitions):
        share = glossary.is_share(key)
        low, high = summary.get(f"{key}_low"), summary.get(f"{key}_high")
        rows.append(
            Row(
                term=glossary.term(key),
                value=number(summary.get(key), share=share),
                interval=interval(low, high, share=share),
                count=number(summary[f"{key}_n"]) if f"{key}_n" in summary else "",
            )
        )
    return rows


def measured(names: Iterable[str], definitions: Mapping[str, str]) -> list[str]:
    """Return what the names measure; `KEY_low`, `KEY_high`, `KEY_n` belong to KEY even if it has no value."""
    known = {*names, *definitions}
    bases = ((name, name.rpartition("_")) for name in names)
    return list(
        dict.fromkeys(base if end in ("low", "high", "n") and base in known else name for name, (base, _, end) in bases)
    )


def readable(name: str) -> str:
    """Return an identifier as words: `success_rate` as "success rate"."""
    return name.replace("_", " ").strip()


def number(value: Any, *, share: bool = False) -> str:
    """Return a value as text: three significant digits, percent if it is a share, a dash if there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return EN_DASH
    if isinstance(value, list | tuple):
        return ", ".join(number(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if share:
        return f"{_significant(100.0 * value)}{NO_BREAK}%"
    return _significant(float(value))


def interval(low: Any, high: Any, *, share: bool = False) -> str:
    """Return "low to high", or nothing if an end is not a number."""
    if not all(isinstance(end, int | float) and not math.isnan(end) for end in (low, high)):
        return ""
    first = number(low, share=share).removesuffix(f"{NO_BREAK}%")
    return f"{first} to {number(high, share=share)}"


def _significant(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        text = f"{int(value):,}"
    elif abs(value) >= 100:
        text = f"{value:,.1f}"
    elif abs(value) >= 1e-3:
        text = f"{value:.3g}"
    else:
        text = f"{value:.1e}"
    return text.replace("-", MINUS)
