"""Asking a run's generators for images of a class and a score."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.errors import FailscapeError, NotInStore, UnsupportedGenerator
from failscape.explain.uncertain_samples import RequestDrawer
from failscape.generators import Condition, ConditionSpace, Generator
from failscape.generators.condition import SUREST, VECTOR
from failscape.report.run import Run, Step
from failscape.study.config import ImagesConfig
from failscape.study.inputs import load_labelled
from failscape.web.label_sources import is_spec
from failscape.web.networks import Networks
from failscape.web.pictures import eight_bit, pictures

# Real images among which distributions are looked for: a moment's work of the classifier.
_REAL = 2000


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
        images: spec of the labelled images that the step explained, "" where that is not known.
    """

    number: int
    title: str
    classifier: Classifier
    generator: Generator
    oracle: Classifier | None
    images: str = ""

    def told(self, x: Float[Tensor, "N C H W"]) -> dict[str, Any]:
        """Return images with what the classifier and the oracle say of each."""
        judges = [judge for judge in (self.classifier, self.oracle) if judge is not None]
        return {
            "classes": self.classifier.class_names,
            "judges": ["classifier", "oracle"][: len(judges)],
            "images": pictures(x, [judge.probs(x) for judge in judges]),
        }


@final
@dataclass(frozen=True, kw_only=True)
class Unasked:
    """Networks of a run that cannot be asked.

    Attributes:
        title: which they are.
        reason: why not, in a sentence.
    """

    title: str
    reason: str


def askable(run: Run, networks: Networks, objection: Callable[[Asked], str]) -> tuple[list[Asked], list[Unasked]]:
    """Return the networks of a run's steps, each set once: those that can be asked, and those that cannot.

    Args:
        run: names them.
        networks: loads them; what cannot be loaded cannot be asked, and keeps no other from it.
        objection: why networks cannot be asked, "" where they can.
    """
    found: list[Asked] = []
    others: list[Unasked] = []
    for number, step in _first_steps(run).items():
        try:
            asked = _loaded(number, step, networks)
        except FailscapeError as error:
            others.append(Unasked(title=_title(step), reason=str(error)))
            continue
        reason = objection(asked)
        if reason:
            others.append(Unasked(title=asked.title, reason=reason))
        else:
            found.append(asked)
    return found, others


def asked_of(run: Run, networks: Networks, number: int) -> Asked:
    """Return the networks of a run that `askable` gives a number; no others are loaded.

    Raises:
        NotInStore: if there are none of that number.
        FailscapeError: if they cannot be loaded.
    """
    step = _first_steps(run).get(number)
    if step is None:
        raise NotInStore("Expected networks of this run, but there are none of that number. Choose them again.")
    return _loaded(number, step, networks)


def _first_steps(run: Run) -> dict[int, Step]:
    """Return the step that used each set of networks first, by its number."""
    sets: dict[tuple[str, ...], tuple[int, Step]] = {}
    for number, step in enumerate(run.steps, start=1):
        if step.record.get("classifier") and step.record.get("generator"):
            key = tuple(str(step.record.get(name)) for name in ("classifier", "generator", "oracle"))
            sets.setdefault(key, (number, step))
    return dict(sets.values())


def _loaded(number: int, step: Step, networks: Networks) -> Asked:
    record = step.record
    return Asked(
        number=number,
        title=_title(step),
        classifier=networks.classifier(str(record["classifier"])),
        generator=networks.generator(str(record["generator"])),
        oracle=networks.classifier(str(record["oracle"])) if record.get("oracle") else None,
        images=str(record["images"]) if is_spec(record.get("images")) else "",
    )


def no_scores(asked: Asked) -> str:
    """Return why a generator cannot be asked for a class and a score, "" where it can."""
    space = asked.generator.condition_space
    if space is None:
        return (
            f"This {asked.generator.family} was trained without a condition, so that it takes neither class nor "
            "confidence."
        )
    if space.num_classes != asked.classifier.num_classes:
        return (
            f"This {asked.generator.family} takes {space.num_classes} classes, where the classifier has "
            f"{asked.classifier.num_classes}."
        )
    return ""


