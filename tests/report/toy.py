"""A result with everything that a report can show, of a method that exists only here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
import torch

from failscape.explain import Method, Result
from failscape.explain.method import EIGHT_BITS, SHARED
from failscape.figures import Case, Figure, Finding, Gallery, LatentPlane, Line, Panel, Plot, image_grid


@dataclass(frozen=True, kw_only=True)
class ToyResult(Result):
    """Every third image fails; everything that a gallery can show is there."""

    originals: torch.Tensor = field(metadata=EIGHT_BITS)
    class_names: tuple[str, ...] = field(metadata=SHARED)
    broken: bool
    sentences: tuple[str, ...]

    @property
    def summary(self) -> dict[str, float]:
        return {"success": 2 / 3, "success_low": 0.5, "success_high": 0.8, "success_n": 12, "odd": 0.25}

    @property
    def table(self) -> pa.Table:
        rows = range(len(self.images))
        return pa.table({"id": [f"<img src=x>{i}" for i in rows], "norm": [i / 7 for i in rows]})

    @property
    def definitions(self) -> Mapping[str, str]:
        return {"success": "Share of images that <b>worked</b>.", "norm": "Length.", "change": "What was added."}

    @property
    def figures(self) -> Sequence[Figure]:
        if self.broken:
            raise KeyError("lost")
        plot = Plot(name="sheet", title="A sheet", caption="Pictures.", draw=self._draw)
        cases = [self._case(i) for i in range(len(self.images))]
        gallery = Gallery(
            name="cases", title="Cases", caption="All.", class_names=self.class_names, cases=cases,
            definitions=self.definitions,
        )  # fmt: skip
        return [plot, gallery]

    @property
    def findings(self) -> Sequence[Finding]:
        return [
            Finding(
                sentence=sentence,
                panels=[
                    Panel(label="before: <9>", pixels=self.originals[i]),
                    Panel(label="change", pixels=self.images[i] - self.originals[i], signed=True),
                    Panel(label="after: 4", pixels=self.images[i]),
                ][:i],
            )
            for i, sentence in enumerate(self.sentences)
        ]

    def _draw(self) -> Any:
        return image_grid(self.images[:1, None])

    def _case(self, i: int) -> Case:
        grid = torch.linspace(-2, 2, 32)
        classes = (grid[:, None] + grid > 0).long()
        before = torch.tensor([0.9, 0.1, 0.0])
        return Case(
            id=f"set/{i}<script>",
            heading=f"{self.class_names[0]} → {self.class_names[i % 3]}",
            verdict="Failed, local minimum." if i % 3 == 0 else "Found.",
            good=i % 3 > 0,
            panels=(
                Panel(label="original", pixels=self.originals[i]),
                Panel(label="change", pixels=self.images[i] - self.originals[i], signed=True),
                Panel(label="after", pixels=self.images[i]),
            ),
            probabilities={"before": before, "after": before.flip(0)},
            numbers={"norm": f"{i / 7:.3f}"},
            line=Line(
                x=torch.linspace(0, 1, 5),
                curves={"a": torch.linspace(1, 0, 5), "b": torch.linspace(0, 1, 5)},
                x_label="way",
            ),
            plane=LatentPlane(
                classes=classes, loss=(2 - grid).expand(32, 32), extent=(-2.0, 2.0, -2.0, 2.0),
                path=torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), target=1,
            ),
        )  # fmt: skip


class Toy(Method[ToyResult]):
    result_type: ClassVar[type[Result]] = ToyResult

    def run(self, classifier: Any, generator: Any, x: Any, y: Any, *, ids: Any, rng: Any) -> ToyResult:
        return toy_result(len(x))


def toy_result(
    count: int,
    names: tuple[str, ...] = ("four", "nine", "two"),
    *,
    broken: bool = False,
    sentences: tuple[str, ...] = (),
) -> ToyResult:
    rng = torch.Generator().manual_seed(0)
    images, originals = torch.randint(0, 256, (2, count, 1, 28, 28), generator=rng) / 255
    return ToyResult(images=images, originals=originals, class_names=names, broken=broken, sentences=sentences)
