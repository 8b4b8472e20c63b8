"""Style influence: which style dimensions lower the true class's score, overall and by class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.explain.direction_names import name_directions
from failscape.explain.method import SHARED, Method, Result
from failscape.explain.style_crossing import HALF, centre_probability, cross_half
from failscape.explain.style_gradients import (
    STYLE_SCORES,
    Influence,
    ScoreName,
    error_over_classes,
    measure_influence,
)
from failscape.explain.style_population import (
    images_of,
    layer_name,
    require_class_styles,
    sample_styles,
)
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
from failscape.generators import Generator, StyleGenerator
from failscape.metrics import Estimate, rank_correlation, rate_of

# Fractions of the shift that a strip shows.
_FRACTIONS = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0)
# Where a dimension never brings the probability to one half, its strip shows so many deviations.
_DEVIATIONS = 12.0
_HISTOGRAMS = 3
_RANDOM = 100
_NAMED = 96
_HANDFUL = 30
_BARS = 25
_Z95 = 1.96

_DEFINITIONS = {
    "samples": "Samples over which gradients were averaged, the classes in equal numbers.",
    "accuracy": "Share of samples that the classifier takes for the class asked for. Interval: Wilson, 95 %.",
    "misclassified": "Samples that it does not.",
    "split_half": "Rank correlation (Spearman) of the effects measured on two halves of the samples: near 1 the "
    "ranking can be relied on.",
    "significant": "Style dimensions whose mean gradient differs from zero by more than chance, at 5 % over all of "
    "them together (Bonferroni).",
    "ks_top": "Kolmogorov–Smirnov statistic between the values of well- and misclassified samples, mean of the three "
    "dimensions that tell them apart best: 0 if both are distributed alike, 1 if they do not overlap. The dimensions "
    "are chosen on one half of the samples and measured on the other.",
    "ks_influential": "The same of the three dimensions of largest effect, on that other half.",
    "ks_random": "The same, median of dimensions drawn at random from all the others, on that other half.",
    "ks_significant": "Dimensions on which well- and misclassified samples differ by more than chance, at 5 % over "
    "all of them together (Bonferroni).",
    "id": "The style dimension: s and its number, layer after layer.",
    "rank": "Place in the order of the size of the effect.",
    "layer": "The layer that the dimension scales the channels of, and the resolution of its output.",
    "gradient": "Mean gradient of the true class's score in the style, over all classes.",
    "gradient_error": "Its standard error.",
    "effect": "Mean gradient times the style's deviation within its class: change of the score per deviation.",
    "lowered_by": "Which way the style must move to lower the true class's score: up or down.",
    "ks": "Kolmogorov–Smirnov statistic between well- and misclassified samples, within their classes; NaN where no "
    "class has both.",
    "ks_p": "Its p-value, multiplied by the number of dimensions (Bonferroni).",
    "shift": "The smallest move that brings the true class to a probability of 0.50, from the mean styles of the class "
    "shown, in the style's deviations; NaN where none does, or where it was not looked for.",
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
        spread: deviation of each style within its class.
        ks: Kolmogorov–Smirnov statistic of each dimension.
        ks_p: its p-value, corrected.
        ks_held: the statistic on the half of the samples that `telling` was not chosen on.
        telling: dimensions that tell well- from misclassified samples best, chosen on the other half.
        random: dimensions drawn at random, for comparison.
        right_styles: values of well classified samples on the dimensions of the histograms: telling, of largest effect,
            random.
        wrong_styles: values of misclassified ones.
        shown: the dimensions in pictures.
        start: the class whose mean digit is moved.
        shift: how far, in the style's own units.
        reached: 1 where the probability reached one half.
        fractions: of the shift in each picture.
        descriptions: what each of them changes in a picture.
        score: which score.
        class_names: K names.
    """

    ids: tuple[str, ...] = field(metadata=SHARED)
    layers: tuple[str, ...] = field(metadata=SHARED)
    mean: Float[Tensor, "K S"]
    error: Float[Tensor, "K S"]
    halves: Float[Tensor, "2 S"]
    count: Int[Tensor, " K"]
    right: Int[Tensor, " K"]
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
    descriptions: tuple[str, ...]
    score: str
    class_names: tuple[str, ...] = field(metadata=SHARED)

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
            "split_half": self.split_half,
            "significant": float((p * len(p) < 0.05).sum()),
            "ks_top": self.ks_held[self.telling].mean().item(),
            "ks_influential": self.ks_held[self.ranking[:_HISTOGRAMS]].mean().item(),
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
            return (Finding(sentence="No direction in which the images vary changes its score."),)
        if not told:
            return ()
        first = told[0]
        others = dict.fromkeys(self.descriptions[i].split(",")[0].split(" (")[0] for i in told[1:])
        lead = self.descriptions[first].split(" (")[0].split(",")[0]
        also = [text for text in others if text != lead][:2]
        more = f" Others that cost it much: one {' and one '.join(also)}." if also else ""
        most = "most" if first == 0 else "most of those whose effect can be named"
        sentence = (
            f"Of {len(self.ids)} directions in which the images vary, this one costs it {most}: "
            f"it {self.descriptions[first]}.{more}"
        )
        return (Finding(sentence=sentence, panels=self._panels(first)),)

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
                "lowers the score; right of it, less does.",
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
                    caption=f"Above, the {_HISTOGRAMS} dimensions that tell the two apart best; in the middle, the "
                    f"{_HISTOGRAMS} of largest effect on the score; below, {_HISTOGRAMS} drawn at random. D is the "
                    "Kolmogorov–Smirnov statistic of the values less the mean of each sample's class, in deviations; p "
                    "is corrected for all dimensions looked at.",
                    draw=self._draw_histograms,
                )
            )
        figures.append(
            Gallery(
                name="dimensions",
                title="What each of them does to a picture",
                caption="The mean digit of the class on which the dimension weighs most, moved along that dimension "
                "alone to where the classifier gives the true class a probability of 0.50, and half as far the other "
                "way.",
                class_names=self.class_names,
                cases=[self._case(i) for i in range(len(self.shown))],
                definitions=_DEFINITIONS,
            )
        )
        return figures

    def _draw_histograms(self) -> Drawing:
        chosen = (self.telling, self.ranking[:_HISTOGRAMS], self.random[:_HISTOGRAMS])
        panels = {}
        for column, d in enumerate(torch.cat(chosen).tolist()):
            p = f"p = {self.ks_p[d]:.1g}" if self.ks_p[d] >= 1e-3 else "p < 0.001"
            kind = ("telling", "effect", "random")[min(2, column // _HISTOGRAMS)]
            panels[f"{kind} {self.ids[d]}: D = {self.ks[d]:.2f}, {p}"] = (
                self.right_styles[:, column],
                self.wrong_styles[:, column],
            )
        return histogram_grid(panels, names=("well classified", "misclassified"), columns=_HISTOGRAMS)

    def _panels(self, i: int) -> list[Panel]:
        per_row = len(self.fractions)
        rows = range(i * per_row, (i + 1) * per_row)
        return [
            Panel(label=f"{self.probability[i, column]:.2f}", pixels=self.images[row])
            for column, row in enumerate(rows)
        ]

    def _case(self, i: int) -> Case:
        assert self.verification is not None
        d, name = int(self.shown[i]), self.class_names[int(self.start[i])]
        per_row = len(self.fractions)
        last = self.verification.probs[(i + 1) * per_row - 1]
        way = "More" if self.shift[i] > 0 else "Less"
        reached = bool(self.reached[i])
        deviations = float(self.shift[i] / self.spread[d].clamp_min(1e-12))
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
            },
            line=Line(
                x=self.fractions * deviations,
                curves={f"probability of {name}": self.probability[i]},
                x_label="shift in deviations of the style",
            ),
        )


