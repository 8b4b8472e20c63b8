"""Asking a run's generators for images of a class and a score."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.errors import UnsupportedGenerator
from failscape.explain.uncertain_samples import RequestDrawer
from failscape.generators import Condition, ConditionSpace, Generator
from failscape.generators.condition import VECTOR
from failscape.report.run import Run
from failscape.web.networks import Networks
from failscape.web.pictures import eight_bit, pictures


@final
@dataclass(frozen=True, kw_only=True)
class Asked:
    """Networks of a run that can be asked.

    Attributes:
        number: of the first step that used them, from 1.
        title: which they are.
        classifier: is explained.
        generator: draws.
        oracle: judges, if the step had one.
    """

    number: int
    title: str
    classifier: Classifier
    generator: Generator
    oracle: Classifier | None

    def told(self, x: Float[Tensor, "N C H W"]) -> dict[str, Any]:
        """Return images with what the classifier and the oracle say of each."""
        judges = [judge for judge in (self.classifier, self.oracle) if judge is not None]
        return {
            "classes": self.classifier.class_names,
            "judges": ["classifier", "oracle"][: len(judges)],
            "images": pictures(x, [judge.probs(x) for judge in judges]),
        }


def askable(run: Run, networks: Networks, wanted: Callable[[Asked], bool]) -> list[Asked]:
    """Return the networks of a run's steps, each set once, of which `wanted` is true.

    Raises:
        FailscapeError: if one cannot be loaded.
    """
    found: dict[tuple[str, ...], Asked] = {}
    for number, step in enumerate(run.steps, start=1):
        classifier, generator, oracle = (step.record.get(key) for key in ("classifier", "generator", "oracle"))
        key = (str(classifier), str(generator), str(oracle))
        if not classifier or not generator or key in found:
            continue
        found[key] = Asked(
            number=number,
            title=f"{_short(generator)}, asked about {_short(classifier)}",
            classifier=networks.classifier(key[0]),
            generator=networks.generator(key[1]),
            oracle=networks.classifier(key[2]) if oracle else None,
        )
    return [each for each in found.values() if wanted(each)]


def takes_scores(asked: Asked) -> bool:
    """Return whether a generator can be asked for a class and a score."""
    space = asked.generator.condition_space
    return space is not None and space.score != VECTOR and space.num_classes == asked.classifier.num_classes


def score_space(asked: Asked) -> ConditionSpace:
    """Return what a generator can be asked for.

    Raises:
        UnsupportedGenerator: if it takes no class and score.
    """
    space = asked.generator.condition_space
    if space is None or not takes_scores(asked):
        raise UnsupportedGenerator(
            "Expected a generator that can be asked for a class and a score, but this one cannot. Choose another, or "
            "train one with `failscape train gan`."
        )
    return space


def draw_score(asked: Asked, *, label: int, score: float, count: int, seed: int, search: bool) -> Tensor:
    """Draw images of a class and a score.

    Args:
        asked: the networks.
        label: the class.
        score: as the generator's condition names it, in [0, 1].
        count: how many.
        seed: other images for another one.
        search: walk from each to where the classifier gives it that score.

    Raises:
        GeneratorError: if the training images do not support the request, naming the range that they do.
        UnsupportedGenerator: if the generator takes no such request.
        UnsupportedClassifier: if a search needs gradients that the classifier has not.
    """
    space = score_space(asked)
    name = asked.classifier.class_names[label] if label < asked.classifier.num_classes else None
    space.require_supported(label, score, name)
    if search:
        asked.classifier.require_gradients("the search", "Leave the search out: the generator alone then answers.")
    rng = torch.Generator().manual_seed(seed)
    drawer = RequestDrawer(asked.classifier, asked.generator, space, 10 if search else 0)
    wished = Condition.of(label, score, n=count)
    requests = drawer.requests(wished.y, wished.score.float(), torch.empty(0, space.num_classes), rng)
    return eight_bit(drawer.refined(drawer.draw(requests, rng)))


def _short(spec: object) -> str:
    return str(spec).removeprefix("embedded:").rstrip("/").rpartition("/")[2]
