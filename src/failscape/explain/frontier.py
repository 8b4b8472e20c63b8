"""Frontiers: what lies at 50/50, or at any target distribution, between classes?"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.errors import UnsupportedGenerator
from failscape.explain.frontier_request import (
    PAIRS,
    Target,
    frontier_targets,
    require_frontiers,
    require_shown,
    takes_targets,
)
from failscape.explain.frontier_result import FrontierResult
from failscape.explain.frontier_search import SHIFTS, FrontierSearch
from failscape.explain.latent_space import LatentSpace, encoded_log_prior, realism_of
from failscape.explain.method import Method, to_8_bits
from failscape.explain.second_opinion import SecondOpinion, reduced
from failscape.generators import Condition, Generator
from failscape.training import steer

_BATCH = 512


@final
class Frontier(Method[FrontierResult]):
    r"""What lies at 50/50, or at any target distribution, between classes?

    Images of which the classifier says what the target says: two classes equally, three, all, or any shares. Two ways
    are known:

    - *search*: small networks (`SecondOpinion`) learn from samples what the classifier says; they do not share its
      quirks. Stand-ins for the generator and both (`failscape.search.StandIn`) learn it of latents, lead points to
      where both have the target at next to no cost, and learn from what is really there. From the nearest then, more
      than are needed, walk by Gauss-Newton steps on the log-odds (`failscape.search.reach_target`) to where the 8-bit
      image has the target and the small networks agree. Those are kept of which shifts by a pixel change least, and of
      which these networks are nearest to the target. What is missing walks on without them, and then begins again,
      ever nearer to one that arrived.
    - *training*, as the paper does it: for each target a copy of the generator goes on training with $k \cdot KL(t \|
      p)$ added to its loss (eq. 2), and draws.

    An image is on the frontier if the total variation distance of the classifier's probabilities from the target is
    within the tolerance. The more *typical* of them, by the prior's density and by the generator's critic where it
    keeps one, come first; what only the classifier believes, and an oracle does not, is marked.

    Args:
        targets: "pairs" for every two classes of the classifier, equally; "triples" for every three; "uniform"; classes
            with commas between them, for equal shares; or shares such as `3=0.7,8=0.3`, or as `{"3": 0.7, "8": 0.3}`.
            One of these, or several in a tuple or list.
        by: "search" or "training".
        per_target: images of each.
        tolerance: the largest total variation distance from the target.
        samples: of the generator, from which the networks learn, the search sets out, and the way is measured.
        steps: of a walk, at most; toward a second opinion a third of them, and the most promising as many again.
        restarts: of each image, at most.
        guard: shifted copies of the image, at most 4, whose mean verdict is to come near the target as well.
        opinions: networks that learn from samples what the classifier says, and are to agree where they can; 0 is none.
        training_steps: of each training.
        weight: $k$ of the training; by default 10, and 100 for a VAE or an IntroVAE, whose loss sums over pixels.
        shown: images of each target in the report.

    Raises:
        ValueError: if a setting is out of its range.
        SpecError: if a target names an unknown class, or its shares are no probabilities that sum to 1.
        UnsupportedClassifier: if the classifier has no gradients.
        UnsupportedGenerator: if the generator takes a class and a score and has no styles, or cannot be trained
            further.
        GeneratorError: if a target asks for a class that the generator was never shown.

    Example:
        >>> method = Frontier(targets=("3=0.7,8=0.3",), per_target=8)
        >>> method(classifier, vae, x, y, rng=torch.Generator().manual_seed(0)).summary["rate"]
        1.0

    References:
        "Synthetic Data Generation To Better Perceive Classifier Predictions", section 4.2, eq. 2, figures 6 to 8.
    """

    result_type: ClassVar[type[FrontierResult]] = FrontierResult

    def __init__(
        self,
        *,
        targets: Target | Sequence[Target] = (PAIRS,),
        by: Literal["search", "training"] = "search",
        per_target: int = 64,
        tolerance: float = 0.05,
        samples: int = 12_000,
        steps: int = 30,
        restarts: int = 10,
        guard: int = 0,
        opinions: int = 2,
        training_steps: int = 200,
        weight: float | None = None,
        shown: int = 16,
    ) -> None:
        if by not in ("search", "training"):
            raise ValueError(f"Expected `by` to be 'search' or 'training', but got {by!r}.")
        if not targets:
            raise ValueError('Expected `targets` to name at least one target, such as "pairs", but got none.')
        # What is neither is refused below, as a target.
        several = (targets,) if isinstance(targets, str | Mapping) else targets
        several = tuple(several) if isinstance(several, Sequence) else (several,)
        for target in several:
            if not isinstance(target, str | Mapping):
                raise ValueError(
                    'Expected each of `targets` as a text, such as "3,8", or as the shares of classes, such as '
                    f'{{"3": 0.7, "8": 0.3}}, but got {target!r}. Name classes as the classifier does.'
                )
        if min(per_target, samples, steps, training_steps, shown) < 1 or min(restarts, opinions) < 0:
            raise ValueError(
                "Expected `per_target`, `samples`, `steps`, `training_steps` and `shown` of at least 1, and `restarts` "
                f"and `opinions` of at least 0, but got {per_target}, {samples}, {steps}, {training_steps}, {shown}, "
                f"{restarts}, {opinions}."
            )
        if not 0 < tolerance < 1:
            raise ValueError(f"Expected `tolerance` between 0 and 1, but got {tolerance}.")
        if weight is not None and not 0 < weight < math.inf:
            raise ValueError(f"Expected a positive, finite `weight`, but got {weight}.")
        if not 0 <= guard <= len(SHIFTS):
            raise ValueError(f"Expected `guard` from 0 to {len(SHIFTS)} shifted copies, but got {guard}.")
        self.targets = several
        self.by = by
        self.per_target = per_target
        self.tolerance = tolerance
        self.samples = samples
        self.steps = steps
        self.restarts = restarts
        self.guard = guard
        self.opinions = opinions
        self.training_steps = training_steps
        self.weight = weight
        self.shown = shown

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Refuse `targets` of classes that the classifier does not know."""
        frontier_targets(self.targets, class_names)

    def run(
        self,
        classifier: Classifier,
        generator: Generator,
        x: Float[Tensor, "N C H W"],
        y: Int[Tensor, " N"],
        *,
        ids: tuple[str, ...],
        rng: torch.Generator,
    ) -> FrontierResult:
        """Find images of each target; `x` are real images, which a training goes on learning from."""
        require_frontiers(classifier, generator)
        names, targets = frontier_targets(self.targets, classifier.class_names)
        if self.by == "training" and takes_targets(generator):
            raise UnsupportedGenerator(
                f"Expected a generator that keeps what it is trained by, but this {generator.family} takes whole "
                'distributions as they are. Set `by` to "search".'
            )
        require_shown(classifier, generator, targets)
        asked = torch.arange(len(targets)).repeat_interleave(self.per_target)
        if self.by == "search":
            # What is asked for whole distributions is asked for each target, and searched by itself.
            groups = targets.split(1) if takes_targets(generator) else [targets]
            spaces = [self._space(generator, group, rng) for group in groups]
            opinion = self._opinion(classifier, spaces, rng)
            searched = [
                self._search(classifier, space, opinion, rng)(group, n=self.per_target, samples=self.samples)
                for space, group in zip(spaces, groups, strict=True)
            ]
            images, log_prior, way, steps, prediction = (
                torch.cat([getattr(found, name) for found in searched])
                for name in ("images", "log_prior", "way", "steps", "prediction")
            )
        else:
            space = LatentSpace(generator, rng=rng)
            prediction = classifier.predict(space.drawn(space.sample(self.samples, rng=rng)))
            parts = [self._trained(classifier, generator, target, x, rng) for target in targets]
            images, steps = to_8_bits(torch.cat(parts)), torch.zeros_like(asked)
            log_prior, way = encoded_log_prior(generator, images), torch.full((len(asked),), torch.nan)
        return FrontierResult(
            images=images,
            ids=tuple(f"{names[row]} {i % self.per_target}" for i, row in enumerate(asked.tolist())),
            asked=asked,
            targets=targets,
            target_names=names,
            log_prior=log_prior,
            realism=realism_of(generator, images),
            way=way,
            steps=steps,
            drawn=prediction.bincount(minlength=classifier.num_classes),
            samples=len(prediction),
            tolerance=self.tolerance,
            shown=self.shown,
            class_names=classifier.class_names,
        )

    def _space(self, generator: Generator, targets: Float[Tensor, "T K"], rng: torch.Generator) -> LatentSpace:
        condition = Condition.of_distributions(targets) if takes_targets(generator) else None
        return LatentSpace(generator, rng=rng, condition=condition)

    def _search(
        self, classifier: Classifier, space: LatentSpace, opinion: SecondOpinion | None, rng: torch.Generator
    ) -> FrontierSearch:
        return FrontierSearch(
            classifier,
            space,
            opinion,
            tolerance=self.tolerance,
            steps=self.steps,
            restarts=self.restarts,
            guard=self.guard,
            rng=rng,
        )

    def _opinion(
        self, classifier: Classifier, spaces: Sequence[LatentSpace], rng: torch.Generator
    ) -> SecondOpinion | None:
        """Return that of networks which learn what the classifier says of samples, if any are asked for."""
        if not self.opinions:
            return None
        each = math.ceil(self.samples / len(spaces))
        examples, log_probs = [], []
        with torch.no_grad():
            for space in spaces:
                for points in space.sample(each, rng=rng).split(_BATCH):
                    x = space.drawn(points)
                    examples.append(reduced(x))
                    log_probs.append(classifier(x).cpu().log_softmax(dim=1))
        return SecondOpinion(torch.cat(examples), torch.cat(log_probs), networks=self.opinions, rng=rng)

    def _trained(
        self,
        classifier: Classifier,
        generator: Generator,
        target: Float[Tensor, " K"],
        x: Float[Tensor, "N C H W"],
        rng: torch.Generator,
    ) -> Float[Tensor, "M C H W"]:
        try:
            steered = steer(generator, classifier, target, x, steps=self.training_steps, weight=self.weight, rng=rng)
        except UnsupportedGenerator as error:
            raise UnsupportedGenerator(f'{error} Set `by` to "search".') from error
        counts = [min(_BATCH, self.per_target - start) for start in range(0, self.per_target, _BATCH)]
        return torch.cat([steered.sample(count, rng=rng) for count in counts])
