"""What corner cases show: a grid of single dimensions, joint cases, and a data set for a test bench."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.explain.case_set import write_case_set
from failscape.explain.method import EIGHT_BITS, SHARED, Result
from failscape.explain.passed_over import NO_EFFECT, PassedOver
from failscape.explain.style_crossing import EXACT, HALF
from failscape.figures import Case, Figure, Finding, Gallery, Panel, Plot, image_grid
from failscape.metrics import Estimate, rate

WITHIN, TRIPLE, BEYOND = range(3)
_PLACES = ("within", "up to 3 times", "beyond")
SPOKEN = ("within the range of values", "up to 3 times the range", "beyond 3 times the range")
_SHOWN = 120
# Classes of too few cases that a sentence names.
_NAMED = 10

_DEFINITIONS = {
    "found": "Corner cases by single dimensions, over all classes.",
    "within": "Share of them whose style lies within the values observed for it in the population. Wilson, 95 %.",
    "triple": "Share of them beyond that, but within three times the range.",
    "beyond": "Share of them still farther out: the generator draws there what it never learned from.",
    "exact": "Share of all corner cases whose probability lies within 0.005 of 0.50, on the 8-bit picture; elsewhere "
    "it jumps. Wilson, 95 %.",
    "max_error": "Largest distance of the probability from 0.50 among the cases by single dimensions.",
    "jumps": "Cases by single dimensions at which the probability falls by more than 0.01 from one 8-bit picture to "
    "the next, so that there need be none at 0.50.",
    "missing": "How many fewer than asked for, over all classes; also of those left out.",
    "without_effect": f"Dimensions tried that nowhere lower the true class's probability by {NO_EFFECT}, over all "
    "classes.",
    "not_reached": "Dimensions tried that lower it, but never to 0.50.",
    "joint": "Corner cases over all dimensions at once.",
    "joint_missing": "How many fewer of these than asked for, over all classes; also of those left out.",
    "joint_norm": "Their mean norm, in deviations of each style.",
    "joint_max_error": "Largest distance of the probability from 0.50 among them.",
    "oracle_agrees": "Share of all corner cases that the oracle takes for the true class. Wilson, 95 %.",
    "id": "Name of the case.",
    "true_class": "The class of the start.",
    "kind": "single: one style dimension was moved; joint: all at once.",
    "dimension": "The style dimension; -1 for joint cases.",
    "layer": "The layer that it scales the channels of, and the resolution of its output.",
    "direction": "Which way it was moved.",
    "shift": "How far, in the style's own units; for joint cases the norm of the perturbation in deviations.",
    "deviations": "How far, in deviations of the style within its class; NaN for one that does not vary within it.",
    "place": "Whether the style lies within the values observed in the population, within three times their range, or "
    "beyond; for joint cases that of the farthest style.",
    "before": "Probability of the true class at the start.",
    "probability": "Probability of the true class for the corner case.",
    "prediction": "The class that the classifier holds most probable but the true one: what it would say next.",
    "oracle_prediction": "What the oracle takes the corner case for.",
    "description": "What moving the style that way changes in the picture, measured on samples of the class.",
    "start": "The picture before.",
    "corner case": "The picture after: the true class's probability has come down to one half, or jumped below it.",
    "difference": "After minus before.",
}


@final
@dataclass(frozen=True, kw_only=True)
class CornerCasesResult(Result):
    """What `CornerCases` found.

    Attributes:
        images: the corner cases, 8-bit values in [0, 1].
        originals: where each started.
        ids: a name for each.
        y: true class.
        dimension: the style moved; -1 for joint cases.
        move: shift in the style's own units; norm of a joint perturbation in deviations.
        deviations: the same in deviations of the style; NaN for one that does not vary within its class.
        place: `WITHIN`, `TRIPLE` or `BEYOND` the observed values.
        fall: by how much the probability falls over one half from one 8-bit picture to the next; NaN for joint cases.
        before: probability of the true class at the start.
        styles: of the corner cases.
        starts: styles at the start.
        noise: noise maps, the same at the start and after; for starts from class means the shared ones.
        layers: the layer of each dimension, in words.
        descriptions: what the dimension changes; empty for joint cases.
        classes: those that were looked at.
        passed_y: true class of each dimension that was tried and gave no case.
        passed_dimension: the style.
        passed_layers: its layer, in words.
        passed_before: probability of the true class at the start.
        passed_lowest: the lowest that was met while it was moved, both ways.
        without: names of classes whose mean picture the classifier gives at most one half.
        asked: how many cases by single dimensions were asked for of each class.
        asked_joint: how many over all dimensions.
        gradients_missing: 1 if joint cases were asked for and the classifier has no gradients.
        class_names: K names.
    """

    originals: Float[Tensor, "N C H W"] = field(metadata=EIGHT_BITS)
    ids: tuple[str, ...]
    y: Int[Tensor, " N"]
    dimension: Int[Tensor, " N"]
    move: Float[Tensor, " N"]
    deviations: Float[Tensor, " N"]
    place: Int[Tensor, " N"]
    fall: Float[Tensor, " N"]
    before: Float[Tensor, " N"]
    styles: Float[Tensor, "N S"]
    starts: Float[Tensor, "N S"]
    noise: Float[Tensor, "N P"]
    layers: tuple[str, ...]
    descriptions: tuple[str, ...]
    classes: Int[Tensor, " L"]
    passed_y: Int[Tensor, " M"]
    passed_dimension: Int[Tensor, " M"]
    passed_layers: tuple[str, ...]
    passed_before: Float[Tensor, " M"]
    passed_lowest: Float[Tensor, " M"]
    without: tuple[str, ...]
    asked: int
    asked_joint: int
    gradients_missing: int
    class_names: tuple[str, ...] = field(metadata=SHARED)

    @property
    def made_from(self) -> tuple[str, ...]:
        """The styles at the start, which all single moves of a class share."""
        start = self.starts.unique(dim=0, return_inverse=True)[1] if len(self.starts) else self.y
        return tuple(f"start {number}" for number in start.tolist())

    @property
    def probability(self) -> Float[Tensor, " N"]:
        """Probability of the true class for each 8-bit corner case."""
        assert self.verification is not None
        return self.verification.probs.gather(1, self.y[:, None])[:, 0]

    @property
    def single(self) -> Bool[Tensor, " N"]:
        """Which cases move one dimension alone."""
        return self.dimension >= 0

    @property
    def jumps(self) -> Bool[Tensor, " N"]:
        """Which cases of single dimensions lie at a fall over one half that no picture is in the middle of."""
        return self.single & (self.fall > 2 * EXACT)

    @property
    def passed(self) -> PassedOver:
        """The dimensions that were tried and gave no case."""
        return PassedOver(
            y=self.passed_y,
            dimension=self.passed_dimension,
            layers=self.passed_layers,
            before=self.passed_before,
            lowest=self.passed_lowest,
            class_names=self.class_names,
        )

    @property
    def rival(self) -> Int[Tensor, " N"]:
        """The most probable class but the true one."""
        assert self.verification is not None
        return self.verification.probs.scatter(1, self.y[:, None], -1.0).argmax(dim=1)

    @property
    def exact(self) -> Estimate:
        """How often the probability lies within 0.005 of one half."""
        return rate((self.probability - HALF).abs() <= EXACT)

    @property
    def oracle_agrees(self) -> Bool[Tensor, " N"] | None:
        """Whether the oracle takes the corner case for the true class."""
        assert self.verification is not None
        prediction = self.verification.oracle_prediction
        return None if prediction is None else prediction == self.y

    @property
    def summary(self) -> dict[str, float]:
        """How many were found, where they lie, and how exact they are."""
        single = self.single
        error = (self.probability - 0.5).abs()
        classes = len(self.classes) + len(self.without)
        summary: dict[str, float] = {
            "found": float(single.sum()),
            "missing": float(self.asked * classes - single.sum()),
        }
        if single.any():
            places = self.place[single]
            summary |= rate(places == WITHIN).named("within")
            summary |= {
                "triple": (places == TRIPLE).float().mean().item(),
                "beyond": (places == BEYOND).float().mean().item(),
                "max_error": error[single].max().item(),
                "jumps": float(self.jumps.sum()),
            }
        without_effect = self.passed.without_effect
        summary |= {
            "without_effect": float(without_effect.sum()),
            "not_reached": float((~without_effect).sum()),
            "joint": float((~single).sum()),
            "joint_missing": float(self.asked_joint * classes - (~single).sum()),
        }
        if not single.all():
            summary["joint_norm"] = self.move[~single].mean().item()
            summary["joint_max_error"] = error[~single].max().item()
        if len(single):
            summary |= self.exact.named("exact")
        if self.oracle_agrees is not None and len(single):
            summary |= rate(self.oracle_agrees).named("oracle_agrees")
        return summary

    @property
    def table(self) -> pa.Table:
        """One row a corner case."""
        assert self.verification is not None
        names = self.class_names
        columns = {
            "id": pa.array(self.ids, pa.string()),
            "true_class": pa.array([names[k] for k in self.y.tolist()], pa.string()),
            "kind": pa.array(["single" if single else "joint" for single in self.single.tolist()], pa.string()),
            "dimension": self.dimension.numpy(),
            "layer": pa.array(self.layers, pa.string()),
            "direction": pa.array([self._direction(i) for i in range(len(self.ids))], pa.string()),
            "shift": self.move.numpy(),
            "deviations": self.deviations.numpy(),
            "place": pa.array([_PLACES[place] for place in self.place.tolist()], pa.string()),
            "before": self.before.numpy(),
            "probability": self.probability.numpy(),
            "prediction": pa.array([names[k] for k in self.rival.tolist()], pa.string()),
            "description": pa.array(self.descriptions, pa.string()),
        }
        oracle = self.verification.oracle_prediction
        if oracle is not None:
            columns["oracle_prediction"] = pa.array([names[k] for k in oracle.tolist()], pa.string())
        return pa.table(columns)

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        return _DEFINITIONS

    @property
    def findings(self) -> Sequence[Finding]:
        """The nearest corner cases, what they turn into, and what was not found or not looked for."""
        if not len(self.classes):
            said = "No move could start: it gives the mean picture of no class more than one half."
        elif not len(self.ids) and not len(self.passed):
            said = "No corner case was found."
        elif not self.single.any() and len(self.passed):
            said = f"None of the {len(self.passed)} moves tried, one direction each, brings any class to one half."
        else:
            said = ""
        shown = self._nearest()
        if shown:
            said = f"{said} {self._told(shown[0])}".strip()
        return (Finding(sentence=f"{said}{self._not_found}", panels=[self._panel(i) for i in shown]),)

    def _nearest(self) -> list[int]:
        """Return up to six cases of different classes and dimensions: those within the values observed first.

        They are of single dimensions if there are any of these, else joint ones.
        """
        rows = (self.single if self.single.any() else ~self.single).nonzero()[:, 0]
        order = rows[self.deviations[rows].abs().argsort(stable=True)]
        order = order[self.place[order].argsort(stable=True)]
        shown: list[int] = []
        for i in order.tolist():
            known = self.single[i] and self.dimension[i] in self.dimension[shown]
            if not known and self.y[i] not in self.y[shown]:
                shown.append(i)
        return shown[:6]

    def _told(self, row: int) -> str:
        """Say how many cases there are of the kind of one, and what it is."""
        name, rival = self.class_names[int(self.y[row])], self.class_names[int(self.rival[row])]
        kind = self.single == self.single[row]
        count = int(kind.sum())
        inside = int((self.place[kind] == WITHIN).sum())
        what = self.descriptions[row]
        cause = f" that {what.split(' (')[0]}" if what and not what.startswith("changes nothing") else ""
        move = _by(abs(float(self.deviations[row])), ".1f")
        nearest = ("of these", "of those within three times that range", "of all")[int(self.place[row])]
        return (
            f"{count} corner case{' was' if count == 1 else 's were'} found by moving "
            f"{'one direction each' if self.single[row] else 'all directions at once'}, {inside} of them within what "
            f"the images vary by; the shortest {nearest} is a move {move}{cause}, after which it gives {name} a "
            f"probability of {float(self.probability[row]):.2f}; the next most probable is {rival}. Below each picture "
            "stands how far it was moved, beside the range of values that its style has."
            f"{self._seen_by_the_oracle(kind)}"
        )

    def _seen_by_the_oracle(self, kind: Bool[Tensor, " N"]) -> str:
        """Say in how many cases of a kind the oracle sees the true class; empty without an oracle."""
        if self.oracle_agrees is None:
            return ""
        agrees = int(self.oracle_agrees[kind].sum())
        return f" The oracle, asked about each of them, still sees the true class in {agrees} of {int(kind.sum())}."

    @property
    def _not_found(self) -> str:
        """Say in sentences what is missing, and why; empty if nothing is."""
        missing = ""
        if self.without and len(self.classes):
            missing = f" Left out: {', '.join(self.without)}, whose mean picture it gives at most one half."
        if self.single.any():
            missing += self._fewer(self.asked, self.single, "one direction each")
        if self.gradients_missing:
            missing += " Moves over all directions at once were not looked for: that needs gradients, which it has not."
        else:
            missing += self._fewer(self.asked_joint, ~self.single, "all directions at once")
        return missing

    def _fewer(self, asked: int, kind: Bool[Tensor, " N"], how: str) -> str:
        """Name the classes of which fewer cases of a kind were found than asked for."""
        found = {k: int((kind & (self.y == k)).sum()) for k in self.classes.tolist()}
        short = [f"{n} for {self.class_names[k]}" for k, n in found.items() if n < asked]
        if not short:
            return ""
        more = f", and too few for {len(short) - _NAMED} more" if len(short) > _NAMED else ""
        return (
            f" Of {asked} asked for of each class by moving {how}, these were found: {', '.join(short[:_NAMED])}{more}."
        )

    @property
    def figures(self) -> Sequence[Figure]:
        """The grid of the paper's figure 7, every case, and the dimensions that gave none."""
        figures: list[Figure] = []
        if self.single.any():
            figures.append(
                Plot(
                    name="grid",
                    title="Corner cases of each class",
                    caption="On the left the picture of the class's mean styles, with the probability of the class; "
                    "then one picture a dimension, in the order of its effect, moved by itself to where the "
                    "probability has come down to 0.50, or jumped below it. Above each: the "
                    "dimension, the way it moves, and the most probable other class. A star marks a style within the "
                    "values observed, a circle one beyond three times their range.",
                    draw=self._draw_grid,
                )
            )
        rows = [*self.single.nonzero()[:, 0].tolist(), *(~self.single).nonzero()[:, 0].tolist()]
        if rows:
            # Some of each kind, if not all can be shown.
            shown = rows if len(rows) <= _SHOWN else rows[:: -(-len(rows) // _SHOWN)]
            figures.append(
                Gallery(
                    name="cases",
                    title="Each of them",
                    caption="A case succeeds if the 8-bit picture has a probability of the true class within 0.005 "
                    "of 0.50.",
                    class_names=self.class_names,
                    cases=[self._case(i) for i in shown],
                    definitions=_DEFINITIONS,
                )
            )
        if len(self.passed):
            figures.append(self.passed.figure)
        return figures

    def export(self, folder: Path) -> Path:
        """Write the corner cases as a data set that a test bench can use.

        `failscape.explain.case_set.write_case_set` says what it holds; the latents are `styles`,
        `starts` and `noise`: `generator.synthesize(styles, noise)` draws the images again.

        Returns:
            The folder.

        Raises:
            StorageError: if the folder holds something already, or cannot be written.
        """
        return write_case_set(
            folder,
            self.images,
            self.y,
            class_names=self.class_names,
            table=self.table,
            passed=self.passed.table,
            latents={"styles": self.styles, "starts": self.starts, "noise": self.noise},
        )

    def _direction(self, i: int) -> str:
        return "all" if self.dimension[i] < 0 else "up" if self.move[i] > 0 else "down"

    def _panel(self, i: int) -> Panel:
        name, rival = self.class_names[int(self.y[i])], self.class_names[int(self.rival[i])]
        place = SPOKEN[int(self.place[i])]
        return Panel(label=f"{name}: {self.probability[i]:.2f}, next {rival}; {place}", pixels=self.images[i])

    def _draw_grid(self) -> Drawing:
        classes = [k for k in self.classes.tolist() if (self.single & (self.y == k)).any()]
        rows = [(self.single & (self.y == k)).nonzero()[:, 0].tolist() for k in classes]
        width = max(map(len, rows))
        pictures, labels = [], []
        for k, cases in zip(classes, rows, strict=True):
            blank = torch.ones_like(self.images[0])
            pictures.append(
                torch.stack([self.originals[cases[0]], *self.images[cases], *(blank,) * (width - len(cases))])
            )
            labels += [f"{self.class_names[k]}: {self.before[cases[0]]:.2f}", *map(self._label, cases)]
            labels += [""] * (width - len(cases))
        return image_grid(torch.stack(pictures), cell_labels=labels, cell=0.95)

    def _label(self, i: int) -> str:
        mark = {WITHIN: " ★", TRIPLE: "", BEYOND: " ○"}[int(self.place[i])]
        return f"s{self.dimension[i]}{'↑' if self.move[i] > 0 else '↓'} {self.class_names[int(self.rival[i])]}{mark}"

    def _case(self, i: int) -> Case:
        assert self.verification is not None
        name, rival = self.class_names[int(self.y[i])], self.class_names[int(self.rival[i])]
        probability = float(self.probability[i])
        second = float(self.verification.probs[i, int(self.rival[i])])
        exact = abs(probability - HALF) <= EXACT
        how = "all dimensions together" if self.dimension[i] < 0 else f"s{self.dimension[i]}"
        what = f" It {self.descriptions[i]}." if self.descriptions[i] else ""
        place = {WITHIN: "within", TRIPLE: "outside, but within three times,", BEYOND: "far outside"}[
            int(self.place[i])
        ]
        number = float(self.deviations[i])
        far = _by(number, "+.1f" if self.dimension[i] >= 0 else ".1f")
        farthest = "" if self.dimension[i] >= 0 else "the farthest style "
        verdict = f"Moved {far}, {farthest}{place} the values observed.{what}"
        return Case(
            id=self.ids[i],
            heading=f"A {name} at {probability:.2f}, next a {rival} ({second:.2f}), by {how}",
            verdict=verdict if exact else f"The probability jumps over 0.50, to {probability:.3f}. {verdict}",
            good=exact,
            panels=(
                Panel(label="start", pixels=self.originals[i]),
                Panel(label="corner case", pixels=self.images[i]),
                Panel(label="difference", pixels=self.images[i] - self.originals[i], signed=True),
            ),
            probabilities={"corner case": self.verification.probs[i]},
            numbers={
                "place": _PLACES[int(self.place[i])],
                "deviations": "–" if math.isnan(number) else f"{number:+.2f}",
                "before": f"{self.before[i]:.3f}",
                "probability": f"{probability:.4f}",
                "layer": self.layers[i],
            },
        )


def _by(deviations: float, form: str) -> str:
    """Say how far a style was moved; NaN of one that does not vary within the class."""
    if math.isnan(deviations):
        return "along a style that does not vary within the class"
    return f"by {deviations:{form}} deviations"
