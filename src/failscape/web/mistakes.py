"""The mistakes of a run with their sympathetic examples: which there are, which are wanted, and what lies between."""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.explain import SympatheticResult, to_8_bits
from failscape.generators import Generator
from failscape.report.run import Run, Step
from failscape.web.examples import Examples, Made
from failscape.web.judged import Data, Judged, Judgements, step_data
from failscape.web.networks import Networks
from failscape.web.runs import OpenRun

Order = Literal["given", "confidence", "norm", "true", "predicted"]
# Whether a change puts a mistake right: yes, no, or none was looked for.
Success = Literal["true", "false", "untried"]
_SUCCESS: Mapping[bool | None, Success] = {True: "true", False: "false", None: "untried"}


@final
@dataclass(frozen=True, kw_only=True)
class Mistake:
    """An image that the classifier gets wrong.

    Attributes:
        key: names it in addresses, and says nothing of its id.
        id: its name in its set.
        row: in its set; None where the set cannot be read.
        true: the class that it is labelled.
        predicted: the class that the classifier gives it.
        confidence: the classifier's probability of that.
        example: its row in the result of the step; None where the step explained others.
        norm: length of the change that puts it right, or that was tried last; None where none was looked for.
        success: whether the change puts it right; None where none was looked for.
    """

    key: str
    id: str
    row: int | None
    true: int
    predicted: int
    confidence: float
    example: int | None
    norm: float | None
    success: bool | None


@final
@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which mistakes one wants to see, and in which order; None for any.

    Attributes:
        true: the class that they are labelled.
        predicted: the class that they are taken for.
        least: lowest confidence, in percent.
        most: highest confidence, in percent.
        longest: longest change; those without one do not fit.
        success: whether a change puts them right, or none was looked for.
        order: what they are sorted by; by "norm", those without a change come last, either way.
        falling: the largest first.
    """

    true: int | None = None
    predicted: int | None = None
    least: float | None = None
    most: float | None = None
    longest: float | None = None
    success: Success | None = None
    order: Order = "given"
    falling: bool = False

    def choose(self, mistakes: Sequence[Mistake]) -> list[Mistake]:
        """Return the mistakes that are wanted, in order; equal ones as they came."""
        chosen = [mistake for mistake in mistakes if self._fits(mistake)]
        if self.order == "given":
            return chosen[::-1] if self.falling else chosen
        order = self.order
        there = [mistake for mistake in chosen if getattr(mistake, order) is not None]
        there.sort(key=lambda mistake: getattr(mistake, order), reverse=self.falling)
        return there + [mistake for mistake in chosen if getattr(mistake, order) is None]

    def _fits(self, mistake: Mistake) -> bool:
        return (
            self.true in (None, mistake.true)
            and self.predicted in (None, mistake.predicted)
            and (self.least is None or 100 * mistake.confidence >= self.least)
            and (self.most is None or 100 * mistake.confidence <= self.most)
            and (self.longest is None or (mistake.norm is not None and mistake.norm <= self.longest))
            and self.success in (None, _SUCCESS[mistake.success])
        )


@final
@dataclass(frozen=True, kw_only=True)
class MistakeStep:
    """A step whose classifier makes mistakes that can be looked at.

    Attributes:
        number: of the step, from 1.
        step: the step.
        data: all images that it chose from; None where the run does not say.
        result: its sympathetic examples of mistakes, if it has some.
    """

    number: int
    step: Step
    data: Data | None
    result: SympatheticResult | None


@final
@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """What is known of a step's mistakes by now.

    Attributes:
        every: the mistakes, in the order of their set.
        judged: what is known of the whole set; None where the run does not say which it was.
        class_names: K names; none as long as the set is not loaded.
    """

    every: tuple[Mistake, ...]
    judged: Judged | None
    class_names: tuple[str, ...]

    @cached_property
    def by_key(self) -> Mapping[str, Mistake]:
        """The mistakes by what names them in addresses."""
        return {mistake.key: mistake for mistake in self.every}

    @property
    def whole(self) -> bool:
        """Whether these are all the mistakes on all images of the run."""
        return self.judged is not None and self.judged.ended and not self.judged.problem


def mistake_steps(run: Run) -> dict[int, MistakeStep]:
    """Return the steps whose mistakes can be looked at, by their numbers, the first that a page shows first.

    These are all that made sympathetic examples of mistakes, then one for each other set of images and classifier.
    """
    found: dict[int, MistakeStep] = {}
    others: dict[int, MistakeStep] = {}
    for number, step in enumerate(run.steps, start=1):
        data, labelled = step_data(run, step)
        result = step.result if isinstance(step.result, SympatheticResult) and labelled else None
        if result is not None and not _mistaken(result):
            result = None
        each = MistakeStep(number=number, step=step, data=data, result=result)
        if result is not None:
            found[number] = each
        elif data is not None:
            others[number] = each
    for number, each in others.items():
        if all(each.data != known.data for known in found.values()):
            found[number] = each
    return found


def find_mistakes(step: MistakeStep, judged: Judged | None, made: Mapping[str, Made]) -> Mistakes:
    """Return the mistakes of a step: of the whole set as far as it can be read, else those of the step's result.

    Args:
        step: whose.
        judged: what is known of its data.
        made: examples that were made since, by the keys of their images.
    """
    images = None if judged is None else judged.images
    if judged is None or images is None:
        result = step.result
        explained = () if result is None else _explained(result)
        return Mistakes(every=explained, judged=judged, class_names=() if result is None else result.class_names)
    explained_by = {} if step.result is None else {(each.id, each.true): each for each in _explained(step.result)}
    every: dict[str, Mistake] = {}
    for each in judged.mistakes:
        name = images.ids[each.row]
        key = key_of(name)
        if key in every:
            # Nothing keeps two images of a set from having the same id.
            key = key_of(f"{name}\n{each.row}")
        known = explained_by.pop((name, each.y), None)
        example, norm, success = (None, None, None) if known is None else (known.example, known.norm, known.success)
        if known is None and key in made:
            norm, success = float(made[key].result.norm), bool(made[key].result.success)
        every[key] = Mistake(
            key=key,
            id=name,
            row=each.row,
            true=each.y,
            predicted=each.predicted,
            confidence=each.confidence,
            example=example,
            norm=norm,
            success=success,
        )
    # Those that the step explained are known before the whole set is.
    left = () if judged.ended and not judged.problem else tuple(explained_by.values())
    return Mistakes(every=(*every.values(), *left), judged=judged, class_names=images.class_names)


@final
class MistakeBook:
    """The mistakes of all runs: found when they are first wanted, and kept as long as nothing changes.

    Args:
        networks: of the runs.

    Attributes:
        examples: those that were made since.
    """

    def __init__(self, networks: Networks) -> None:
        self.examples = Examples(networks)
        self._judgements = Judgements(networks)
        self._lock = threading.Lock()
        self._steps: dict[str, tuple[Run, dict[int, MistakeStep]]] = {}
        self._found: dict[str, tuple[MistakeStep, object, Mistakes]] = {}

    def steps(self, run: OpenRun) -> dict[int, MistakeStep]:
        """Return the steps of a run whose mistakes can be looked at; see `mistake_steps`."""
        content = run.read()
        with self._lock:
            known = self._steps.get(run.id)
            if known is None or known[0] is not content:
                known = self._steps[run.id] = content, mistake_steps(content)
        return known[1]

    def of(self, run: OpenRun, step: MistakeStep, *, patience: float = 0.0, again: bool = False) -> Mistakes:
        """Return what is known of a step's mistakes by now.

        Args:
            run: the run.
            step: one of its `steps`.
            patience: seconds to wait until all of them are known.
            again: look anew if the images could not be read before.
        """
        judged = None
        if step.data is not None:
            judged = self._judgements.of(run.folder, step.data, patience=patience, again=again)
        place = place_of(run, step)
        made = self.examples.made(place)
        stamp = tuple(made), judged and (judged.version, judged.images is None, judged.classified, judged.ended)
        with self._lock:
            known = self._found.get(place)
            if known is None or known[0] is not step or known[1] != stamp:
                known = self._found[place] = step, stamp, find_mistakes(step, judged, made)
        return known[2]

    def close(self) -> None:
        """End what goes on in the background."""
        self._judgements.close()


def place_of(run: OpenRun, step: MistakeStep) -> str:
    """Return what names a step of a run, as it was run last."""
    return f"{run.id}/{step.number}/{step.step.record.get('fingerprint', '')}"


def key_of(name: str) -> str:
    """Return what stands for the id of an image in addresses."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:16]


