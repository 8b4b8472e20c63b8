"""Style influence: which style dimensions lower the true class's score, overall and by class."""

from typing import ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.explain.direction_names import name_directions
from failscape.explain.method import Method
from failscape.explain.shared_influence import shared_influence
from failscape.explain.style_crossing import HALF, centre_probability, cross_half
from failscape.explain.style_gradients import Influence, ScoreName, known_score
from failscape.explain.style_influence_result import HISTOGRAMS, StyleInfluenceResult
from failscape.explain.style_population import images_of, layer_name, require_class_styles, sample_styles
from failscape.generators import Generator, StyleGenerator

# Fractions of the shift that a strip shows.
_FRACTIONS = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0)
# Where a dimension never brings the probability to one half, its strip shows so many deviations.
_DEVIATIONS = 12.0
_RANDOM = 100
_NAMED = 96
_HANDFUL = 30


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
    ranks_over: ClassVar[str] = "samples"

    def __init__(
        self,
        *,
        samples: int = 20_000,
        score: ScoreName = "logit-margin",
        gradients: Literal["auto", "exact", "finite-differences"] = "auto",
        difference_samples: int | None = None,
        top: int = 10,
    ) -> None:
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
        everything = torch.ones_like(influence.kept_right)
        ks, ks_p = _compared(influence, everything)
        first = _first_half(influence.kept_right)
        telling = _compared(influence, first)[0].nan_to_num().argsort(descending=True, stable=True)[:HISTOGRAMS]
        others = ranking[max(self.top, HISTOGRAMS) :]
        others = others[~torch.isin(others, telling)]
        random = others[torch.randperm(len(others), generator=rng)[:_RANDOM]]
        looked_at = torch.cat([telling, ranking[:HISTOGRAMS], random[:HISTOGRAMS]])
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
            predicted=influence.predicted,
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
