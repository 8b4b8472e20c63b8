"""Style influence: which style dimensions lower the true class's score, overall and by class."""

import math
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.explain.corner_cases import place_of
from failscape.explain.direction_names import name_directions
from failscape.explain.method import Method
from failscape.explain.shared_influence import shared_influence
from failscape.explain.style_crossing import HALF, centre_probability, cross_half
from failscape.explain.style_gradients import Influence, ScoreName, known_score
from failscape.explain.style_influence_result import HISTOGRAMS, StyleInfluenceResult
from failscape.explain.style_population import (
    find_mistakes,
    images_of,
    layer_name,
    require_class_styles,
    sample_styles,
)
from failscape.generators import Generator, StyleGenerator

# Fractions of the shift that a strip shows.
_FRACTIONS = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0)
# Where a dimension never brings the probability to one half, its strip shows so many deviations.
_DEVIATIONS = 12.0
_NAMED = 96
# Dimensions whose samples are sorted at once.
_CHUNK = 256
# So many times the population may be drawn once more to find mistakes.
_HUNT = 8


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
            or four of each class where that is more. In a study the ranking of the other steps heeds neither this nor
            `gradients`.
        top: dimensions to show in pictures and to name.
        mistakes: misclassified samples to compare with well classified ones. Where the population has fewer, but any,
            more are drawn for them, without gradients, up to eight times as many as it has samples.

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
    ranks_over: ClassVar[str] = "samples"

    def __init__(
        self,
        *,
        samples: int = 20_000,
        score: ScoreName = "logit-margin",
        gradients: Literal["auto", "exact", "finite-differences"] = "auto",
        difference_samples: int | None = None,
        top: int = 10,
        mistakes: int = 1000,
    ) -> None:
        if mistakes < 0:
            raise ValueError(f"Expected `mistakes` of at least 0, but got {mistakes}.")
        if gradients not in ("auto", "exact", "finite-differences"):
            raise ValueError(f"Expected `gradients` to be auto, exact or finite-differences, but got {gradients!r}.")
        if samples < 20 or (difference_samples is not None and difference_samples < 20) or top < 1:
            raise ValueError(
                "Expected `samples` and `difference_samples` of at least 20 and `top` of at least 1, but got "
                f"{samples}, {difference_samples}, {top}."
            )
        self.samples = samples
        self.score = known_score(score)
        self.gradients = gradients
        self.difference_samples = difference_samples
        self.top = top
        self.mistakes = mistakes

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
        influence = shared_influence(
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
        kept, right, of = self._both_kinds(classifier, styled, influence, rng)
        away = _within_class(influence, kept, of)
        ks, ks_p = _compared(away, right, of)
        first = _first_half(right)
        chosen_on = _compared(away[first], right[first], of[first])[0]
        telling = chosen_on.nan_to_num().argsort(descending=True, stable=True)[:HISTOGRAMS]
        others = ranking[max(self.top, HISTOGRAMS) :]
        others = others[~torch.isin(others, telling)]
        random = others[torch.randperm(len(others), generator=rng)]
        looked_at = torch.cat([telling, ranking[:HISTOGRAMS], random[:HISTOGRAMS]])
        well, wrong = _in_like_mix(right, of)

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
            predicted=influence.predicted,
            spread=influence.spread,
            ks=ks,
            ks_p=ks_p,
            ks_held=_compared(away[~first], right[~first], of[~first])[0],
            telling=telling,
            random=random,
            right_styles=away[well][:, looked_at],
            wrong_styles=away[wrong][:, looked_at],
            shown=shown,
            start=start,
            shift=shift,
            reached=reached,
            fractions=torch.tensor(_FRACTIONS),
            place=_places(influence, shown, start, shift),
            descriptions=tuple(name.text for name in names),
            score=self.score,
            class_names=classifier.class_names,
        )

    def _both_kinds(
        self, classifier: Classifier, generator: StyleGenerator, influence: Influence, rng: torch.Generator
    ) -> tuple[Float[Tensor, "M S"], Bool[Tensor, " M"], Int[Tensor, " M"]]:
        """Return the styles that are compared, which are of well classified samples, and their classes."""
        kept, right, of = influence.kept, influence.kept_right, influence.kept_y
        missing = self.mistakes - int((~right).sum())
        # Of one kind alone there are no two to compare.
        if missing <= 0 or bool(right.all()) or not bool(right.any()):
            return kept, right, of
        # From a copy of the stream: how many are drawn changes nothing else.
        s, y = find_mistakes(classifier, generator, missing, most=_HUNT * self.samples, rng=rng.clone_state())
        return torch.cat([kept, s]), torch.cat([right, torch.zeros_like(y, dtype=torch.bool)]), torch.cat([of, y])

    def _pictures(
        self, classifier: Classifier, generator: StyleGenerator, influence: Influence, shown: Int[Tensor, " T"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return of each dimension the class to start from, the shift, whether it crosses, and the pictures.

        All are moved the way that lowers the score over all classes, which is what else is said of the dimension: where
        real images fail along it, too.
        """
        effect = influence.effect()
        weights = (influence.mean * influence.spread)[:, shown].nan_to_num() * effect[shown].sign()
        # Of a class whose mean digit the classifier does not take for one there is nothing to lose.
        known = torch.tensor(
            [centre_probability(classifier, generator, influence, k) > HALF for k in range(len(weights))]
        )
        start = torch.where(known[:, None], weights, -torch.inf).argmax(dim=0)
        shift, reached, moved = [], [], []
        for d, label in zip(shown.tolist(), start.tolist(), strict=True):
            centre = influence.centre[label]
            way = -effect[d, None].sign()
            found = cross_half(classifier, generator, centre, None, label, torch.tensor([d]), influence, ways=way)
            crosses = bool(found.found) and bool(known[label])
            shift.append(float(found.shift if crosses else way * _DEVIATIONS * influence.spread[d]))
            reached.append(int(crosses))
            strip = centre.repeat(len(_FRACTIONS), 1)
            strip[:, d] += shift[-1] * torch.tensor(_FRACTIONS)
            moved.append(images_of(generator, strip))
        return start, torch.tensor(shift), torch.tensor(reached), torch.cat(moved)


def _places(
    influence: Influence, shown: Int[Tensor, " T"], start: Int[Tensor, " T"], shift: Float[Tensor, " T"]
) -> Int[Tensor, "T F"]:
    """Return where the style of each picture lies beside the values observed for it."""
    values = influence.centre[start, shown][:, None] + shift[:, None] * torch.tensor(_FRACTIONS)
    away = (values - influence.middle[shown, None]).abs() / influence.half_range[shown, None]
    return torch.tensor([[place_of(each) for each in row] for row in away.tolist()])


def _within_class(influence: Influence, kept: Float[Tensor, "M S"], of: Int[Tensor, " M"]) -> Float[Tensor, "M S"]:
    """Return styles less the mean of each one's class, in deviations of that class."""
    away: Tensor = kept - influence.centre[of]
    for label in of.unique().tolist():
        rows = of == label
        away[rows] /= away[rows].square().mean(dim=0).sqrt().clamp_min(1e-6)
    return away


def _weights(right: Bool[Tensor, " M"], y: Int[Tensor, " M"]) -> dict[int, float]:
    r"""Return what each class counts for when its two kinds are compared, $m_k n_k (m_k + n_k - 1) / (m_k + n_k)^2$.

    With $m_k$ well- and $n_k$ misclassified samples: where either is rare, nearly their number. It is the inverse of
    the variance of what two parts of a class differ by, up to a factor that is the same in all of them. A class that
    has only one kind says nothing.
    """
    weights = {}
    for label in y.unique().tolist():
        n, well = int((y == label).sum()), int(right[y == label].sum())
        if 0 < well < n:
            weights[label] = well * (n - well) * (n - 1) / n**2
    return weights


def _in_like_mix(right: Bool[Tensor, " M"], y: Int[Tensor, " M"]) -> tuple[Int[Tensor, " A"], Int[Tensor, " B"]]:
    """Return samples of both kinds, each with every class in the share that it counts for; some more than once."""
    weights = _weights(right, y)
    total, chosen = sum(weights.values()), []
    for kind in (right, ~right):
        parts = [torch.empty(0, dtype=torch.int64)]
        for label, weight in weights.items():
            rows = (kind & (y == label)).nonzero()[:, 0]
            parts.append(rows[torch.arange(round(weight / total * int(kind.sum()))) % len(rows)])
        chosen.append(torch.cat(parts))
    return chosen[0], chosen[1]


def _first_half(right: Bool[Tensor, " M"]) -> Bool[Tensor, " M"]:
    """Mark every second of the well classified samples and every second of the others."""
    half = torch.zeros_like(right)
    for kind in (True, False):
        rows = (right == kind).nonzero()[:, 0]
        half[rows[::2]] = True
    return half


def _compared(
    away: Float[Tensor, "M S"], right: Bool[Tensor, " M"], y: Int[Tensor, " M"]
) -> tuple[Float[Tensor, " S"], Float[Tensor, " S"]]:
    r"""Return the Kolmogorov–Smirnov statistic of each dimension and its p-value, times the number of dimensions.

    $$D = \sup_t \Big| \sum_k \frac{h_k}{h} \big(F_k(t) - G_k(t)\big) \Big|, \qquad p = e \cdot \exp(-2 h D^2)$$

    with $F_k$ and $G_k$ the distributions of the well- and the misclassified of class k, $h_k$ the class's weight and
    $h$ the sum of all. So both sides have the same mix of classes, and mistakes that are of some classes more than of
    others tell nothing apart. Where the two are distributed alike within every class the process is at most that of two
    samples of one distribution with the same $h$ (the difference of the covariances is that of the $F_k$ between the
    classes, and Anderson's inequality holds), so that its bound holds here, for a handful, too. NaN where no class has
    both kinds.

    References:
        Wei and Dudley, "Two-sample Dvoretzky–Kiefer–Wolfowitz inequalities", Statistics & Probability Letters 2012.
    """
    weights, dim = _weights(right, y), away.shape[1]
    if not weights:
        return torch.full((dim,), torch.nan), torch.full((dim,), torch.nan)
    total = sum(weights.values())
    share = torch.zeros(len(y), dtype=torch.float64)
    for label, weight in weights.items():
        for kind, sign in ((right, 1), (~right, -1)):
            rows = kind & (y == label)
            share[rows] = sign * weight / (total * int(rows.sum()))
    statistics = []
    for part in away.split(_CHUNK, dim=1):
        values, order = part.sort(dim=0)
        # Of equal values only the last has all of them at or below it.
        last = torch.ones_like(values, dtype=torch.bool)
        last[:-1] = values[1:] != values[:-1]
        statistics.append((share[order].cumsum(dim=0).abs() * last).amax(dim=0))
    statistic = torch.cat(statistics)
    p = math.e * (-2 * total * statistic.square()).exp() * dim
    return statistic.float(), p.clamp_max(1).float()
