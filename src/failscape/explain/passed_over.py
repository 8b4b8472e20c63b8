"""Style dimensions that were tried and gave no corner case: what they are, and how near they came."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import pyarrow as pa
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.figures import Plot, strips

# A dimension that lowers the probability by less, wherever it is moved, has no effect.
NO_EFFECT = 0.01
_OUTCOMES = ("lowered, but not to 0.50", "without effect")
# Of `PassedOver.table`.
PASSED_OVER = pa.schema(
    {
        "true_class": pa.string(),
        "dimension": pa.int64(),
        "layer": pa.string(),
        "outcome": pa.string(),
        "before": pa.float32(),
        "lowest": pa.float32(),
    }
)
# Dimensions without effect that the caption names of each class.
_NAMED = 12


@final
@dataclass(frozen=True, kw_only=True)
class PassedOver:
    """Dimensions that, moved by themselves, nowhere brought the true class to one half.

    Attributes:
        y: the true class.
        dimension: the style.
        layers: the layer of each, in words.
        before: probability of the true class at the start.
        lowest: the lowest that was met while the dimension was moved, both ways.
        class_names: K names.
    """

    y: Int[Tensor, " M"]
    dimension: Int[Tensor, " M"]
    layers: tuple[str, ...]
    before: Float[Tensor, " M"]
    lowest: Float[Tensor, " M"]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.y)

    @property
    def without_effect(self) -> Bool[Tensor, " M"]:
        """Which nowhere lower the probability by 0.01."""
        return self.before - self.lowest < NO_EFFECT

    @property
    def table(self) -> pa.Table:
        """One row a class and dimension, in the order in which they were tried."""
        names = [self.class_names[k] for k in self.y.tolist()]
        outcomes = [_OUTCOMES[without] for without in self.without_effect.tolist()]
        return pa.table(
            {
                "true_class": names,
                "dimension": self.dimension.numpy(),
                "layer": list(self.layers),
                "outcome": outcomes,
                "before": self.before.numpy(),
                "lowest": self.lowest.numpy(),
            },
            schema=PASSED_OVER,
        )

    @property
    def figure(self) -> Plot:
        """How near each came, by class; the caption names those without effect."""
        return Plot(
            name="passed-over",
            title="Dimensions that were tried and lose no class",
            caption="Each mark is a style dimension that was moved by itself, both ways, and nowhere brought the true "
            "class to 0.50: the lowest probability of the true class that was met. Open circles are dimensions without "
            f"effect, which nowhere lower it by {NO_EFFECT}. {self._named()}",
            draw=self._draw,
        )

    def _named(self) -> str:
        """Name the dimensions without effect, class by class."""
        lists = []
        for k in self._classes():
            dimensions = self.dimension[(self.y == k) & self.without_effect].tolist()
            if dimensions:
                more = len(dimensions) - _NAMED
                shown = ", ".join(f"s{d}" for d in dimensions[:_NAMED])
                lists.append(f"for {self.class_names[k]}: {shown}{f' and {more} more' if more > 0 else ''}")
        return f"Without effect {'; '.join(lists)}." if lists else "None of them is without effect."

    def _classes(self) -> Sequence[int]:
        classes: list[int] = self.y.unique().tolist()
        return classes

    def _draw(self) -> Drawing:
        rows = {self.class_names[k]: self.y == k for k in self._classes()}
        return strips(
            {name: self.lowest[row] for name, row in rows.items()},
            opened={name: self.without_effect[row] for name, row in rows.items()},
            x_label="lowest probability of the true class",
            y_label="true class",
            x_limits=(0.48, 1.02),
        )
