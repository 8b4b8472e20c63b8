"""One influence of styles for all steps of a study that rank styles by it."""

import inspect
from typing import Any

from failscape.explain import METHODS, StyleInfluence
from failscape.study.config import StepConfig, StudyConfig
from failscape.study.inputs import StepInputs


def share_influence(config: StudyConfig) -> StudyConfig:
    """Return the study with the steps that rank styles set to do so by the samples and score of its style influence.

    So the same directions lead in all of them, and those that are held against real images are those that the others go
    along. A step takes over the number of samples and the score of the first style influence of the same classifier and
    generator, wherever that stands, unless it is given another of either. They stand
    among its settings then, as if a person had written them: what a step finds depends on them alone, and not on
    whether the influence was measured before it, so that a run that was killed and goes on finds the same.

    `gradients` and `difference_samples` are not taken over: the other steps have no such settings, and take the
    classifier's gradients where it has some, else differences of the default number of samples. A style influence that
    is asked for something else of these is measured apart, and what leads in it need not lead in the others.
    """
    leading: dict[tuple[str, str], dict[str, Any]] = {}
    for step in config.steps:
        if METHODS.get(step.method) is StyleInfluence:
            leading.setdefault(_models(step, config), _ranking(step))
    steps = tuple(_following(step, leading.get(_models(step, config))) for step in config.steps)
    return config.model_copy(update={"steps": steps})


def _models(step: StepConfig, config: StudyConfig) -> tuple[str, str]:
    inputs = StepInputs.of(step, config)
    return inputs.classifier, inputs.generator


def _ranking(step: StepConfig) -> dict[str, Any]:
    """Return over how many samples a style influence ranks, and by which score."""
    declared = inspect.signature(StyleInfluence).parameters
    return {key: step.settings.get(key, declared[key].default) for key in ("samples", "score")}


def _following(step: StepConfig, leading: dict[str, Any] | None) -> StepConfig:
    # A method that does not exist is refused when it is prepared.
    method = METHODS.get(step.method)
    if leading is None or method is None or method is StyleInfluence or not method.ranks_over:
        return step
    ranking = {method.ranks_over: leading["samples"], "score": leading["score"]}
    if any(step.settings.get(key, value) != value for key, value in ranking.items()):
        return step
    return step.model_copy(update={"settings": step.settings | ranking})