def score_space(asked: Asked) -> ConditionSpace:
    """Return what a generator can be asked for.

    Raises:
        UnsupportedGenerator: if it takes no class and score.
    """
    reason = no_scores(asked)
    space = asked.generator.condition_space
    if reason or space is None:
        raise UnsupportedGenerator(
            f"Expected a generator that can be asked for a class and a score. {reason} Choose another, or train one "
            "with `failscape train gan`."
        )
    return space


def score_name(space: ConditionSpace) -> str:
    """Return which score a generator is asked for: a confidence, if it takes whole distributions."""
    return "confidence" if space.score == VECTOR else space.score


def draw_score(asked: Asked, *, label: int, score: float, count: int, seed: int, search: bool) -> Tensor:
    """Draw images of a class and a score.

    A generator of whole distributions is asked for those of real images that are taken for the class and whose
    confidences are nearest, each with the confidence moved to the one that is asked for.

    Args:
        asked: the networks.
        label: the class.
        score: as `score_name` calls it, in [0, 1].
        count: how many.
        seed: other images for another one.
        search: walk from each to where the classifier gives it that score.

    Raises:
        GeneratorError: if the training images do not support the request, naming the range that they do.
        UnsupportedGenerator: if the generator takes no such request, or there are no real images with distributions to
            ask for.
        UnsupportedClassifier: if a search needs gradients that the classifier has not.
    """
    space = score_space(asked)
    name = asked.classifier.class_names[label] if label < asked.classifier.num_classes else None
    space.require_supported(label, score, name)
    if search:
        asked.classifier.require_gradients("the search", "Leave the search out: the generator alone then answers.")
    rng = torch.Generator().manual_seed(seed)
    drawer = RequestDrawer(asked.classifier, asked.generator, space, 10 if search else 0)
    if space.score == VECTOR:
        requests = _distributions(asked, label, score, count)
    else:
        wished = Condition.of(label, score, n=count)
        requests = drawer.requests(wished.y, wished.score.float(), torch.empty(0, space.num_classes), rng)
    return eight_bit(drawer.refined(drawer.draw(requests, rng)))


def with_confidence(probs: Float[Tensor, "N K"], label: int, confidence: float) -> Float[Tensor, "N K"]:
    """Return distributions in which a class has a confidence, and the others share the rest as they did.

    Where the others have nothing to share it is shared evenly.
    """
    others = probs.clone()
    others[:, label] = 0
    total = others.sum(dim=1, keepdim=True)
    even = torch.ones_like(probs) / (probs.shape[1] - 1)
    even[:, label] = 0
    moved = (1 - confidence) * torch.where(total > 0, others / total.clamp_min(torch.finfo(probs.dtype).tiny), even)
    moved[:, label] = confidence
    return moved


def _distributions(asked: Asked, label: int, confidence: float, count: int) -> Condition:
    """Return requests for distributions such as real images have, those with the nearest confidences."""
    if not asked.images:
        raise UnsupportedGenerator(
            "Expected labelled images that this run explained, since a generator of whole distributions is asked for "
            "those of real images, but it names none. Ask for a distribution on the Frontiers page."
        )
    real = load_labelled(ImagesConfig(spec=asked.images), asked.classifier)
    rows = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[:_REAL]
    probs = asked.classifier.probs(real.read(rows))
    found, prediction = probs.max(dim=1)
    of_class = (prediction == label).nonzero()[:, 0]
    if not len(of_class):
        raise UnsupportedGenerator(
            f"Expected real images that are taken for {asked.classifier.class_names[label]!r}, to ask for their "
            f"distributions, but none of {len(rows):,} of {asked.images} is. Ask for another class, or for a "
            "distribution on the Frontiers page."
        )
    wanted = min(max(confidence, 1 - SUREST), SUREST)
    nearest = of_class[(found[of_class] - wanted).abs().argsort(stable=True)]
    chosen = with_confidence(probs[nearest[torch.arange(count) % len(nearest)]], label, wanted)
    return Condition(y=torch.full((count,), label), score=torch.full((count,), wanted), probs=chosen)


def _title(step: Step) -> str:
    generator, classifier = (_short(step.record[key]) for key in ("generator", "classifier"))
    return f"{generator}, asked about {classifier}"


def _short(spec: object) -> str:
    return str(spec).removeprefix("embedded:").rstrip("/").rpartition("/")[2]
