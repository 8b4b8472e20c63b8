"""One row of an ablation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True)
class Variant:
    """A training with something left out or added.

    Attributes:
        title: what is left out or added, in words.
        changes: the settings that differ from ours.
    """

    title: str
    changes: Mapping[str, Any]
