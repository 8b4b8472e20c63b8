"""The influence of styles, measured once for all steps of a study that rank styles by it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.explain.style_gradients import Influence, ScoreName, measure_influence
from failscape.generators import StyleGenerator

# What was measured, the state of the random stream after it, and the models, so that their addresses stay theirs.
_Known = dict[tuple[Any, ...], tuple[Influence, Tensor, Classifier, StyleGenerator]]
_KNOWN: ContextVar[_Known | None] = ContextVar("known", default=None)


@contextmanager
def sharing_influence() -> Iterator[None]:
    """While in here, remember what was measured of models that do not change, and do not measure it twice."""
    token = _KNOWN.set({})
    try:
        yield
    finally:
        _KNOWN.reset(token)


def shared_influence(
    classifier: Classifier,
    generator: StyleGenerator,
    n: int,
    *,
    rng: torch.Generator,
    score: ScoreName,
    gradients: bool,
    differences: int | None = None,
    setting: str = "samples",
) -> Influence:
    """Return what `measure_influence` does, and leave `rng` as it does, whether measured now or remembered.

    It is remembered where the same was asked of the same models at the same place of the random stream.
    """

    def measure() -> Influence:
        return measure_influence(
            classifier,
            generator,
            n,
            rng=rng,
            score=score,
            gradients=gradients,
            differences=differences,
            setting=setting,
        )

    known = _KNOWN.get()
    if known is None:
        return measure()
    place = rng.get_state().numpy().tobytes()
    key = (id(classifier), id(generator), n, score, gradients, differences, place)
    if key not in known:
        known[key] = (measure(), rng.get_state(), classifier, generator)
    influence, after, *_ = known[key]
    rng.set_state(after)
    return influence
