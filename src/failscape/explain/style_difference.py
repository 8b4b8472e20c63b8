"""Style difference: on which style dimensions do classifiers differ most?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import ClassVar, final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.explain.comparison import require_same_task, told_apart
from failscape.explain.direction_names import name_directions
from failscape.explain.method import SHARED, Method, Result, to_8_bits
from failscape.explain.style_gradients import Influence, ScoreName, known_score, measure_influence
from failscape.explain.style_population import images_of, layer_name, require_class_styles, sample_styles
from failscape.figures import Case, Figure, Finding, Gallery, Line, Panel, Plot, effect_matrix, signed_effects
from failscape.generators import Generator, StyleGenerator
from failscape.metrics import rank_correlation, rate_of

# Differences beyond chance: at so much over all dimensions and classifiers together (Bonferroni).
_LEVEL = 0.05
_Z95 = 1.96
_UNIT = "in units of the root mean square of each classifier's own effects over all dimensions"
# Effects are of unit size: what differs by less than this is the rounding of single precision.
_ROUNDING = 1e-5
_BARS, _COLUMNS = 25, 10
# Pictures of a dimension, from so many deviations down to as many up; the middle one is the start.
_PICTURES = 7
_MIDDLE = _PICTURES // 2
# Samples on which it is measured what a dimension changes in a picture.
_NAMED = 96

_DEFINITIONS = {
    "samples": "Samples that all classifiers were shown, as many of each class. Gradients were averaged over them, or, "
    "where a classifier has none, finite differences over the first of them.",
    "accuracy": "Share of samples that the explained classifier takes for the class asked for. Interval: Wilson, 95 %.",
    "differing": "Style dimensions on which another classifier differs from the explained one by more than chance, at "
    "5 % over all of them together (Bonferroni).",
    "id": "The style dimension: s and its number, layer after layer.",
    "rank": "Place in the order of the size of the difference, those beyond chance first.",
    "layer": "The layer that the dimension scales the channels of, and the resolution of its output.",
    "effect": "Mean gradient of the true class's score in the style, for the explained classifier, times the style's "
    "deviation within its class: change of the score per deviation; divided by the root mean square of that over all "
    "dimensions, since the scores of different classifiers are not of one scale.",
    "beyond_chance": "Whether another classifier differs on it by more than chance, as counted in the summary.",
}


@final
@dataclass(frozen=True, kw_only=True)
class StyleDifferenceResult(Result):
    """What `StyleDifference` found of M classifiers, the explained one first, on S style dimensions.

    Attributes:
        images: the mean picture of a class moved along each shown dimension, T × F, 8-bit values in [0, 1].
        ids: the S style dimensions.
        layers: to which layer each belongs.
        effect: change of the true class's score per deviation of the style, for each classifier, divided by the root
            mean square of its changes over all dimensions; 0 throughout where it heeds none.
        error: its standard errors, in the same unit.
        right: samples that each classifier gets right.
        samples: how many there are.
        shown: the dimensions in pictures.
        start: the class whose mean picture is moved.
        deviations: how far, in the style's deviations.
        way: 1 where the classifiers part most as the style grows, -1 where as it shrinks.
        descriptions: what moving each dimension that way changes in a picture, measured on samples.
        other_probs: probabilities of the pictures by each of the other classifiers.
        score: which score.
        classifiers: names of the classifiers.
        class_names: K names.
    """

    ids: tuple[str, ...] = field(metadata=SHARED)
    layers: tuple[str, ...] = field(metadata=SHARED)
    effect: Float[Tensor, "M S"]
    error: Float[Tensor, "M S"]
    right: Int[Tensor, " M"]
    samples: int
    shown: Int[Tensor, " T"]
    start: Int[Tensor, " T"]
    deviations: Float[Tensor, " F"]
    way: Int[Tensor, " T"]
    descriptions: tuple[str, ...]
    other_probs: Float[Tensor, "O N K"]
    score: str
    classifiers: tuple[str, ...]
    class_names: tuple[str, ...] = field(metadata=SHARED)

    @property
    def made_from(self) -> tuple[str, ...]:
        """The mean picture of a class."""
        names = [self.class_names[k] for k in self.start.tolist()]
        each = len(self.images) // max(1, len(names))
        return tuple(f"the mean of class {name}" for name in names for _ in range(each))

    @property
    def difference(self) -> Float[Tensor, "O S"]:
        """Effect on each of the other classifiers minus that on the explained one."""
        return _compared(self.effect, self.error)[0]

    @property
    def difference_error(self) -> Float[Tensor, "O S"]:
        """Its standard error, as if each were measured on samples of its own."""
        return _compared(self.effect, self.error)[1]

    @property
    def z(self) -> Float[Tensor, "O S"]:
        """The difference in units of its standard error; 0 where neither classifier heeds the style."""
        return _in_errors(self.difference, self.difference_error)

    @property
    def beyond_chance(self) -> Bool[Tensor, " S"]:
        """On which dimensions another classifier differs by more than chance."""
        return _beyond_chance(self.z)

    @property
    def ranking(self) -> Int[Tensor, " S"]:
        """The dimensions in the order of the size of the difference, those beyond chance first."""
        return _ranking(self.difference, self.z)

    @property
    def probability(self) -> Float[Tensor, "M T F"]:
        """Probability of the class of the start in each picture, by each classifier."""
        assert self.verification is not None
        y = self.start.repeat_interleave(len(self.deviations))
        probs = torch.cat([self.verification.probs[None], self.other_probs])
        return probs.gather(2, y[None, :, None].expand(len(probs), -1, 1)).view(len(probs), len(self.shown), -1)

    @property
    def summary(self) -> dict[str, float]:
        """How often each classifier is right, and on how many dimensions they differ."""
        summary = {"samples": float(self.samples), **self._accuracy(0, "accuracy")}
        summary["differing"] = float(self.beyond_chance.sum())
        for i, name in enumerate(self.classifiers[1:], start=1):
            summary |= self._accuracy(i, f"accuracy of {name}")
            summary[f"agreement with {name}"] = rank_correlation(self.effect[0], self.effect[i])
        return summary

    @property
    def table(self) -> pa.Table:
        """One row a style dimension."""
        rank = torch.empty(len(self.ids), dtype=torch.int64)
        rank[self.ranking] = torch.arange(1, len(rank) + 1)
        columns = {
            "id": list(self.ids),
            "rank": rank.numpy(),
            "layer": list(self.layers),
            "beyond_chance": self.beyond_chance.numpy(),
            "effect": self.effect[0].numpy(),
        }
        for i, name in enumerate(self.classifiers[1:]):
            columns[f"effect on {name}"] = self.effect[1 + i].numpy()
            columns[f"difference of {name}"] = self.difference[i].numpy()
            columns[f"standard errors of {name}"] = self.z[i].numpy()
        return pa.table(columns)

    @property
    def definitions(self) -> Mapping[str, str]:
        """What each number means."""
        own = self.classifiers[0]
        of_others: dict[str, str] = {}
        for name in self.classifiers[1:]:
            of_others |= {
                f"accuracy of {name}": f"Share of the same samples that {name} takes for the class asked for. "
                "Interval: Wilson, 95 %.",
                f"agreement with {name}": f"Rank correlation (Spearman) of the effects on {own} and on {name}: 1 where "
                "both heed all dimensions alike.",
                f"effect on {name}": f"The same effect, on {name}.",
                f"difference of {name}": f"Effect on {name} minus that on {own}, each in its own unit: above zero, "
                f"more of the style helps {name} more, or harms it less.",
                f"standard errors of {name}": "That difference in units of its standard error, as if each classifier "
                "had samples of its own; that it has not makes the difference surer than this says.",
            }
        return _DEFINITIONS | of_others

    @property
    def figures(self) -> Sequence[Figure]:
        """The largest differences, the effects side by side, and the dimensions in pictures."""
        top = self.ranking[:_BARS]
        columns = self.ranking[:_COLUMNS]
        own = self.classifiers[0]
        figures: list[Figure] = []
        for i, name in enumerate(self.classifiers[1:]):
            figures.append(
                Plot(
                    name=f"differences-{i + 1}",
                    title=f"Where {name} differs from {own}",
                    caption=f"Change of the true class's score ({self.score.replace('-', ' ')}) per deviation of the "
                    f"style, {_UNIT}, for {name} minus for {own}, with 95 % intervals: right of zero more of the "
                    f"style helps {name} more than {own}, or harms it less; left of zero the other way round. All are "
                    f"measured on the same {self.samples:,} samples.",
                    draw=lambda i=i: signed_effects(  # type: ignore[misc]
                        self.difference[i][top],
                        _Z95 * self.difference_error[i][top],
                        names=[f"{self.ids[d]}, {self.layers[d]}" for d in top.tolist()],
                        x_label="difference of the effects, in root mean squares",
                    ),
                )
            )
        figures.append(
            Plot(
                name="side-by-side",
                title="The effect on each classifier",
                caption=f"Change of the true class's score per deviation of the style, {_UNIT}, on the dimensions of "
                "largest difference. Above zero more of the style helps, below zero it harms.",
                draw=lambda: effect_matrix(
                    self.effect[:, columns],
                    row_labels=self.classifiers,
                    column_labels=[self.ids[d] for d in columns.tolist()],
                    label="effect",
                ),
            )
        )
        figures.append(
            Gallery(
                name="dimensions",
                title="The dimensions of largest difference, in pictures",
                caption="The mean picture of a class moved along one dimension alone, as many deviations down as up; "
                "of all classes the one on which the classifiers part most. Under each picture stands what each "
                "classifier says of it. A case fails where all of them call every picture the same.",
                class_names=self.class_names,
                cases=[self._case(i) for i in range(len(self.shown))],
                definitions=self.definitions,
            )
        )
        return figures

    @property
    def findings(self) -> Sequence[Finding]:
        """What the dimension of largest difference does to each classifier."""
        names = _listed(self.classifiers)
        if not self.beyond_chance.any():
            sentence = (
                f"On none of {len(self.ids)} directions in which the images vary do {names} differ by more than chance."
            )
            return (Finding(sentence=sentence),)
        # The first that parts them within reach; a slope may differ where no verdict does.
        row = next((i for i in range(len(self.shown)) if self._parts(i)), 0)
        probability = self.probability[:, row]
        steps = range(_MIDDLE, _PICTURES) if self.way[row] > 0 else range(_MIDDLE, -1, -1)
        farthest = max(steps, key=lambda step: float(probability[:, step].max() - probability[:, step].min()))
        name = self.class_names[int(self.start[row])]
        does = self.descriptions[row].split(" (")[0]
        said = [f"{float(probability[m, farthest]):.2f} for {each}" for m, each in enumerate(self.classifiers)]
        sentence = (
            f"{names} differ on {int(self.beyond_chance.sum())} of {len(self.ids)} directions in which the images "
            f"vary; moved along one that {does}, a {name} is still a {name} with a "
            f"probability of {_listed(said)}."
        )
        first = row * len(self.deviations)
        panels = [Panel(label=self._said(first + step), pixels=self.images[first + step]) for step in steps]
        return (Finding(sentence=sentence, panels=panels),)

    def _accuracy(self, classifier: int, key: str) -> dict[str, float]:
        return rate_of(int(self.right[classifier]), self.samples).named(key)

    def _verdicts(self, row: int) -> list[int]:
        assert self.verification is not None
        return [int(probs[row].argmax()) for probs in (self.verification.probs, *self.other_probs)]

    def _said(self, row: int) -> str:
        """What each classifier says of a picture, as its label."""
        assert self.verification is not None
        all_probs = (self.verification.probs, *self.other_probs)
        said = [
            f"{name}: {self.class_names[k]} ({probs[row].max():.2f})"
            for name, k, probs in zip(self.classifiers, self._verdicts(row), all_probs, strict=True)
        ]
        return "; ".join(said)

    def _parts(self, i: int) -> bool:
        """Whether classifiers disagree about a picture of a dimension."""
        rows = range(i * len(self.deviations), (i + 1) * len(self.deviations))
        return any(len(set(self._verdicts(row))) > 1 for row in rows)

    def _case(self, i: int) -> Case:
        assert self.verification is not None
        d, name, first = int(self.shown[i]), self.class_names[int(self.start[i])], i * len(self.deviations)
        parts = self._parts(i)
        steps = range(len(self.deviations))
        disputed = sum(len(set(self._verdicts(first + step))) > 1 for step in steps)
        way = "More" if self.way[i] > 0 else "Less"
        verdict = (
            f"{way} of it {self.descriptions[i]}; the classifiers disagree about {disputed} of {len(steps)} pictures."
            if parts
            else "Failed: the classifiers say the same of every picture; what differs is only how sure they are."
        )
        numbers = {"layer": self.layers[d], "effect": f"{self.effect[0, d]:+.3f}"}
        for m, each in enumerate(self.classifiers[1:]):
            numbers[f"effect on {each}"] = f"{self.effect[1 + m, d]:+.3f}"
            numbers[f"standard errors of {each}"] = f"{self.z[m, d]:+.1f}"
        return Case(
            id=self.ids[d],
            heading=f"{self.ids[d]}, on the mean {name}",
            verdict=verdict,
            good=parts,
            panels=[Panel(label=self._said(first + step), pixels=self.images[first + step]) for step in steps],
            numbers=numbers,
            line=Line(
                x=self.deviations,
                curves={each: self.probability[m, i] for m, each in enumerate(self.classifiers)},
                x_label=f"deviations of the style; probability of {name}",
            ),
        )


@final
class StyleDifference(Method[StyleDifferenceResult]):
    r"""On which style dimensions do classifiers differ most?

    On the same samples of the generator the mean gradient of the true class's score is measured for each classifier in
    each style, as `StyleInfluence` does, per deviation of the style. Each classifier's effects are divided by their
    root mean square over all dimensions: logits twice as large are no difference. Dimensions are ranked by the
    difference of another classifier from the explained one, those on which it is beyond chance first:
    $z = (e_o - e) / \sqrt{\sigma_o^2 + \sigma^2}$, at 5 % over all dimensions and classifiers together.

    The images given are not used; the samples are the generator's.

    Args:
        others: classifiers to compare with, of the same images and classes; at least one.
        samples: on which gradients are averaged. Of classifiers without gradients finite differences are taken of 200
            of them, or of four of each class where that is more, two images a style of each.
        score: of the true class: "logit-margin", "log-probability" or "probability". On digits the differences of 2,000
            samples agreed best with those of 2,000 others for the margin (rank correlation 0.94, probability 0.88).
        top: dimensions to show in pictures.
        reach: how many deviations of the style these move either way.

    Raises:
        ValueError: if a setting is out of its range.
        UnsupportedGenerator: if the generator has no styles, or cannot be asked for the classifier's classes.
        ClassifierError: if one of the others takes other images or knows other classes.

    Example:
        >>> method = StyleDifference(others=(load_classifier("embedded:mnist-corrupted"),))
        >>> result = method(classifier, stylegan2, x, y, rng=torch.Generator().manual_seed(0))
        >>> result.findings[0].sentence

    References:
        Le Coz et al., "Leveraging generative models to characterize the failure conditions of image classifiers",
        AISafety 2022, section 2.2, for the gradients.
    """

    result_type: ClassVar[type[StyleDifferenceResult]] = StyleDifferenceResult

    def __init__(
        self,
        *,
        others: tuple[Classifier, ...] = (),
        samples: int = 5000,
        score: ScoreName = "logit-margin",
        top: int = 6,
        reach: float = 3.0,
    ) -> None:
        if not others:
            raise ValueError("Expected at least one classifier in `others` to compare with, but got none.")
        if samples < 20 or top < 1 or not 0 < reach < float("inf"):
            raise ValueError(
                "Expected `samples` of at least 20, `top` of at least 1 and a positive `reach`, but got "
                f"{samples}, {top}, {reach:g}."
            )
        self.others = tuple(others)
        self.samples = samples
        self.score = known_score(score)
        self.top = top
        self.reach = reach

    def run(
        self,
        classifier: Classifier,
        generator: Generator,
        x: Float[Tensor, "N C H W"],
        y: Int[Tensor, " N"],
        *,
        ids: tuple[str, ...],
        rng: torch.Generator,
    ) -> StyleDifferenceResult:
        """Measure the influence on each classifier, compare, and show the dimensions of largest difference."""
        require_same_task(classifier, self.others)
        styled = require_class_styles(generator, classifier, "style difference")
        classifiers = (classifier, *self.others)
        exact = all(each.differentiable for each in classifiers)
        seed = int(torch.randint(2**62, (), generator=rng))
        influences = [
            measure_influence(
                each,
                styled,
                self.samples,
                rng=torch.Generator().manual_seed(seed),
                score=self.score,
                gradients=exact,
            )
            for each in classifiers
        ]
        effect = torch.stack([each.effect() for each in influences])
        # A margin is of no common scale: a sharper classifier would differ from its own cooler form everywhere.
        unit = effect.square().mean(dim=1, keepdim=True).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        error = torch.stack([each.overall_error * each.spread for each in influences]) / unit
        effect = effect / unit
        difference, difference_error = _compared(effect, error)
        shown = _ranking(difference, _in_errors(difference, difference_error))[: self.top]
        deviations = torch.linspace(-self.reach, self.reach, _PICTURES)
        start, way, images = _pictures(classifiers, styled, influences[0], shown, deviations)
        names = name_directions(
            styled, sample_styles(styled, _NAMED, rng=rng), shown, way * self.reach * influences[0].spread[shown]
        )
        return StyleDifferenceResult(
            images=images,
            ids=tuple(f"s{d}" for d in range(styled.style_dim)),
            layers=tuple(layer_name(styled, d) for d in range(styled.style_dim)),
            effect=effect,
            error=error,
            right=torch.stack([each.right.sum() for each in influences]),
            samples=int(influences[0].count.sum()),
            shown=shown,
            start=start,
            deviations=deviations,
            way=way,
            descriptions=tuple(name.text for name in names),
            other_probs=torch.stack([each.probs(images) for each in self.others]),
            score=self.score,
            classifiers=told_apart([each.name for each in classifiers]),
            class_names=classifier.class_names,
        )


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]])


def _compared(
    effect: Float[Tensor, "M S"], error: Float[Tensor, "M S"]
) -> tuple[Float[Tensor, "O S"], Float[Tensor, "O S"]]:
    """Return the differences of all others from the first, and their standard errors."""
    return effect[1:] - effect[0], (error[1:].square() + error[0].square()).sqrt()


def _in_errors(difference: Float[Tensor, "O S"], error: Float[Tensor, "O S"]) -> Float[Tensor, "O S"]:
    return difference / error.clamp_min(_ROUNDING)


def _beyond_chance(z: Float[Tensor, "O S"]) -> Bool[Tensor, " S"]:
    least = NormalDist().inv_cdf(1 - _LEVEL / (2 * z.numel()))
    return (z.abs() > least).any(dim=0)


def _ranking(difference: Float[Tensor, "O S"], z: Float[Tensor, "O S"]) -> Int[Tensor, " S"]:
    """Return the styles by the size of their largest difference, those beyond chance first."""
    size = difference.abs().amax(dim=0)
    by_size = size.argsort(descending=True, stable=True)
    return by_size[(~_beyond_chance(z))[by_size].int().argsort(stable=True)]


def _pictures(
    classifiers: Sequence[Classifier],
    generator: StyleGenerator,
    influence: Influence,
    shown: Int[Tensor, " T"],
    deviations: Float[Tensor, " F"],
) -> tuple[Int[Tensor, " T"], Int[Tensor, " T"], Float[Tensor, "N C H W"]]:
    """Return of each dimension the class on whose mean picture classifiers part most, which way, and its pictures."""
    labels = (influence.count > 0).nonzero()[:, 0]
    y = labels.repeat_interleave(len(deviations))
    starts, ways, chosen = [], [], []
    for d in shown.tolist():
        s = influence.centre[labels].repeat_interleave(len(deviations), dim=0)
        s[:, d] += deviations.repeat(len(labels)) * influence.spread[d]
        images = to_8_bits(images_of(generator, s))
        probs = torch.stack([each.probs(images).gather(1, y[:, None])[:, 0] for each in classifiers])
        apart = (probs.amax(dim=0) - probs.amin(dim=0)).view(len(labels), -1)
        best = int(apart.amax(dim=1).argmax())
        starts.append(int(labels[best]))
        ways.append(1 if apart[best, _MIDDLE:].max() >= apart[best, :_MIDDLE].max() else -1)
        chosen.append(images.view(len(labels), len(deviations), *images.shape[1:])[best])
    return torch.tensor(starts), torch.tensor(ways), torch.cat(chosen)
