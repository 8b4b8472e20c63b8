"""What is met on ways between classes, and how it is shown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.explain.method import SHARED, Origin, Result
from failscape.figures import (
    Case,
    Figure,
    Finding,
    Gallery,
    Line,
    Panel,
    Plot,
    heat_tables,
    image_grid,
    path_drawing,
    percent,
)
from failscape.metrics import mean, rate

_STRIP = 9
_STRIPS = 12
_PANELS = 6
_AXIS = "part of the way"

_DEFINITIONS = {
    "ways": "Ways that were gone from one class to another.",
    "direct": "Share of the ways on which the classifier's verdict changes once, from the class where the way begins "
    "to the class where it ends. Interval: Wilson, 95 %.",
    "arrives": "Share of the ways at whose two ends the classifier says the two classes; where it does not, the centre "
    "of a class does not look like the class to it. Interval: Wilson, 95 %.",
    "third": "Share of the ways that arrive on which the classifier says a third class somewhere. Interval: Wilson, "
    "95 %. Of one way, in the table: the third classes.",
    "third_way": "Share of a way on which the classifier says neither of its two classes; the mean over the ways that "
    "arrive. Interval: bootstrap, 95 %.",
    "changes": "Places found at which the verdict changes.",
    "held": "Share of these of which the 8-bit images on both sides, classified again, have the two verdicts claimed. "
    "Interval: Wilson, 95 %.",
    "gap": "Largest distance between the two sides of a change, as a part of the way.",
    "oracle_third": "Share of the ways that arrive on which the oracle, a classifier trained apart that guides "
    "nothing, says a third class at one of the points looked at. Interval: Wilson, 95 %.",
    "oracle_agrees": "Share of the points of a way where the oracle says what the classifier says; the mean over the "
    "ways. Interval: bootstrap, 95 %.",
    "id": "Name of the way: where it begins and where it ends.",
    "from": "The class where it begins.",
    "to": "The class where it ends.",
    "begins": "With the centroid of that class, or with the latent of an image of it.",
    "way": "straight, or great circle about the origin of the latent space.",
    "length": "Its length in units of the latent space.",
    "met": "What the classifier says, in order.",
    "places": "Where its verdict changes, as parts of the way: in the middle between the two sides of each change.",
    "oracle_met": "What the oracle says at the points looked at, in order.",
}


@final
@dataclass(frozen=True, kw_only=True)
class CentroidPathResult(Result):
    """What `CentroidPath` found; L ways of T points, Q changes of the verdict.

    Attributes:
        images: the points of way after way, then two images a change, before and after it, 8-bit values in [0, 1].
        ids: names of the ways.
        position: of the points, from 0 to 1.
        first: class where each way begins.
        second: class where it ends.
        sample: number of the image where it begins, or -1 if that is a centroid.
        great_circle: whether it is the great circle.
        length: in units of the latent space.
        change_path: the way that each change is on, rising.
        change_low: its position, the side before.
        change_high: its position, the side after.
        change_before: the verdict claimed before.
        change_after: the verdict claimed after.
        shown: ways of which there is a figure each.
        class_names: K names.
    """

    ids: tuple[str, ...]
    position: Float[Tensor, " T"]
    first: Int[Tensor, " L"]
    second: Int[Tensor, " L"]
    sample: Int[Tensor, " L"]
    great_circle: Bool[Tensor, " L"]
    length: Float[Tensor, " L"]
    change_path: Int[Tensor, " Q"]
    change_low: Float[Tensor, " Q"]
    change_high: Float[Tensor, " Q"]
    change_before: Int[Tensor, " Q"]
    change_after: Int[Tensor, " Q"]
    shown: int
    class_names: tuple[str, ...] = field(metadata=SHARED)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Drawn; on ways that begin at an image, made from that."""
        return tuple("test" if self.sample[way] >= 0 else "generated" for way in self._ways)

    @property
    def made_from(self) -> tuple[str, ...]:
        """The image that the way begins at, or the way."""
        starts = [name.rpartition(" → ")[0].removeprefix("image ") for name in self.ids]
        return tuple(starts[way] if self.sample[way] >= 0 else self.ids[way] for way in self._ways)

    @property
    def place(self) -> Float[Tensor, " Q"]:
        """Where each change is, as a part of its way."""
        return (self.change_low + self.change_high) / 2

    @property
    def probs(self) -> Float[Tensor, "L T K"]:
        """The classifier's probabilities at the points."""
        assert self.verification is not None
        probs: Tensor = self.verification.probs[: self._scanned].unflatten(0, (len(self.ids), -1))
        return probs

    @property
    def oracle_probs(self) -> Float[Tensor, "L T K"] | None:
        """The oracle's."""
        assert self.verification is not None
        probs = self.verification.oracle_probs
        return None if probs is None else probs[: self._scanned].unflatten(0, (len(self.ids), -1))

    @property
    def held(self) -> Bool[Tensor, " Q"]:
        """Whether the verified images on both sides of each change have the verdicts claimed."""
        assert self.verification is not None
        said = self.verification.prediction[self._scanned :].view(-1, 2)
        return (said == torch.stack([self.change_before, self.change_after], dim=1)).all(dim=1)

    @property
    def arrives(self) -> Bool[Tensor, " L"]:
        """Whether the classifier says the two classes of each way at its two ends."""
        said = self.probs[:, [0, -1]].argmax(dim=2)
        return (said == torch.stack([self.first, self.second], dim=1)).all(dim=1)

    def met(self, way: int) -> list[int]:
        """Return the classes that the classifier says on a way, in order, each as often as it comes back."""
        return [label for label, _ in groupby(self._verdicts(way)[1].tolist())]

    def oracle_met(self, way: int) -> list[int]:
        """Return the classes that the oracle says at the points of a way, in order; none without an oracle."""
        probs = self.oracle_probs
        return [] if probs is None else [label for label, _ in groupby(probs[way].argmax(dim=1).tolist())]

    def thirds(self, met: Sequence[int], way: int) -> list[int]:
        """Return those of the classes met on a way that are neither of its two, each once."""
        ends = (int(self.first[way]), int(self.second[way]))
        return [label for label in dict.fromkeys(met) if label not in ends]

    def shares(self, way: int) -> Float[Tensor, " K"]:
        """Return the part of a way on which the classifier says each class."""
        position, verdicts = self._verdicts(way)
        # Half of each step belongs to either of its ends; where the verdict changes the step is a bracket's width.
        steps = position.diff()
        shares = torch.zeros(len(self.class_names), dtype=torch.float64)
        return shares.index_add(0, verdicts[:-1], steps / 2).index_add(0, verdicts[1:], steps / 2)

    @property
    def passes_third(self) -> Bool[Tensor, " A"]:
        """Of each of the ways that arrive, whether the classifier says a third class on it.

        A way that does not begin or end at its class, to the classifier, meets other classes for that reason alone.
        """
        return torch.tensor([bool(self.thirds(self.met(way), way)) for way in self._arriving], dtype=torch.bool)

    @property
    def third_way(self) -> Float[Tensor, " L"]:
        """The part of each way on which the classifier says neither of its two classes."""
        parts = []
        for way in range(len(self.ids)):
            shares = self.shares(way)
            shares[[int(self.first[way]), int(self.second[way])]] = 0
            parts.append(float(shares.sum()))
        return torch.tensor(parts)

    @property
    def summary(self) -> dict[str, float]:
        """How directly one class becomes another."""
        ways = range(len(self.ids))
        met = [self.met(way) for way in ways]
        ends = list(zip(self.first.tolist(), self.second.tolist(), strict=True))
        direct = [tuple(classes) == end for classes, end in zip(met, ends, strict=True)]
        summary = {"ways": float(len(self.ids)), "changes": float(len(self.change_path))}
        summary |= rate(torch.tensor(direct)).named("direct")
        summary |= rate(self.arrives).named("arrives")
        if self._arriving:
            summary |= rate(self.passes_third).named("third")
            summary |= mean(self.third_way[self.arrives]).named("third_way")
        if len(self.change_path):
            summary |= rate(self.held).named("held")
            summary["gap"] = float((self.change_high - self.change_low).max())
        agrees = self._oracle_agrees()
        if agrees is not None:
            if self._arriving:
                theirs = [bool(self.thirds(self.oracle_met(way), way)) for way in self._arriving]
                summary |= rate(torch.tensor(theirs)).named("oracle_third")
            summary |= mean(agrees.double().mean(dim=1)).named("oracle_agrees")
        return summary

    @property
    def table(self) -> pa.Table:
        """One row a way."""
        names, ways = self.class_names, range(len(self.ids))
        columns: dict[str, object] = {
            "id": pa.array(self.ids, pa.string()),
            "from": [names[k] for k in self.first.tolist()],
            "to": [names[k] for k in self.second.tolist()],
            "begins": ["centroid" if sample < 0 else "image" for sample in self.sample.tolist()],
            "way": ["great circle" if circle else "straight" for circle in self.great_circle.tolist()],
            "length": self.length.numpy(),
            "met": [self._names(self.met(way)) for way in ways],
            "third": [", ".join(names[k] for k in self.thirds(self.met(way), way)) for way in ways],
            "third_way": self.third_way.numpy(),
            "places": [", ".join(f"{place:.4f}" for place in self._places(way)) for way in ways],
            "changes": [len(self._places(way)) for way in ways],
        }
        agrees = self._oracle_agrees()
        if agrees is not None:
            columns["oracle_met"] = [self._names(self.oracle_met(way)) for way in ways]
            columns["oracle_agrees"] = agrees.double().mean(dim=1).numpy()
        return pa.table(columns)

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        return _DEFINITIONS

    @property
    def figures(self) -> Sequence[Figure]:
        """Strips of images, the ways that meet most of another class, the pairs side by side, and every way."""
        order = self._most_telling()
        figures: list[Figure] = [
            Plot(
                name="strips",
                title="From class to class",
                caption="A row a way, evenly spaced images from its beginning to its end; above each stands what the "
                "classifier says of it where that is not what it says of the picture before."
                + (
                    f" Of {len(order)} ways {_STRIPS}: first those that arrive, that is, at whose two ends the "
                    "classifier says the two classes, and of these those with most of a third class between."
                    * (len(order) > _STRIPS)
                ),
                draw=lambda: self._draw_strips(order[:_STRIPS]),
            )
        ]
        figures += [self._plot(number, way) for number, way in enumerate(order[: self.shown], start=1)]
        if len({*zip(self.first.tolist(), self.second.tolist(), strict=True)}) > 2:
            figures.append(
                Plot(
                    name="third-classes",
                    title="How much of the way belongs to a third class",
                    caption="Percent of the way from the class of the row to the class of the column on which the "
                    "classifier says neither; the mean over the ways of the pair. Empty where no way was gone.",
                    draw=self._draw_thirds,
                )
            )
        gallery = Gallery(
            name="cases",
            title="Every way",
            caption=f"Evenly spaced images of each way, each at its {_AXIS}, and the probabilities of the two classes "
            "and of every other one that the classifier says on it.",
            class_names=self.class_names,
            cases=[self._case(way) for way in order],
            definitions={key: _DEFINITIONS[key] for key in ("length", "third_way", "changes", "oracle_agrees")},
        )
        return [*figures, gallery]

    @property
    def findings(self) -> Sequence[Finding]:
        """What lies between which classes."""
        found = [finding for finding in (self._between(), self._mistaken_centres()) if finding is not None]
        agrees = self._oracle_agrees()
        if agrees is not None:
            share = percent(float(agrees.double().mean()))
            found.append(
                Finding(
                    sentence=f"A second classifier, which judges and never guides, says the same at {share} of the "
                    f"{agrees.numel():,} points looked at on the ways between classes."
                )
            )
        return found

    def _between(self) -> Finding | None:
        """Tell which class lies between which, of the ways that lead from the one class to the other."""
        way, arrived = self._most_telling()[0], len(self._arriving)
        if not arrived:
            return None
        first, second = (self.class_names[int(k[way])] for k in (self.first, self.second))
        ways = len(self.ids)
        shares = self.shares(way)
        shares[[int(self.first[way]), int(self.second[way])]] = 0
        if shares.any():
            between = int(shares.argmax())
            sentence = (
                f"Between {first} and {second} lies {self.class_names[between]}: on the way from one to the other the "
                f"classifier says so for {percent(float(shares[between]))} of it; a third class is met on "
                f"{int(self.passes_third.sum()):,} of the {arrived:,} ways at whose ends it says the two classes, of "
                f"{ways:,} that were gone."
            )
        else:
            gone = "the one way that was gone" if ways == 1 else f"each of {ways:,} ways between classes"
            if arrived < ways:
                gone = f"each of the {arrived:,} ways, of {ways:,}, at whose ends it says the two classes"
            sentence = f"On {gone} the classifier says nothing but the two classes; here is {first} to {second}."
        points = self._spread(_PANELS).tolist()
        panels = [Panel(label=self._said(way, point), pixels=self._image(way, point)) for point in points]
        return Finding(sentence=sentence, panels=panels)

    def _mistaken_centres(self) -> Finding | None:
        """Tell the centres of classes that the classifier takes for another class."""
        centres = [(int(self.second[way]), way, len(self.position) - 1) for way in range(len(self.ids))]
        centres += [(int(self.first[way]), way, 0) for way in range(len(self.ids)) if self.sample[way] < 0]
        verdicts = self.probs.argmax(dim=2)
        mistaken = {k: (way, point) for k, way, point in sorted(centres) if int(verdicts[way, point]) != k}
        if not mistaken:
            return None
        label, (way, point) = next(iter(mistaken.items()))
        return Finding(
            sentence=f"The image at the centre of {self.class_names[label]} the classifier takes for "
            f"{self._said(way, point)}; so it is with {len(mistaken):,} of {len({k for k, *_ in centres}):,} classes.",
            panels=[
                Panel(label=f"{self.class_names[k]}: {self._said(*place)}", pixels=self._image(*place))
                for k, place in list(mistaken.items())[:_PANELS]
            ],
        )

    @property
    def _arriving(self) -> list[int]:
        ways: list[int] = self.arrives.nonzero()[:, 0].tolist()
        return ways

    @property
    def _ways(self) -> list[int]:
        """The way that each image is on."""
        points = torch.arange(len(self.ids)).repeat_interleave(len(self.position))
        ways: list[int] = torch.cat([points, self.change_path.repeat_interleave(2)]).tolist()
        return ways

    @property
    def _scanned(self) -> int:
        return len(self.ids) * len(self.position)

    def _verdicts(self, way: int) -> tuple[Float[Tensor, " P"], Int[Tensor, " P"]]:
        """Return the verdicts on all verified images of a way, points and sides of changes, with their positions."""
        assert self.verification is not None
        prediction = self.verification.prediction
        rows = (self.change_path == way).nonzero()[:, 0]
        sides = self._scanned + torch.stack([2 * rows, 2 * rows + 1], dim=1).flatten()
        between = torch.stack([self.change_low[rows], self.change_high[rows]], dim=1).flatten()
        points = way * len(self.position) + torch.arange(len(self.position))
        position, order = torch.cat([self.position, between]).sort(stable=True)
        return position, prediction[torch.cat([points, sides])[order]]

    def _places(self, way: int) -> list[float]:
        places: list[float] = self.place[self.change_path == way].tolist()
        return places

    def _oracle_agrees(self) -> Bool[Tensor, "L T"] | None:
        theirs = self.oracle_probs
        return None if theirs is None else theirs.argmax(dim=2) == self.probs.argmax(dim=2)

    def _names(self, labels: Sequence[int]) -> str:
        return " → ".join(self.class_names[k] for k in labels)

    def _most_telling(self) -> list[int]:
        """Return all ways: those that lead from class to class first, and of them those with most of a third."""
        order: list[int] = (self.third_way + self.arrives.float()).argsort(descending=True, stable=True).tolist()
        return order

    def _spread(self, count: int) -> Int[Tensor, " S"]:
        """Return evenly spaced points, both ends among them."""
        points = len(self.position)
        return torch.linspace(0, points - 1, min(count, points)).round().long()

    def _image(self, way: int, point: int) -> Float[Tensor, "C H W"]:
        return self.images[way * len(self.position) + point]

    def _said(self, way: int, point: int) -> str:
        probs = self.probs[way, point]
        return f"{self.class_names[int(probs.argmax())]} ({percent(float(probs.max()))})"

    def _curves(self, way: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the probabilities along a way, of its two classes and of all met: the classifier's, the oracle's."""
        ends = [int(self.first[way]), int(self.second[way])]
        labels = list(dict.fromkeys([*ends, *self.met(way)]))
        theirs = self.oracle_probs
        own = {self.class_names[k]: self.probs[way, :, k] for k in labels}
        return own, {} if theirs is None else {self.class_names[k]: theirs[way, :, k] for k in labels}

    def _plot(self, number: int, way: int) -> Plot:
        own, theirs = self._curves(way)
        points = self._spread(_STRIP)
        images = torch.stack([self._image(way, point) for point in points.tolist()])
        dotted = " Dotted, in the same colours: the oracle's." if theirs else ""
        return Plot(
            name=f"way-{number}",
            title=self.ids[way],
            caption=f"Images on the way, and under them the classifier's probabilities of its two classes and of every "
            f"other class that it says on it.{dotted} Dashed lines: where the verdict changes, found by bisection.",
            draw=lambda: path_drawing(
                images,
                self.position,
                own,
                second=theirs,
                changes=self._places(way),
                x_label=f"{_AXIS} from {self.class_names[int(self.first[way])]} (0) to "
                f"{self.class_names[int(self.second[way])]} (1)",
                y_label="probability",
            ),
        )

    def _draw_strips(self, ways: Sequence[int]) -> Drawing:
        points = self._spread(_STRIP).tolist()
        cells = torch.stack([torch.stack([self._image(way, point) for point in points]) for way in ways])
        labels = []
        for way in ways:
            said = self.probs[way, points].argmax(dim=1).tolist()
            labels += [self.class_names[k] if i == 0 or k != said[i - 1] else "" for i, k in enumerate(said)]
        return image_grid(cells, row_labels=[self.ids[way] for way in ways], cell_labels=labels)

    def _draw_thirds(self) -> Drawing:
        labels = sorted({*self.first.tolist(), *self.second.tolist()})
        names = [self.class_names[k] for k in labels]
        third, shares = self.third_way, torch.full((len(labels), len(labels)), math.nan)
        for i, first in enumerate(labels):
            for j, second in enumerate(labels):
                rows = (self.first == first) & (self.second == second)
                if rows.any():
                    shares[i, j] = third[rows].mean()
        return heat_tables(
            {"third class": shares}, row_labels=names, column_labels=names, x_label="to", y_label="from", dark="high"
        )

    def _case(self, way: int) -> Case:
        first, second = int(self.first[way]), int(self.second[way])
        met = self.met(way)
        rows = self.change_path == way
        good = met[0] == first and met[-1] == second and bool(self.held[rows].all())
        own, theirs = self._curves(way)
        numbers = {
            "length": f"{float(self.length[way]):.2f}",
            "third_way": percent(float(self.third_way[way])),
            "changes": str(int(rows.sum())),
        }
        agrees = self._oracle_agrees()
        if agrees is not None:
            numbers["oracle_agrees"] = percent(float(agrees[way].double().mean()))
        points = self._spread(_STRIP).tolist()
        probabilities = {"begins": self.probs[way, 0], "ends": self.probs[way, -1]}
        return Case(
            id=self.ids[way],
            heading=self._names(met),
            verdict=self._verdict(way, met, good),
            good=good,
            panels=[
                Panel(label=f"{float(self.position[point]):.2f}", pixels=self._image(way, point)) for point in points
            ],
            probabilities=probabilities,
            numbers=numbers,
            line=Line(
                x=self.position,
                curves=own | {f"{name}, oracle": curve for name, curve in theirs.items()},
                x_label=_AXIS,
            ),
        )

    def _verdict(self, way: int, met: Sequence[int], good: bool) -> str:
        names = self.class_names
        first, second = int(self.first[way]), int(self.second[way])
        if not good and met[0] != first:
            return f"Where it begins, the classifier says {names[met[0]]}, not {names[first]}."
        if not good and met[-1] != second:
            return f"Where it ends, the classifier says {names[met[-1]]}, not {names[second]}."
        if not good:
            return "Failed: rounded to 8 bits, the two sides of a change do not have the verdicts claimed."
        turns = [f"{names[k]} from {place:.3f}" for k, place in zip(met[1:], self._places(way), strict=False)]
        return f"The classifier says {names[met[0]]}, then {', then '.join(turns)} of the way."
