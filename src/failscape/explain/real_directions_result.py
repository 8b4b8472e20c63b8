"""What `RealDirections` found: which directions of failure are seen on real images, and reconstructions to check it."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.explain.method import EIGHT_BITS, SHARED, Result
from failscape.figures import Case, Figure, Finding, Gallery, Panel, Plot, image_grid, percent, small_multiples
from failscape.figures.style import MINUS
from failscape.metrics import Estimate, difference_of_rates, rate

Verdict = Literal[
    "confirmed on real images",
    "rises on real images",
    "real images fail at its other end",
    "real images fail less at its other end",
    "seen only in generated images",
    "not testable",
]

_MOST_PANELS = 6
_AS_RANDOM = {"confirmed on real images": "confirmed on real images, as random styles are"}
_NOTES: Mapping[Verdict, str] = {
    "confirmed on real images": "falls",
    "rises on real images": "rises",
    "real images fail at its other end": "other end lower",
    "real images fail less at its other end": "other end higher",
    "seen only in generated images": "does not change",
    "not testable": "not testable",
}

_DEFINITIONS = {
    "images": "Real images that were inverted.",
    "agreement": "Share of images whose 8-bit reconstruction the classifier gives the same class as the 8-bit image. "
    "The inversion is told that class, so this is no proof that it would have found it. Interval: Wilson, 95 %.",
    "error": "Root mean square difference of the pixels of reconstruction and image, in [0, 1]; in the summary its "
    "mean over images. Pixel noise, which is not reconstructed, counts.",
    "encoder_error": "The same of what the encoder alone gives.",
    "accuracy": "Share of the real images that are classified as labelled. Interval: Wilson, 95 %.",
    "directions": "Influential styles along which the real images were sorted.",
    "confirmed": "Directions along which real accuracy falls: lower in the last part of the images than in the rest, "
    "with an interval that excludes zero, corrected for both ends of all directions (Bonferroni).",
    "distinct": "Confirmed directions; those whose last parts share more than half of their images count once.",
    "controls": "Other styles, drawn at random, along which the same images were sorted for comparison.",
    "controls_confirmed": "How many of these would be confirmed by the same intervals: styles go together in real "
    "images, and with how hard an image is.",
    "rising": "Directions along which real accuracy rises, likewise: what lowers the score of generated images helps.",
    "other_end": "Directions along which neither is so, but accuracy on the first part of the images differs from that "
    "on the rest, likewise: mostly real images that fail at the end where generated ones do not.",
    "generated_only": "Directions at neither end of which real accuracy differs from the rest.",
    "untestable": "Directions that these images cannot test: even if as many of the mistakes as fit lay in the last "
    "part, the interval would include zero.",
    "largest_fall": "Accuracy on the last part of the images less that on the rest, along the direction where it is "
    "lowest. Interval: Newcombe, 95 % over both ends of all directions together (Bonferroni).",
    "id": "The image's name in its set.",
    "label": "What the image is labelled.",
    "prediction": "What the classifier says of the image.",
    "reconstructed_as": "What it says of the reconstruction.",
    "agrees": "Whether the two are the same.",
    "right": "Whether the classifier is right about the image.",
    "loss": "What the inversion made small: differences of smoothed pixels and of the classifier's features, and the "
    "distance from the encoder's latent.",
    "image": "The real image.",
    "reconstruction": "What the generator draws with the styles that were found for it.",
}


def in_order(place: Float[Tensor, " N"]) -> Int[Tensor, " M"]:
    """Return the images that have a place, in its order."""
    order = place.argsort(stable=True)
    return order[place[order].isfinite()]


def _in_points(difference: Estimate) -> str:
    value, low, high = (f"{100 * each:+.1f}" for each in (difference.value, difference.low, difference.high))
    return f"{value} ({low} to {high})".replace("-", MINUS)


@final
@dataclass(frozen=True, kw_only=True)
class RealDirectionsResult(Result):
    """What `RealDirections` found of N images along T directions.

    Attributes:
        images: the reconstructions, 8-bit values in [0, 1].
        originals: the real images, likewise.
        ids: their names.
        labels: what they are labelled.
        probs: the classifier's probabilities of the originals.
        error: root mean square difference of each reconstruction and its image.
        encoder_error: the same of what the encoder alone gives.
        loss: of each inversion.
        coordinates: place of each image along each direction, in deviations within its class, larger where the score
            of generated images is lower; NaN for images of a class that the generator never draws.
        control_coordinates: the same along R other styles.
        dimensions: the style that each direction is, the most influential first.
        controls: the other styles, drawn at random.
        layers: the layer that each belongs to.
        descriptions: how the real images of the last part along each look other than the rest, as what going there
            does; empty where no difference was measured.
        effect: change of the score of generated images per deviation along the direction, negative.
        bins: parts of as many images each, in the order of their coordinates.
        shown: images to show from either end.
        class_names: K names.
    """

    origin = "test"

    originals: Float[Tensor, "N C H W"] = field(metadata=EIGHT_BITS)
    ids: tuple[str, ...]
    labels: Int[Tensor, " N"]
    probs: Float[Tensor, "N K"]
    error: Float[Tensor, " N"]
    encoder_error: Float[Tensor, " N"]
    loss: Float[Tensor, " N"]
    coordinates: Float[Tensor, "N T"]
    control_coordinates: Float[Tensor, "N R"]
    dimensions: Int[Tensor, " T"] = field(metadata=SHARED)
    controls: Int[Tensor, " R"] = field(metadata=SHARED)
    layers: tuple[str, ...] = field(metadata=SHARED)
    descriptions: tuple[str, ...] = field(metadata=SHARED)
    effect: Float[Tensor, " T"] = field(metadata=SHARED)
    bins: int = field(metadata=SHARED)
    shown: int = field(metadata=SHARED)
    class_names: tuple[str, ...] = field(metadata=SHARED)

    @property
    def made_from(self) -> tuple[str, ...]:
        """The images that were given."""
        return self.ids

    @property
    def prediction(self) -> Int[Tensor, " N"]:
        """What the classifier says of the real images."""
        return self.probs.argmax(dim=1)

    @property
    def right(self) -> Bool[Tensor, " N"]:
        """Whether it is right about them."""
        return self.prediction == self.labels

    @property
    def agrees(self) -> Bool[Tensor, " N"]:
        """Whether it says the same of the 8-bit reconstruction."""
        assert self.verification is not None
        return self.verification.prediction == self.prediction

    def along(self, direction: int) -> Int[Tensor, " M"]:
        """Return the images that have a place on a direction, the one farthest toward failure last."""
        return in_order(self.coordinates[:, direction])

    def accuracy(self, direction: int) -> list[Estimate]:
        """Return real accuracy in each part of the images along a direction, with 95 % Wilson intervals."""
        return [rate(self.right[part]) for part in self.along(direction).tensor_split(self.bins)]

    def difference(self, direction: int) -> Estimate:
        """Return real accuracy in the last part less that in the rest, at 95 % over both ends of all directions."""
        return self._last_less_the_rest(self.along(direction))

    def difference_at_other_end(self, direction: int) -> Estimate:
        """Return real accuracy in the first part less that in the rest, likewise."""
        first, *rest = self.along(direction).tensor_split(self.bins)
        return self._difference(self.right[first], self.right[torch.cat(rest)])

    def verdict(self, direction: int) -> Verdict:
        """Say whether real images confirm a direction."""
        order = self.along(direction)
        if len(order) < self.bins:
            return "not testable"
        difference, other_end = self.difference(direction), self.difference_at_other_end(direction)
        if difference.high < 0:
            return "confirmed on real images"
        if difference.low > 0:
            return "rises on real images"
        if other_end.high < 0:
            return "real images fail at its other end"
        if other_end.low > 0:
            return "real images fail less at its other end"
        # The best case: the last part holds as many of the mistakes as fit.
        best = self.right[order].sort(descending=True).values
        *rest, last = best.tensor_split(self.bins)
        if not self._difference(last, torch.cat(rest)).high < 0:
            return "not testable"
        return "seen only in generated images"

    @cached_property
    def confirmed(self) -> list[int]:
        """The directions that real images confirm."""
        return [t for t in range(len(self.dimensions)) if self.verdict(t) == "confirmed on real images"]

    @property
    def distinct(self) -> list[int]:
        """Those of them whose last part shares at most half of its images with that of any before."""
        kept: list[int] = []
        for t in self.confirmed:
            last = self._last(t)
            if all(2 * torch.isin(last, self._last(other)).sum() <= len(last) for other in kept):
                kept.append(t)
        return kept

    @cached_property
    def controls_confirmed(self) -> Bool[Tensor, " R"]:
        """Which of the styles drawn at random would be confirmed, by the same intervals."""
        orders = [in_order(place) for place in self.control_coordinates.T]
        found = [len(order) >= self.bins and self._last_less_the_rest(order).high < 0 for order in orders]
        return torch.tensor(found, dtype=torch.bool)

    @property
    def is_beyond_chance(self) -> bool:
        """Whether more of the directions are confirmed than of styles drawn at random.

        That is where none of the latter is, or by Fisher's exact test at 5 %.
        """
        from scipy.stats import fisher_exact

        random = int(self.controls_confirmed.sum())
        if not random:
            return True
        counts = [(len(self.confirmed), len(self.dimensions)), (random, len(self.controls))]
        table = [[found, n - found] for found, n in counts]
        return bool(fisher_exact(table, alternative="greater").pvalue < 0.05)

    @property
    def largest_fall(self) -> Estimate:
        """The lowest difference of accuracy along a direction that can be tested; of nothing where none can."""
        testable = [t for t in range(len(self.dimensions)) if self.verdict(t) != "not testable"]
        nothing = Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)
        return min((self.difference(t) for t in testable), key=lambda each: each.value, default=nothing)

    @property
    def checks(self) -> Mapping[str, str]:
        """The verdict on each direction, by the name that the style has elsewhere."""
        verdicts: dict[str, str] = {self._name(t): self.verdict(t) for t in range(len(self.dimensions))}
        if self.is_beyond_chance:
            return verdicts
        return {name: _AS_RANDOM.get(verdict, verdict) for name, verdict in verdicts.items()}

    @property
    def summary(self) -> dict[str, float]:
        """Agreement, real accuracy, and how many directions are confirmed."""
        agreement, accuracy = rate(self.agrees), rate(self.right)
        verdicts = [self.verdict(t) for t in range(len(self.dimensions))]
        summary = {
            "images": float(len(self.ids)),
            **agreement.named("agreement"),
            "error": self.error.mean().item(),
            "encoder_error": self.encoder_error.mean().item(),
            **accuracy.named("accuracy"),
            "directions": float(len(verdicts)),
            "confirmed": float(len(self.confirmed)),
            "distinct": float(len(self.distinct)),
            "controls": float(len(self.controls)),
            "controls_confirmed": float(self.controls_confirmed.sum()),
            "rising": float(verdicts.count("rises on real images")),
            "other_end": float(sum(verdict.endswith("at its other end") for verdict in verdicts)),
            "generated_only": float(verdicts.count("seen only in generated images")),
            "untestable": float(verdicts.count("not testable")),
        }
        fall = self.largest_fall
        return summary | (fall.named("largest_fall") if fall.n else {})

    @property
    def table(self) -> pa.Table:
        """One row an image."""
        assert self.verification is not None

        def names(classes: Tensor) -> pa.Array:
            return pa.array([self.class_names[k] for k in classes.tolist()], pa.string())

        return pa.table(
            {
                "id": pa.array(self.ids, pa.string()),
                "label": names(self.labels),
                "prediction": names(self.prediction),
                "right": self.right.numpy(),
                "reconstructed_as": names(self.verification.prediction),
                "agrees": self.agrees.numpy(),
                "error": self.error.numpy(),
                "encoder_error": self.encoder_error.numpy(),
                "loss": self.loss.numpy(),
            }
        )

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        return _DEFINITIONS

    @property
    def figures(self) -> Sequence[Figure]:
        """Real accuracy along each direction, the images at either end, and the reconstructions."""
        gallery = Gallery(
            name="reconstructions",
            title="Real images and their reconstructions",
            caption="Each real image beside what the generator draws with the styles that were found for it. It has "
            "failed where the classifier gives the reconstruction another class than the image: of such an image the "
            "styles say little.",
            class_names=self.class_names,
            cases=[self._case(row) for row in range(len(self.ids))],
            definitions=_DEFINITIONS,
        )
        if not self.layers or len(self.along(0)) < self.bins:
            return [gallery]
        last = f"last of {self.bins} parts"
        accuracy = Plot(
            name="real-accuracy",
            title="Does real accuracy fall where generated images fail?",
            caption=f"Accuracy on the real images, sorted along each influential style and parted in {self.bins} of as "
            "many images each; to the right the score of generated images falls, over all classes together. Bands: "
            f"95 % Wilson intervals. It “falls” or “rises” where the {last} differs from the rest by more than chance, "
            "and says “other end lower” or “higher” where the first does and the last does not, corrected for "
            f"both ends of {len(self.layers)} directions (Newcombe, Bonferroni).{self._compared()} The place of an "
            "image is measured within the class that it is taken for. Grey: the other directions.",
            draw=self._draw_accuracy,
        )
        ends = Plot(
            name="ends",
            title="The real images at either end of each direction",
            caption="On the left those farthest from failure, on the right those farthest toward it, the farthest at "
            "the edge; above each what it is labelled, and after an arrow what it is taken for where that is something "
            f"else. Beside each row what the images of the {last} look like beside the rest, told as what going there "
            "does; then their accuracy less that of the rest, in percentage points, with its corrected interval; and "
            "that of the first part where it is there that real images differ.",
            draw=self._draw_ends,
        )
        return [accuracy, ends, gallery]

    @property
    def findings(self) -> Sequence[Finding]:
        """What was confirmed on real images, with mistakes at the far end of the direction where most was."""
        return (self._finding(),)

    def _finding(self) -> Finding:
        if not self.layers:
            return Finding(
                sentence="No style of the generator changes this classifier's score, so there is no direction along "
                "which to look for failures of real images."
            )
        verdicts = [self.verdict(t) for t in range(len(self.layers))]
        n = len(self.ids)
        if set(verdicts) == {"not testable"}:
            return Finding(
                sentence=f"Whether real images fail where generated ones do cannot be said: {self._why_untestable()}."
            )
        found = self.confirmed
        directions = f"{len(verdicts)} direction{'s' * (len(verdicts) > 1)} along which generated images fail"
        if not found:
            return Finding(
                sentence=f"None of the {directions} is confirmed on real images: on the {n:,} given, accuracy does not "
                f"fall along any of them by more than chance.{self._compared()}"
            )
        most = min(found, key=lambda t: self.difference(t).value)
        *rest, last = self.along(most).tensor_split(self.bins)
        far, near = rate(self.right[last]), rate(self.right[torch.cat(rest)])
        mistakes = last[~self.right[last]].flip(0)[:_MOST_PANELS]
        here = "this is a mistake among them" if len(mistakes) == 1 else "these are mistakes among them"
        look = f", which {self.descriptions[most]}," if self.descriptions[most] else ""
        return Finding(
            sentence=f"Real images fail along {len(found)} of the {directions}: farthest along "
            f"{self._name(most)}{look} the classifier is right about {percent(far.value)} of {far.n:,} real images, "
            f"and about {percent(near.value)} of the others; {here}.{self._compared()}",
            panels=[Panel(label=self._told(row), pixels=self.originals[row]) for row in mistakes.tolist()],
        )

    def _compared(self) -> str:
        """Say in sentences what else real images do, how many directions are distinct, and what random styles give."""
        found, distinct = len(self.confirmed), len(self.distinct)
        verdicts = [self.verdict(t) for t in range(len(self.dimensions))]
        reverse = verdicts.count("real images fail at its other end")
        texts = []
        if reverse:
            texts.append(
                f" Along {reverse} of the {len(verdicts)} real images fail at the end where generated ones do not."
            )
        if distinct < found:
            texts.append(
                f" Among the {found}, {distinct} {'is' if distinct == 1 else 'are'} distinct: the last parts of the "
                "others hold mostly the same images."
            )
        if len(self.controls):
            random = f"{int(self.controls_confirmed.sum())} of {len(self.controls)} other styles drawn at random are"
            chance = "" if self.is_beyond_chance or not found else ": no more than chance would have it"
            texts.append(
                f" Of {len(self.dimensions)} directions {found} {'is' if found == 1 else 'are'} confirmed, where "
                f"{random}{chance}."
            )
        return "".join(texts)

    def _last(self, direction: int) -> Int[Tensor, " M"]:
        return self.along(direction).tensor_split(self.bins)[-1]

    def _last_less_the_rest(self, order: Int[Tensor, " N"]) -> Estimate:
        *rest, last = order.tensor_split(self.bins)
        return self._difference(self.right[last], self.right[torch.cat(rest)])

    def _difference(self, end: Bool[Tensor, " N"], rest: Bool[Tensor, " M"]) -> Estimate:
        return difference_of_rates(end, rest, level=1 - 0.05 / max(1, 2 * len(self.dimensions)))

    def _why_untestable(self) -> str:
        placed = self.right[self.along(0)]
        n, right = len(placed), int(placed.sum())
        if n < self.bins:
            return f"they are fewer than {self.bins}"
        if right == n:
            return f"none of the {n:,} real images is misclassified"
        if right == 0:
            return "none is right"
        few, kind = (n - right, "misclassified") if 2 * right > n else (right, "classified rightly")
        return f"{few:,} of the {n:,} real images {'is' if few == 1 else 'are'} {kind}, which is too few"

    def _told(self, row: int) -> str:
        probs, label = self.probs[row], self.class_names[int(self.labels[row])]
        return f"{label}, taken for {self.class_names[int(probs.argmax())]} ({percent(float(probs.max()))})"

    def _name(self, direction: int) -> str:
        return f"s{int(self.dimensions[direction])}"

    def _draw_accuracy(self) -> Drawing:
        names = [self._name(t) for t in range(len(self.layers))]
        parts = [self.accuracy(t) for t in range(len(names))]

        def values(of: Literal["value", "low", "high"]) -> list[Tensor]:
            return [torch.tensor([getattr(each, of) for each in row]) for row in parts]

        return small_multiples(
            torch.arange(1, self.bins + 1, dtype=torch.float32),
            dict(zip(names, values("value"), strict=True)),
            bands=dict(zip(names, zip(values("low"), values("high"), strict=True), strict=True)),
            notes=[_NOTES[self.verdict(t)] for t in range(len(names))],
            x_label=f"part of the real images, of {self.bins}; the last lies farthest toward failure",
            y_label="accuracy on real images",
        )

    def _draw_ends(self) -> Drawing:
        rows, cells, names = [], [], []
        shown = min(self.shown, len(self.along(0)) // 2)
        for t in range(len(self.layers)):
            order = self.along(t)
            chosen = torch.cat([order[:shown], order[-shown:]])
            rows.append(self.originals[chosen])
            cells += [self._short(row) for row in chosen.tolist()]
            verdict = self.verdict(t)
            other = f": {_in_points(self.difference_at_other_end(t))}" if verdict.endswith("at its other end") else ""
            look = self.descriptions[t] or "looks no different"
            changes = textwrap.fill(f"{self._name(t)}: {look}", 44, max_lines=3, placeholder=" …")
            names.append(f"{changes}\n{_in_points(self.difference(t))}, {verdict}{other}")
        return image_grid(torch.stack(rows), row_labels=names, cell_labels=cells, cell=0.8)

    def _short(self, row: int) -> str:
        label, said = (self.class_names[int(k[row])] for k in (self.labels, self.prediction))
        return label if label == said else f"{label} → {said}"

    def _case(self, row: int) -> Case:
        assert self.verification is not None
        agrees, again = bool(self.agrees[row]), self.verification.probs[row]
        label, said = (self.class_names[int(k[row])] for k in (self.labels, self.prediction))
        seen = self.class_names[int(again.argmax())]
        return Case(
            id=self.ids[row],
            heading=f"A {label}" if label == said else f"A {label} taken for a {said}",
            verdict=f"The reconstruction is taken for a {seen}, as the image is."
            if agrees
            else f"The image is taken for a {said}, the reconstruction for a {seen}.",
            good=agrees,
            panels=(
                Panel(label="image", pixels=self.originals[row]),
                Panel(label="reconstruction", pixels=self.images[row]),
            ),
            probabilities={"image": self.probs[row], "reconstruction": again},
            numbers={
                "error": f"{float(self.error[row]):.3f}",
                "encoder_error": f"{float(self.encoder_error[row]):.3f}",
                "loss": f"{float(self.loss[row]):.3f}",
            },
        )