def _explained(result: SympatheticResult) -> tuple[Mistake, ...]:
    """Return the images of a result that the classifier gets wrong."""
    confidence, predicted = result.probs_before.max(dim=1)
    columns = (result.target, predicted, confidence, result.norm, result.success)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return tuple(
        Mistake(
            key=key_of(name),
            id=name,
            row=None,
            true=true,
            predicted=taken,
            confidence=sure,
            example=row,
            norm=norm,
            success=success,
        )
        for row, (name, (true, taken, sure, norm, success)) in enumerate(zip(result.ids, rows, strict=True))
        if taken != true
    )


def _mistaken(result: SympatheticResult) -> bool:
    return bool((result.probs_before.argmax(dim=1) != result.target).any())


@torch.no_grad()
def on_the_way(
    result: SympatheticResult, row: int, part: float, classifier: Classifier, generator: Generator
) -> tuple[Float[Tensor, "C H W"], Float[Tensor, " K"]]:
    """Return x' = g(z + tε) + x - g(z) as saved in 8 bits, and its class probabilities.

    Args:
        result: sympathetic examples.
        row: which of them.
        part: t, 0 for the image itself and 1 for its example.
        classifier: whose mistake it is.
        generator: that the example was found with.
    """
    z, epsilon, x = (tensor[row, None] for tensor in (result.z, result.epsilon, result.originals))
    images = to_8_bits(x + generator(z + part * epsilon) - generator(z))
    return images[0], classifier.probs(images)[0]


def way_of_search(result: SympatheticResult, row: int) -> Float[Tensor, "T 2"]:
    """Return where the search went: how far along the way to the example, and how far off it, in units of ‖ε‖.

    The search begins at (0, 0) and ends at (1, 0).
    """
    path, epsilon = result.path[row], result.epsilon[row]
    length = epsilon.norm().clamp_min(torch.finfo(epsilon.dtype).tiny)
    along = path @ epsilon / length**2
    off = (path - along[:, None] * epsilon).norm(dim=1) / length
    return torch.stack([along, off], dim=1)
