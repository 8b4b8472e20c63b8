"""What `LatentAccuracy` found: its numbers, its table and its figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import pyarrow as pa
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.explain.method import Result
from failscape.figures import (
    Figure,
    Finding,
    Panel,
    Plot,
    curves_with_bands,
    image_grid,
    percent,
    small_multiples,
)
from failscape.metrics import Estimate, rate_of

_DISTANCE = "distance from the middle of what is classified rightly, in deviations"
# What `image_place` says of pictures that stand beside a finding, and how many there are of each kind.
NEAR, FAR, EXAMPLES = -2, -1, 3
# A difference of two classifiers is told where its p-value, corrected for the number of pairs, is below this.
_LEVEL = 0.05
# Classes without a curve that a sentence names.
_NAMED = 10
_FLATTERED = (
    " A generator that was trained with the verdicts of one classifier draws what that one would call the class asked "
    "for, and so flatters it and classifiers like it: which classifier is the better, real images must say, as in the "
    "corruption table."
)
_INTERVAL = "Interval: bootstrap over samples, 95 %."

_DEFINITIONS = {
    "samples": "Samples drawn, of all classes alike.",
    "styles": "Styles that the distance is taken over: those that change the true class's score most.",
    "influential": "How many of these change the true class's score at all.",
    "smallest_bin": "A bin of distances with fewer samples is left out.",
    "spread": "Share of the samples whose scores were drawn evenly over what the generator supports.",
    "accuracy": "Accuracy of the explained classifier over all samples, at whatever distance. Interval: Wilson, 95 %.",
    "near": "Accuracy over the nearest fifth of the bins of distances. Interval: Wilson, 95 %.",
    "far": "Accuracy over the farthest fifth of the bins of distances. Interval: Wilson, 95 %.",
    "area": "Accuracy averaged over the distances: the area under the curve, divided by the width of the axis. "
    + _INTERVAL,
    "trend": "Spearman's rank correlation of accuracy and distance over the bins: −1 where it falls all the way, "
    "none where it is flat throughout. " + _INTERVAL,
    "id": "Curve and bin.",
    "curve": "The classifier over all classes, or the class by the explained classifier, that the accuracy is of.",
    "from": "Lower edge of the bin: root mean square over the styles, in deviations of each within its class.",
    "to": "Its upper edge.",
    "count": "Samples in the bin.",
    "right": "Share of them that are classified rightly.",
    "right_from": "Lower end of the 95 % Wilson interval of that.",
    "right_to": "Its upper end.",
}


@final
@dataclass(frozen=True, kw_only=True)
class LatentAccuracyResult(Result):
    """What `LatentAccuracy` found.

    Curves are those of the J classifiers, the explained one first, and then those of L classes by that one.

    Attributes:
        images: samples at some distances, from near to far, 8-bit values in [0, 1].
        image_y: the class that each was asked for.
        image_distance: its distance from the middle of what all classifiers are right about.
        image_place: at which of the distances, from the nearest, it is shown; `NEAR` for examples of what is right in
            the nearest fifth of the bins, `FAR` for those of what is wrong in the farthest.
        edges: edges of the bins of the classifiers' curves, then of the classes'.
        count: samples in each bin, one row a curve.
        right: how many of them are classified rightly.
        area: accuracy averaged over the distances, with the ends of its interval; that of classes over distances at
            which all of them have samples. NaN where there are none.
        trend: rank correlation of accuracy and distance over the same bins, with the ends of its interval.
        pairs: indices of two classifiers, one row a pair.
        difference: the first one's area less the second one's, with the ends of its interval.
        p: how likely so large a difference is if there is none; for a pair by itself.
        well: how many of all samples each classifier is right about.
        samples: how many were drawn.
        smallest_bin: bins with fewer samples are left out.
        styles: indices of the styles that the distance of the classifiers' curves is taken over.
        influential: how many of these have an effect.
        spread: part of the samples whose scores were drawn evenly.
        classifiers: J names.
        class_names: K names.
        classes: names of the classes that have a curve.
        left_out: names of those that have none, with the reason in brackets.
    """

    image_y: Int[Tensor, " N"]
    image_distance: Float[Tensor, " N"]
    image_place: Int[Tensor, " N"]
    edges: Float[Tensor, "2 B1"]
    count: Int[Tensor, "R B"]
    right: Int[Tensor, "R B"]
    area: Float[Tensor, "R 3"]
    trend: Float[Tensor, "R 3"]
    pairs: Int[Tensor, "P 2"]
    difference: Float[Tensor, "P 3"]
    p: Float[Tensor, " P"]
    well: Int[Tensor, " J"]
    samples: int
    smallest_bin: int
    styles: Int[Tensor, " k"]
    influential: int
    spread: float
    classifiers: tuple[str, ...]
    class_names: tuple[str, ...]
    classes: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Curve and bin of each row of the table."""
        return tuple(f"{self.curves[row]}, bin {index}" for row, index in self._filled)

    @property
    def curves(self) -> tuple[str, ...]:
        """What each curve is of."""
        return (*self.classifiers, *(f"class {name}" for name in self.classes))

    @property
    def corrected_p(self) -> Float[Tensor, " P"]:
        """`p` of each pair, times the number of pairs (Bonferroni)."""
        return (self.p * len(self.pairs)).clamp_max(1)

    def accuracy(self, curve: int, bins: Int[Tensor, " M"]) -> Estimate:
        """Return the accuracy of a curve over some bins."""
        return rate_of(int(self.right[curve, bins].sum()), int(self.count[curve, bins].sum()))

    @property
    def summary(self) -> dict[str, float]:
        """The explained classifier's curve in numbers, and what it differs by from the others'."""
        overall = rate_of(int(self.well[0]), self.samples)
        summary = {
            "samples": float(self.samples),
            "styles": float(len(self.styles)),
            "influential": float(self.influential),
            "smallest_bin": float(self.smallest_bin),
            "spread": self.spread,
            **overall.named("accuracy"),
        }
        near, far = (self.accuracy(0, bins) for bins in nearest_and_farthest(self._bins(0)))
        summary |= near.named("near") | far.named("far")
        summary |= _triple("area", self.area[0]) | _triple("trend", self.trend[0])
        for other in range(1, len(self.classifiers)):
            name = self.classifiers[other]
            summary |= _triple(f"area of {name}", self.area[other]) | _triple(f"trend of {name}", self.trend[other])
        for pair, (first, second) in enumerate(self.pairs.tolist()):
            key = f"{self.classifiers[first]} and {self.classifiers[second]}"
            summary |= _triple(f"difference of {key}", self.difference[pair]) | {
                f"p of {key}": self.corrected_p[pair].item()
            }
        for name, area in zip(self.classes, self.area[len(self.classifiers) :], strict=True):
            summary |= _triple(f"area of class {name}", area)
        return summary

    @property
    def table(self) -> pa.Table:
        """One row for each bin of each curve."""
        filled = self._filled
        edges = [self._edges(row)[index : index + 2].tolist() for row, index in filled]
        accuracies = [self.accuracy(row, torch.tensor([index])) for row, index in filled]
        return pa.table(
            {
                "id": pa.array(self.ids, pa.string()),
                "curve": pa.array([self.curves[row] for row, _ in filled], pa.string()),
                "from": pa.array([low for low, _ in edges], pa.float64()),
                "to": pa.array([high for _, high in edges], pa.float64()),
                "count": pa.array([each.n for each in accuracies], pa.int64()),
                "right": pa.array([each.value for each in accuracies], pa.float64()),
                "right_from": pa.array([each.low for each in accuracies], pa.float64()),
                "right_to": pa.array([each.high for each in accuracies], pa.float64()),
            }
        )

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        named = {}
        for name in self.classifiers[1:]:
            named[f"area of {name}"] = f"Accuracy of {name}, averaged over the same distances. {_INTERVAL}"
            named[f"trend of {name}"] = (
                f"Spearman's rank correlation of the accuracy of {name} and distance. {_INTERVAL}"
            )
        for first, second in self.pairs.tolist():
            one, two = self.classifiers[first], self.classifiers[second]
            named[f"difference of {one} and {two}"] = (
                f"Accuracy of {one} averaged over the distances, less that of {two}, on the same samples. {_INTERVAL} "
                "It is that of this pair by itself."
            )
            named[f"p of {one} and {two}"] = (
                "Two-sided p-value of that difference, by the same bootstrap, times the number of pairs of classifiers "
                "(Bonferroni)."
            )
        for name in self.classes:
            named[f"area of class {name}"] = (
                f"Accuracy for class {name}, averaged over the distances from the middle of that class at which all "
                f"classes have samples. {_INTERVAL}"
            )
        return _DEFINITIONS | named

    @property
    def figures(self) -> Sequence[Figure]:
        """The curves of the classifiers, those of the classes, and samples from near to far."""
        figures: list[Figure] = []
        deviations = (
            f"The distance is taken over the {len(self.styles)} styles that change the true class's score most, in "
            "deviations of each style within its class, as the root of the mean square; so 1 is how far a sample "
            "typically lies from the middle of its class."
        )
        if not self.influential:
            deviations += " No style changes what the classifier says: any that vary are taken."
        bands = f"Bands: 95 % Wilson intervals. Bins with fewer than {self.smallest_bin} samples are left out."
        if len(self._bins(0)):
            figures.append(
                Plot(
                    name="by-classifier",
                    title="Accuracy against distance in style space",
                    caption=f"Share of samples classified as what was asked for, by their distance from the middle of "
                    f"those that are classified rightly{' by all' if len(self.classifiers) > 1 else ''}. {deviations} "
                    f"{bands}{_FLATTERED if len(self.classifiers) > 1 else ''}",
                    draw=self._draw_classifiers,
                )
            )
        if self.classes:
            missing = f" Left out: {'; '.join(self.left_out)}." if self.left_out else ""
            figures.append(
                Plot(
                    name="by-class",
                    title=f"Accuracy against distance, by class, of {self.classifiers[0]}",
                    caption="Each class has its own middle, its own deviations and its own styles; all other classes "
                    "stand behind it in grey. The number is the accuracy averaged over the distances at which all "
                    f"classes have samples. {bands}{missing}",
                    draw=self._draw_classes,
                )
            )
        if len(self.images):
            figures.append(
                Plot(
                    name="near-and-far",
                    title="What near and far look like",
                    caption="Samples at growing distance, drawn at random at each, so that right and wrong ones are as "
                    "many as they are. At the left the distance. Above each picture the class asked for, and in "
                    f"brackets what {self.classifiers[0]} takes it for, if that is another.",
                    draw=self._draw_samples,
                )
            )
        return figures

    @property
    def findings(self) -> Sequence[Finding]:
        """How far accuracy falls, which classifier keeps more of it, and which class is right least often."""
        if not len(self._bins(0)):
            sentence = (
                f"How accuracy changes with distance cannot be told: no bin of distances holds {self.smallest_bin:,} "
                f"of {self.samples:,} samples.{self._without_a_curve}"
            )
            return (Finding(sentence=sentence),)
        near, far = (self.accuracy(0, bins) for bins in nearest_and_farthest(self._bins(0)))
        if self.well[0] == self.samples:
            sentence = f"None of {self.samples:,} generated images is misclassified, however far from the middle."
        elif far.high < near.low and self.trend[0, 2] < 0:
            sentence = (
                f"Accuracy falls from {percent(near.value)} near the centre of what it gets right to "
                f"{percent(far.value)} far from it."
            )
        else:
            sentence = (
                f"Accuracy does not clearly fall with distance from the centre of what it gets right: "
                f"{percent(near.value)} near it, {percent(far.value)} far from it."
            )
        findings = [Finding(sentence=f"{sentence}{self._without_a_curve}", panels=self._near_and_far())]
        for pair, (first, second) in enumerate(self.pairs.tolist()):
            value, low, high = self.difference[pair].tolist()
            # Of many pairs, some have an interval without zero by chance.
            if (low > 0 or high < 0) and self.corrected_p[pair] < _LEVEL:
                better, worse = (first, second) if value > 0 else (second, first)
                findings.append(
                    Finding(
                        sentence=f"Averaged over all distances {self.classifiers[better]} is right about "
                        f"{percent(self.area[better, 0].item())} of the images, {self.classifiers[worse]} about "
                        f"{percent(self.area[worse, 0].item())}."
                    )
                )
        areas = self.area[len(self.classifiers) :]
        if len(areas) > 1 and bool(areas.isfinite().all()):
            least, most = int(areas[:, 0].argmin()), int(areas[:, 0].argmax())
            if areas[least, 2] < areas[most, 1]:
                findings.append(
                    Finding(
                        sentence=f"Away from its centre, class {self.classes[least]} is right least often: averaged "
                        f"over the distances {percent(areas[least, 0].item())} are right, against "
                        f"{percent(areas[most, 0].item())} of class {self.classes[most]}."
                    )
                )
        return findings

    @property
    def _without_a_curve(self) -> str:
        """Name in a sentence the classes that have no curve of their own, with the reasons; empty if all have one."""
        if not self.left_out:
            return ""
        more = f"; and {len(self.left_out) - _NAMED} more" if len(self.left_out) > _NAMED else ""
        return f" Classes without a curve of their own: {'; '.join(self.left_out[:_NAMED])}{more}."

    @property
    def _filled(self) -> list[tuple[int, int]]:
        """Curve and bin of all that is kept."""
        return [(row, index) for row in range(len(self.count)) for index in self._bins(row).tolist()]

    def _bins(self, curve: int) -> Int[Tensor, " M"]:
        """Return the bins of a curve that are kept."""
        return (self.count[curve] >= self.smallest_bin).nonzero()[:, 0]

    def _edges(self, curve: int) -> Float[Tensor, " B1"]:
        return self.edges[0 if curve < len(self.classifiers) else 1]

    def _values(self, curve: int) -> Float[Tensor, "3 B"]:
        """Return the accuracies of a curve and their intervals, NaN where a bin is left out."""
        values = torch.full((3, self.count.shape[1]), torch.nan)
        for index in self._bins(curve).tolist():
            each = self.accuracy(curve, torch.tensor([index]))
            values[:, index] = torch.tensor([each.value, each.low, each.high])
        return values

    def _draw_classifiers(self) -> Drawing:
        values = {name: self._values(row) for row, name in enumerate(self.classifiers)}
        return curves_with_bands(
            (self.edges[0, 1:] + self.edges[0, :-1]) / 2,
            {f"{name}, area {self.area[row, 0]:.3f}": each[0] for row, (name, each) in enumerate(values.items())},
            bands={
                f"{name}, area {self.area[row, 0]:.3f}": (each[1], each[2])
                for row, (name, each) in enumerate(values.items())
            },
            x_label=_DISTANCE,
            y_label="accuracy",
        )

    def _draw_classes(self) -> Drawing:
        first = len(self.classifiers)
        values = {name: self._values(first + row) for row, name in enumerate(self.classes)}
        areas = self.area[first:, 0].tolist()
        return small_multiples(
            (self.edges[1, 1:] + self.edges[1, :-1]) / 2,
            {name: each[0] for name, each in values.items()},
            bands={name: (each[1], each[2]) for name, each in values.items()},
            notes=["" if math.isnan(area) else f"{area:.3f}" for area in areas],
            x_label="distance from the middle of what is classified rightly of the class, in deviations",
            y_label="accuracy",
        )

    def _draw_samples(self) -> Drawing:
        assert self.verification is not None
        groups = [(self.image_place == row).nonzero()[:, 0] for row in range(int(self.image_place.max()) + 1)]
        groups = [rows[self.image_y[rows].argsort(stable=True)] for rows in groups]
        columns = max(len(rows) for rows in groups)
        # A place with fewer samples than the others ends in blank pictures.
        images = torch.ones(len(groups), columns, *self.images.shape[1:])
        labels: list[str] = []
        for row, rows in enumerate(groups):
            images[row, : len(rows)] = self.images[rows]
            labels += [self._label(i) for i in rows.tolist()] + [""] * (columns - len(rows))
        means = [self.image_distance[rows].mean().item() for rows in groups]
        return image_grid(images, row_labels=[f"{each:.2f}" for each in means], cell_labels=labels)

    def _label(self, row: int) -> str:
        assert self.verification is not None
        asked = self.class_names[int(self.image_y[row])]
        said = self.class_names[int(self.verification.prediction[row])]
        return asked if said == asked else f"{asked} [{said}]"

    def _near_and_far(self) -> list[Panel]:
        """Return the examples: pictures of what is right near the middle, and of what is wrong far from it."""
        assert self.verification is not None
        wrong = self.verification.prediction != self.image_y
        panels = []
        for place, name, claimed in ((NEAR, "near", ~wrong), (FAR, "far", wrong)):
            for row in ((self.image_place == place) & claimed).nonzero()[:, 0].tolist():
                asked = self.class_names[int(self.image_y[row])]
                said = self.class_names[int(self.verification.prediction[row])]
                what = f"{asked}, rightly" if said == asked else f"{asked}, taken for {said}"
                panels.append(Panel(label=f"{name}: {what}", pixels=self.images[row]))
        return panels


def nearest_and_farthest(bins: Int[Tensor, " M"]) -> tuple[Int[Tensor, " E"], Int[Tensor, " E"]]:
    """Return the nearest and the farthest fifth of some bins, at least one of each where there are any."""
    size = max(1, round(len(bins) / 5))
    return bins[:size], bins[len(bins) - min(size, len(bins)) :]


def _triple(key: str, row: Float[Tensor, " 3"]) -> dict[str, float]:
    value, low, high = row.tolist()
    return {key: value, f"{key}_low": low, f"{key}_high": high}
