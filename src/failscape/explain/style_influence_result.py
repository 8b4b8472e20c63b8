"""What `StyleInfluence` found: how the score falls with each style dimension, and what the foremost ones change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import pyarrow as pa
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.explain.corner_result import SPOKEN
from failscape.explain.method import SHARED, Result
from failscape.explain.style_gradients import error_over_classes
from failscape.explain.style_population import left_unsaid
from failscape.figures import (
    Case,
    Figure,
    Finding,
    Gallery,
    Line,
    Panel,
    Plot,
    effect_matrix,
    histogram_grid,
    signed_effects,
)
from failscape.figures.style import MINUS
from failscape.metrics import Estimate, rank_correlation, rate_of

# Dimensions of each kind in the histograms.
HISTOGRAMS = 3
_BARS = 25
_Z95 = 1.96

_NOT_TESTED = "not tested"
_ON_REAL_IMAGES = {
    "confirmed on real images": "Real images confirm it: those far along it are mistaken more often.",
    "confirmed on real images, as random styles are": "Real images far along it are mistaken more often, but along "
    "random styles too, so that this may be chance.",
    "rises on real images": "On real images it is not so: those far along it are mistaken less often.",
    "real images fail at its other end": "On real images it is not so: they are mistaken more often at its other end.",
    "real images fail less at its other end": "Real images do not confirm it, though they are mistaken less often at "
    "its other end.",
    "seen only in generated images": "It is seen only in generated images: real ones are mistaken as often at "
    "either end of it.",
    "not testable": "Whether real images fail along it cannot be told from those given.",
    _NOT_TESTED: "Whether real images fail along it was not tested.",
}

_DEFINITIONS = {
    "samples": "Samples over which gradients were averaged, the classes in equal numbers.",
    "accuracy": "Share of samples that the classifier takes for the class asked for. Interval: Wilson, 95 %.",
    "misclassified": "Samples that it does not.",
    "compared": "Misclassified samples whose styles are compared with those of well classified ones; where the samples "
    "hold too few, more were drawn for them alone.",
    "split_half": "Rank correlation (Spearman) of the effects measured on two halves of the samples: near 1 the "
    "ranking can be relied on.",
    "significant": "Style dimensions whose mean gradient differs from zero by more than chance, at 5 % over all of "
    "them together (Bonferroni).",
    "ks_top": "Kolmogorov–Smirnov statistic between the values of well- and misclassified samples, mean of the three "
    "dimensions that tell them apart best: 0 if both are distributed alike, 1 if they do not overlap. The dimensions "
    "are chosen on one half of the samples and measured on the other.",
    "ks_influential": "The same of the three dimensions of largest effect, on that other half.",
    "ks_random": "The same, median of all other dimensions, on that other half: what one drawn at random shows.",
    "ks_significant": "Dimensions on which well- and misclassified samples differ by more than chance, at 5 % over "
    "all of them together (Bonferroni).",
    "id": "The style dimension: s and its number, layer after layer.",
    "rank": "Place in the order of the size of the effect.",
    "layer": "The layer that the dimension scales the channels of, and the resolution of its output.",
    "gradient": "Mean gradient of the true class's score in the style, over all classes.",
    "gradient_error": "Its standard error.",
    "effect": "Mean gradient times the style's deviation within its class: change of the score per deviation.",
    "lowered_by": "Which way the style must move to lower the true class's score: up or down.",
    "ks": "Kolmogorov–Smirnov statistic between well- and misclassified samples, of values within each class in "
    "deviations of that class, with the same mix of classes on both sides; NaN where no class has both.",
    "ks_p": "An upper bound of its p-value (Dvoretzky, Kiefer and Wolfowitz), multiplied by the number of dimensions "
    "(Bonferroni).",
    "shift": "The smallest move the way that lowers the score which brings the true class to a probability of 0.50, "
    "from the mean styles of the class shown, in the style's deviations; NaN where none does, or where it was not "
    "looked for.",
    "on_real_images": "Whether real images fail along the dimension as generated ones do, by the step of real "
    "directions: confirmed, or so as random styles are, rising, failing at the other end or less there, seen only in "
    "generated images, not testable, or not tested.",
    "description": "What moving the style that way changes in the picture, measured on samples; for the top "
    "dimensions.",
    "probability": "The classifier's probability of the true class for the picture.",
}


@final
@dataclass(frozen=True, kw_only=True)
class StyleInfluenceResult(Result):
    """What `StyleInfluence` found; T dimensions are shown in pictures, F to each.

    Attributes:
        images: the mean digit of a class moved along each shown dimension, T × F, 8-bit values in [0, 1].
        ids: the S style dimensions.
        layers: to which layer each belongs.
        mean: mean gradient of each class's score; NaN for a class that cannot be asked for.
        error: its standard errors.
        halves: mean over classes, in two halves of the samples.
        count: samples of each class.
        right: how many are classified rightly.
        predicted: how many samples are taken for each class.
        spread: deviation of each style within its class.
        ks: Kolmogorov–Smirnov statistic of each dimension.
        ks_p: an upper bound of its p-value, corrected.
        ks_held: the statistic on the half of the samples that `telling` was not chosen on.
        telling: dimensions that tell well- from misclassified samples best, chosen on the other half.
        random: all other dimensions in random order, for comparison.
        right_styles: values of well classified samples on the dimensions of the histograms: telling, of largest effect,
            random; every class in the share that it counts for.
        wrong_styles: values of misclassified ones, in the same mix of classes.
        shown: the dimensions in pictures.
        start: the class whose mean digit is moved.
        shift: how far, in the style's own units.
        reached: 1 where the probability reached one half.
        fractions: of the shift in each picture.
        place: `WITHIN`, `TRIPLE` or `BEYOND` the values observed for the style, of each picture.
        descriptions: what each of them changes in a picture.
        score: which score.
        class_names: K names.
        on_real_images: what another step of the study found along each of the S dimensions on real images; empty
            where none has looked.
    """

    ids: tuple[str, ...] = field(metadata=SHARED)
    layers: tuple[str, ...] = field(metadata=SHARED)
    mean: Float[Tensor, "K S"]
    error: Float[Tensor, "K S"]
    halves: Float[Tensor, "2 S"]
    count: Int[Tensor, " K"]
    right: Int[Tensor, " K"]
    predicted: Int[Tensor, " K"]
    spread: Float[Tensor, " S"]
    ks: Float[Tensor, " S"]
    ks_p: Float[Tensor, " S"]
    ks_held: Float[Tensor, " S"]
    telling: Int[Tensor, " Q"]
    random: Int[Tensor, " R"]
    right_styles: Float[Tensor, "A J"]
    wrong_styles: Float[Tensor, "B J"]
    shown: Int[Tensor, " T"]
    start: Int[Tensor, " T"]
    shift: Float[Tensor, " T"]
    reached: Int[Tensor, " T"]
    fractions: Float[Tensor, " F"]
    place: Int[Tensor, "T F"]
    descriptions: tuple[str, ...]
    score: str
    class_names: tuple[str, ...] = field(metadata=SHARED)
    on_real_images: tuple[str, ...] = ()

    def with_checks(self, checks: Mapping[str, str]) -> "StyleInfluenceResult":
        """Say of each dimension what another step found on real images, where one has looked."""
        found = tuple(checks.get(name, _NOT_TESTED) for name in self.ids)
        return self if set(found) == {_NOT_TESTED} else replace(self, on_real_images=found)

    @property
    def made_from(self) -> tuple[str, ...]:
        """The mean picture of a class."""
        names = [self.class_names[k] for k in self.start.tolist()]
        each = len(self.images) // max(1, len(names))
        return tuple(f"the mean of class {name}" for name in names for _ in range(each))

    @property
    def gradient(self) -> Float[Tensor, " S"]:
        """The mean gradient over all classes that were drawn, each counting the same."""
        return self.mean[self.count > 0].mean(dim=0)

    @property
    def gradient_error(self) -> Float[Tensor, " S"]:
        """Its standard error."""
        return error_over_classes(self.error, self.count)

    @property
    def effect(self) -> Float[Tensor, " S"]:
        """Change of the score per deviation of the style."""
        return self.gradient * self.spread

    @property
    def ranking(self) -> Int[Tensor, " S"]:
        """The dimensions in the order of the size of their effect."""
        return self.effect.abs().argsort(descending=True, stable=True)

    @property
    def probability(self) -> Float[Tensor, "T F"]:
        """Probability of the true class in each picture."""
        assert self.verification is not None
        y = self.start.repeat_interleave(len(self.fractions))
        return self.verification.probs.gather(1, y[:, None]).view(len(self.shown), -1)

    @property
    def split_half(self) -> float:
        """Rank correlation of the effects in two halves of the samples."""
        return rank_correlation(*(self.halves * self.spread))

    @property
    def accuracy(self) -> Estimate:
        """Share of samples classified as asked."""
        return rate_of(int(self.right.sum()), int(self.count.sum()))

    @property
    def summary(self) -> dict[str, float]:
        """How many samples, how sure the ranking, and how well- and misclassified ones differ."""
        accuracy = self.accuracy
        z = (self.gradient / self.gradient_error.clamp_min(1e-12)).abs()
        p = torch.special.erfc(z.double() / 2**0.5)
        return {
            "samples": float(accuracy.n),
            **accuracy.named("accuracy"),
            "misclassified": float(self.count.sum() - self.right.sum()),
            "compared": float(len(self.wrong_styles)),
            "split_half": self.split_half,
            "significant": float((p * len(p) < 0.05).sum()),
            "ks_top": self.ks_held[self.telling].mean().item(),
            "ks_influential": self.ks_held[self.ranking[:HISTOGRAMS]].mean().item(),
            "ks_random": self.ks_held[self.random].median().item(),
            "ks_significant": float((self.ks_p < 0.05).sum()),
        }

    @property
    def table(self) -> pa.Table:
        """One row a style dimension."""
        rank = torch.empty(len(self.ids), dtype=torch.int64)
        rank[self.ranking] = torch.arange(1, len(rank) + 1)
        shift = torch.full((len(self.ids),), torch.nan)
        reached = self.reached > 0
        shift[self.shown[reached]] = (self.shift / self.spread[self.shown])[reached]
        described = dict(zip(self.shown.tolist(), self.descriptions, strict=True))
        real = {"on_real_images": list(self.on_real_images)} if self.on_real_images else {}
        return pa.table(
            {
                "id": list(self.ids),
                "rank": rank.numpy(),
                "layer": list(self.layers),
                "gradient": self.gradient.numpy(),
                "gradient_error": self.gradient_error.numpy(),
                "effect": self.effect.numpy(),
                "lowered_by": ["down" if value > 0 else "up" for value in self.gradient.tolist()],
                "ks": self.ks.numpy(),
                "ks_p": self.ks_p.numpy(),
                "shift": shift.numpy(),
                **real,
                "description": [described.get(d, "") for d in range(len(self.ids))],
            }
        )

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        return _DEFINITIONS

    @property
    def findings(self) -> Sequence[Finding]:
        """What the dimensions of largest effect do to a picture."""
        told = [i for i, text in enumerate(self.descriptions) if not text.startswith("changes nothing")]
        if not self.effect.abs().max() > 0:
            return (Finding(sentence=self._with_missing("No direction in which the images vary changes its score.")),)
        if not told:
            sentence = (
                f"Of {len(self.ids)} directions in which the images vary, what "
                f"{'the one' if len(self.shown) == 1 else f'the {len(self.shown)}'} that cost it most change in a "
                f"picture cannot be named: nothing that is measured. {self._about_the_pictures(0)}"
            )
            return (Finding(sentence=self._with_missing(sentence), panels=self._panels(0)),)
        # What the next sentence would take back does not lead, unless real images confirm none.
        confirmed = [i for i in told if self._on_real_images(i) == "confirmed on real images"]
        first = (confirmed or told)[0]
        others = dict.fromkeys(self.descriptions[i].split(",")[0].split(" (")[0] for i in told if i != first)
        lead = self.descriptions[first].split(" (")[0].split(",")[0]
        also = [text for text in others if text != lead][:2]
        more = f" Others that cost it much: one {' and one '.join(also)}." if also else ""
        if first == 0:
            most = "most"
        elif first == told[0]:
            most = "most of those whose effect can be named"
        else:
            most = "most of those that real images confirm and whose effect can be named"
        sentence = (
            f"Of {len(self.ids)} directions in which the images vary, this one costs it {most}: "
            f"it {self.descriptions[first]}.{self._held_against_real(first)}{more} "
            f"{self._about_the_pictures(first)}"
        )
        return (Finding(sentence=self._with_missing(sentence), panels=self._panels(first)),)

    @property
    def figures(self) -> Sequence[Figure]:
        """Effects, effects by class, histograms, and the dimensions in pictures."""
        top = self.ranking[:_BARS]
        rows = self.ranking[:12]
        figures: list[Figure] = [
            Plot(
                name="effects",
                title="The style dimensions of largest effect",
                caption=f"Mean gradient of the true class's score ({self.score.replace('-', ' ')}) times the deviation "
                "of the style within its class, over all classes, with 95 % intervals. Left of zero, more of the style "
                f"lowers the score; right of it, less does.{self._missing}",
                draw=lambda: signed_effects(
                    self.effect[top],
                    _Z95 * (self.gradient_error * self.spread)[top],
                    names=[f"{self.ids[d]}, {self.layers[d]}" for d in top.tolist()],
                    x_label="change of the score per deviation of the style",
                ),
            ),
            Plot(
                name="by-class",
                title="The same by class",
                caption="Effect of the twelve foremost dimensions on the score of each class. What weighs on all "
                "classes alike is a matter of image quality; what weighs on one is a matter of its shape.",
                draw=lambda: effect_matrix(
                    (self.mean * self.spread)[:, rows],
                    row_labels=self.class_names,
                    column_labels=[self.ids[d] for d in rows.tolist()],
                    label="change of the score per deviation",
                ),
            ),
        ]
        if len(self.right_styles) and len(self.wrong_styles):
            figures.append(
                Plot(
                    name="histograms",
                    title="Well- and misclassified samples along some dimensions",
                    caption=f"Above, the {HISTOGRAMS} dimensions that tell the two apart best; in the middle, the "
                    f"{HISTOGRAMS} of largest effect on the score; below, {HISTOGRAMS} drawn at random. D is the "
                    "Kolmogorov–Smirnov statistic of the values less the mean of each sample's class, in deviations "
                    "of that class, both kinds with the same mix of classes; p is corrected for all dimensions looked "
                    "at.",
                    draw=self._draw_histograms,
                )
            )
        figures.append(
            Gallery(
                name="dimensions",
                title="What each of them does to a picture",
                caption="The mean digit of the class on which the dimension weighs most, moved along that dimension "
                "alone to where the classifier gives the true class a probability of 0.50, and half as far the other "
                "way. With each picture how many deviations (σ) of the style it has been moved, the probability of the "
                "true class, and whether the style lies within the values observed in the population, within three "
                "times their range, or beyond.",
                class_names=self.class_names,
                cases=[self._case(i) for i in range(len(self.shown))],
                definitions=_DEFINITIONS,
            )
        )
        return figures

    @property
    def _missing(self) -> str:
        """Say in sentences which classes it never takes a sample for, and why two kinds cannot be compared, if so."""
        unsaid = left_unsaid(self.count, self.right, self.predicted, self.class_names)
        drawn, right = int(self.count.sum()), int(self.right.sum())
        if right in (0, drawn):
            which = "None" if right else "All"
            are = "is" if right else "are"
            return f"{unsaid} {which} of {drawn:,} samples {are} misclassified: there are no two kinds to compare."
        if self.ks.isnan().all():
            return f"{unsaid} No class has samples of both kinds, well- and misclassified, to compare."
        return unsaid

    def _with_missing(self, sentence: str) -> str:
        """Say what is missing after a sentence, and before it of a classifier that gives all samples one answer."""
        if int((self.predicted > 0).sum()) == 1:
            return f"{self._missing} {sentence}".strip()
        return f"{sentence}{self._missing}"

    def _about_the_pictures(self, i: int) -> str:
        return (
            f"The pictures show the mean {self.class_names[int(self.start[i])]} at the start and moved by so many "
            f"deviations (σ) along it, each with the probability of its class and where that lies beside the range of "
            "values that its style has."
        )

    def _held_against_real(self, i: int) -> str:
        """Say in a sentence what real images say of a shown dimension; empty if no step has looked at any."""
        found = self._on_real_images(i)
        return f" {_ON_REAL_IMAGES[found]}" if found else ""

    def _on_real_images(self, i: int) -> str:
        return self.on_real_images[int(self.shown[i])] if self.on_real_images else ""

    def _deviations(self, i: int) -> float:
        """Return how far a shown dimension is moved, in its deviations within a class."""
        return float(self.shift[i] / self.spread[self.shown[i]].clamp_min(1e-12))

    def _draw_histograms(self) -> Drawing:
        chosen = (self.telling, self.ranking[:HISTOGRAMS], self.random[:HISTOGRAMS])
        panels = {}
        for column, d in enumerate(torch.cat(chosen).tolist()):
            p = f"p = {self.ks_p[d]:.1g}" if self.ks_p[d] >= 1e-3 else "p < 0.001"
            kind = ("telling", "effect", "random")[min(2, column // HISTOGRAMS)]
            panels[f"{kind} {self.ids[d]}: D = {self.ks[d]:.2f}, {p}"] = (
                self.right_styles[:, column],
                self.wrong_styles[:, column],
            )
        return histogram_grid(panels, names=("well classified", "misclassified"), columns=HISTOGRAMS)

    def _panels(self, i: int) -> list[Panel]:
        per_row = len(self.fractions)
        rows = range(i * per_row, (i + 1) * per_row)
        places = [
            "start" if each == 0 else _in_deviations(each) for each in (self._deviations(i) * self.fractions).tolist()
        ]
        return [
            Panel(
                label=f"{place}: {self.probability[i, column]:.2f}{self._beside_the_observed(i, column)}",
                pixels=self.images[row],
            )
            for column, (place, row) in enumerate(zip(places, rows, strict=True))
        ]

    def _beside_the_observed(self, i: int, column: int) -> str:
        """Say of a picture that was moved where its style lies beside the observed values."""
        if self.fractions[column] == 0:
            return ""
        return f"; {SPOKEN[int(self.place[i, column])]}"

    def _case(self, i: int) -> Case:
        assert self.verification is not None
        d, name = int(self.shown[i]), self.class_names[int(self.start[i])]
        per_row = len(self.fractions)
        last = self.verification.probs[(i + 1) * per_row - 1]
        way = "More" if self.shift[i] > 0 else "Less"
        reached = bool(self.reached[i])
        deviations = self._deviations(i)
        verdict = (
            f"{way} of it {self.descriptions[i]}."
            if reached
            else f"{way} of it {self.descriptions[i]}; by itself it never brings the mean {name} to 0.50."
        )
        return Case(
            id=self.ids[d],
            heading=f"{self.ids[d]}, on the mean {name}",
            verdict=verdict,
            good=reached,
            panels=self._panels(i),
            probabilities={"at the start": self.verification.probs[i * per_row + 1], "at the end": last},
            numbers={
                "layer": self.layers[d],
                "effect": f"{self.effect[d]:+.3f}",
                "gradient": f"{self.gradient[d]:+.4f}",
                "gradient_error": f"{self.gradient_error[d]:.4f}",
                "ks": f"{self.ks[d]:.2f}",
                "shift": f"{deviations:+.1f}",
                **({"on_real_images": self.on_real_images[d]} if self.on_real_images else {}),
            },
            line=Line(
                x=self.fractions * deviations,
                curves={f"probability of {name}": self.probability[i]},
                x_label="shift in deviations of the style",
            ),
        )


def _in_deviations(move: float) -> str:
    return f"{move:+.1f} σ".replace("-", MINUS)