@final
class StyleInfluence(Method[StyleInfluenceResult]):
    r"""Which style dimensions lower the true class's score, overall and by class?

    Over a population of samples, the mean gradient $\overline{\nabla_{s_j} f_y(g(s))}$ of the score of each sample's
    true class, the class that it was asked for, in each style $s_j$. Sums are streamed, so memory does not grow with
    the population. Dimensions are ranked by gradient times deviation: a style that hardly varies matters little,
    however steep the score is along it. Beside the gradients, which rest on small moves, stand the populations
    themselves: how well- and misclassified samples are distributed on each dimension.

    The images given are not used; the population is the generator's.

    Args:
        samples: in the population.
        score: of the true class: "logit-margin" ($z_y - \max_{k \neq y} z_k$, the default: where the classifier is
            sure the others are flat and their gradients mostly noise), "probability" (the paper's), or
            "log-probability".
        gradients: "exact", or "finite-differences" (central) for classifiers
            without gradients; "auto" takes what the classifier has.
        difference_samples: samples of which finite differences are taken, two images a style of each; by default 200,
            or four of each class where that is more.
        top: dimensions to show in pictures and to name.

    Raises:
        ValueError: if a setting is out of its range.
        UnsupportedGenerator: if the generator has no styles, or cannot be asked for the classifier's classes.
        UnsupportedClassifier: if gradients are "exact" and the classifier has none.

    References:
        Le Coz et al., "Leveraging generative models to characterize the failure conditions of image classifiers",
        AISafety 2022, section 2.2.
        Wu et al., "StyleSpace Analysis", CVPR 2021.
    """

    result_type: ClassVar[type[StyleInfluenceResult]] = StyleInfluenceResult

    def __init__(
        self,
        *,
        samples: int = 20_000,
        score: ScoreName = "logit-margin",
        gradients: Literal["auto", "exact", "finite-differences"] = "auto",
        difference_samples: int | None = None,
        top: int = 10,
    ) -> None:
        if score not in STYLE_SCORES:
            raise ValueError(f"Expected `score` to be one of {', '.join(STYLE_SCORES)}, but got {score!r}.")
        if gradients not in ("auto", "exact", "finite-differences"):
            raise ValueError(f"Expected `gradients` to be auto, exact or finite-differences, but got {gradients!r}.")
        if samples < 20 or (difference_samples is not None and difference_samples < 20) or top < 1:
            raise ValueError(
                "Expected `samples` and `difference_samples` of at least 20 and `top` of at least 1, but got "
                f"{samples}, {difference_samples}, {top}."
            )
        self.samples = samples
        self.score: ScoreName = score
        self.gradients = gradients
        self.difference_samples = difference_samples
        self.top = top

    def run(
        self,
        classifier: Classifier,
        generator: Generator,
        x: Float[Tensor, "N C H W"],
        y: Int[Tensor, " N"],
        *,
        ids: tuple[str, ...],
        rng: torch.Generator,
    ) -> StyleInfluenceResult:
        """Average gradients over a population, compare its two parts, and show the top dimensions."""
        styled = require_class_styles(generator, classifier, "style influence")
        exact = self.gradients == "exact" or (self.gradients == "auto" and classifier.differentiable)
        if exact:
            classifier.require_gradients("style influence", 'Set `gradients` to "finite-differences".')
        influence = measure_influence(
            classifier,
            styled,
            self.samples,
            rng=rng,
            score=self.score,
            gradients=exact,
            differences=self.difference_samples,
        )
        ranking = influence.ranking()
        shown = ranking[: self.top]
        everything = torch.ones_like(influence.kept_right)
        ks, ks_p = _compared(influence, everything)
        first = _first_half(influence.kept_right)
        telling = _compared(influence, first)[0].nan_to_num().argsort(descending=True, stable=True)[:_HISTOGRAMS]
        others = ranking[max(self.top, _HISTOGRAMS) :]
        others = others[~torch.isin(others, telling)]
        random = others[torch.randperm(len(others), generator=rng)[:_RANDOM]]
        looked_at = torch.cat([telling, ranking[:_HISTOGRAMS], random[:_HISTOGRAMS]])
        right = influence.kept_right

        start, shift, reached, images = self._pictures(classifier, styled, influence, shown)
        named = sample_styles(styled, _NAMED, rng=rng)
        names = name_directions(styled, named, shown, shift)
        return StyleInfluenceResult(
            images=images,
            ids=tuple(f"s{d}" for d in range(styled.style_dim)),
            layers=tuple(layer_name(styled, d) for d in range(styled.style_dim)),
            mean=influence.mean,
            error=influence.error,
            halves=influence.halves,
            count=influence.count,
            right=influence.right,
            spread=influence.spread,
            ks=ks,
            ks_p=ks_p,
            ks_held=_compared(influence, ~first)[0],
            telling=telling,
            random=random,
            right_styles=_within_class(influence)[right][:, looked_at],
            wrong_styles=_within_class(influence)[~right][:, looked_at],
            shown=shown,
            start=start,
            shift=shift,
            reached=reached,
            fractions=torch.tensor(_FRACTIONS),
            descriptions=tuple(name.text for name in names),
            score=self.score,
            class_names=classifier.class_names,
        )

    def _pictures(
        self, classifier: Classifier, generator: StyleGenerator, influence: Influence, shown: Int[Tensor, " T"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return of each dimension the class to start from, the shift, whether it crosses, and the pictures."""
        weights = (influence.mean * influence.spread)[:, shown].nan_to_num().abs()
        # Of a class whose mean digit the classifier does not take for one there is nothing to lose.
        known = torch.tensor(
            [centre_probability(classifier, generator, influence, k) > HALF for k in range(len(weights))]
        )
        start = torch.where(known[:, None], weights, -1.0).argmax(dim=0)
        shift, reached, moved = [], [], []
        for d, label in zip(shown.tolist(), start.tolist(), strict=True):
            centre = influence.centre[label]
            found = cross_half(classifier, generator, centre, None, label, torch.tensor([d]), influence)
            crosses = bool(found.found) and bool(known[label])
            lowering = -float(influence.mean[label, d].sign()) * _DEVIATIONS * influence.spread[d]
            shift.append(float(found.shift) if crosses else float(lowering))
            reached.append(int(crosses))
            strip = centre.repeat(len(_FRACTIONS), 1)
            strip[:, d] += shift[-1] * torch.tensor(_FRACTIONS)
            moved.append(images_of(generator, strip))
        return start, torch.tensor(shift), torch.tensor(reached), torch.cat(moved)


def _within_class(influence: Influence) -> Float[Tensor, "M S"]:
    """Return the styles kept, less the mean of each one's class, in deviations."""
    away: Tensor = (influence.kept - influence.centre[influence.kept_y]) / influence.spread.clamp_min(1e-6)
    return away


def _first_half(right: Bool[Tensor, " M"]) -> Bool[Tensor, " M"]:
    """Mark every second of the well classified samples and every second of the others."""
    half = torch.zeros_like(right)
    for kind in (True, False):
        rows = (right == kind).nonzero()[:, 0]
        half[rows[::2]] = True
    return half


def _compared(influence: Influence, rows: Bool[Tensor, " M"]) -> tuple[Float[Tensor, " S"], Float[Tensor, " S"]]:
    """Return the Kolmogorov–Smirnov statistic of each dimension and its p-value, times the number of dimensions."""
    from scipy.stats import ks_2samp

    # Within its class: else mistakes that are of some classes more than of others would tell these classes apart. A
    # class that has only one kind says nothing.
    y, kept_right = influence.kept_y, influence.kept_right
    both = [k for k in y.unique().tolist() if 0 < int(kept_right[rows & (y == k)].sum()) < int((rows & (y == k)).sum())]
    rows = rows & torch.isin(y, torch.tensor(both, dtype=y.dtype))
    kept = _within_class(influence)[rows]
    right, wrong = kept[kept_right[rows]], kept[~kept_right[rows]]
    dim = kept.shape[1]
    if not len(right) or not len(wrong):
        return torch.full((dim,), torch.nan), torch.full((dim,), torch.nan)
    # The asymptotic distribution does not hold for a handful.
    method = "exact" if min(len(right), len(wrong)) < _HANDFUL and len(right) * len(wrong) < 10**6 else "asymp"
    tests = [ks_2samp(right[:, d].numpy(), wrong[:, d].numpy(), method=method) for d in range(dim)]
    p = torch.tensor([float(test.pvalue) for test in tests])
    return torch.tensor([float(test.statistic) for test in tests]), (p * dim).clamp_max(1)
