"""The runner: a study from its configuration to its run folder."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from failscape.errors import FailscapeError, StorageError
from failscape.explain.shared_influence import sharing_influence
from failscape.storage import write_json
from failscape.study.config import StepConfig, StudyConfig
from failscape.study.fingerprint import classifier_digest, generator_digest, step_fingerprint, step_seed
from failscape.study.influence import share_influence
from failscape.study.inputs import Choice, Models, Selection, StepInputs, load_models, select_for_steps
from failscape.study.methods import PreparedMethod, prepare_method
from failscape.study.run_folder import RunFolder, write_result

Progress = Callable[[str], None]


def run_study(
    config: StudyConfig,
    *,
    out: Path = Path("runs"),
    folder: Path | None = None,
    allow_code: bool = False,
    progress: Progress = lambda message: None,
) -> Path:
    """Run a study and return its run folder.

    The latest run of the same name is gone on with if it is the same study; steps whose inputs have not
    changed are not run again. A step that fails is recorded with its error, and the next one runs. Steps that rank
    styles do so by the samples and score of the study's style influence, unless they say otherwise; see
    `share_influence`.

    Args:
        config: the study.
        out: the parent of the numbered run folders.
        folder: write into this very folder instead.
        allow_code: whether `python:` specs may run their file.
        progress: is told in a line what is being done.

    Raises:
        FailscapeError: if the study cannot start, or its folder cannot be written.
    """
    config = share_influence(config)
    methods = [prepare_method(step, allow_code=allow_code) for step in config.steps]
    inputs = [StepInputs.of(step, config) for step in config.steps]
    progress("loading models")
    models = load_models(inputs, allow_code=allow_code)
    for method, given in zip(methods, inputs, strict=True):
        method.check_fit(models.classifiers[given.classifier])
    progress("classifying images")
    selections = select_for_steps(inputs, models)

    with RunFolder.open(config, out=out, folder=folder) as run, sharing_influence():
        run.log("start", study=config.name)
        for (images, classifier), selection in selections.items():
            sentence = selection.describe(images.only)
            run.log("selected", images=images.spec, classifier=classifier, sentence=sentence)
            progress(sentence)
        first = inputs[0].choice
        write_json(run.path / "selection.json", _selection_record(first, selections[first]))

        fingerprints = _fingerprints(config, methods, inputs, models, selections)
        numbered = enumerate(zip(config.steps, methods, inputs, fingerprints, strict=True), start=1)
        for index, (step, method, given, fingerprint) in numbered:
            place = f"step {index} of {len(config.steps)}, {step.name}"
            if run.is_done(index, step, fingerprint):
                run.log("step_kept", step=step.name)
                progress(f"{place}: done before, inputs unchanged")
                continue
            progress(place)
            record = _step_record(step, method, given, fingerprint)
            with run.new_step(index, step) as step_folder:
                started = time.perf_counter()
                rng = torch.Generator().manual_seed(_seed(config, index, method))
                record |= _run_step(method, given, models, selections[given.choice], rng, step_folder)
                record["seconds"] = round(time.perf_counter() - started, 3)
                write_json(step_folder / "step.json", record)
            outcome = {key: record[key] for key in ("status", "error", "seconds")}
            run.log("step_ended", step=step.name, **outcome)
            progress(f"{place}: {record['status']} in {record['seconds']:.1f} s")
        run.log("end")
    return run.path


def _run_step(
    method: PreparedMethod,
    inputs: StepInputs,
    models: Models,
    selection: Selection,
    rng: torch.Generator,
    folder: Path,
) -> dict[str, Any]:
    """Run one step into `folder` and return its status and error."""
    if len(selection.images) == 0:
        return {"status": "skipped", "error": f"Nothing to explain: {selection.describe(inputs.images.only)}"}
    try:
        result = method.method(
            models.classifiers[inputs.classifier],
            models.generators[inputs.generator],
            selection.images.x,
            selection.images.y,
            rng=rng,
            oracle=None if inputs.oracle is None else models.classifiers[inputs.oracle],
            ids=selection.images.ids,
        )
        write_result(result, folder)
    except StorageError:
        # The disk is at fault, not the step: there is no use in going on.
        raise
    except FailscapeError as error:
        return {"status": "failed", "error": str(error)}
    return {"status": "done", "error": None}


def _seed(config: StudyConfig, index: int, method: PreparedMethod) -> int:
    # Steps are counted from 1. Those that rank styles begin with the same draws.
    return step_seed(config.seed, 0 if method.method.ranks_over else index)


def _fingerprints(
    config: StudyConfig,
    methods: Sequence[PreparedMethod],
    inputs: Sequence[StepInputs],
    models: Models,
    selections: Mapping[Choice, Selection],
) -> list[str]:
    """Return the fingerprint of each step."""
    images = {choice: selection.images.fingerprint() for choice, selection in selections.items()}
    classifiers = {spec: classifier_digest(classifier, spec) for spec, classifier in models.classifiers.items()}
    generators = {spec: generator_digest(generator) for spec, generator in models.generators.items()}
    return [
        step_fingerprint(
            step,
            classifier=classifiers[given.classifier],
            oracle=None if given.oracle is None else classifiers[given.oracle],
            images=images[given.choice],
            generator=generators[given.generator],
            seed=_seed(config, index, method),
            image_sets={key: images.fingerprint() for key, images in method.image_sets.items()},
            classifiers={
                key: [classifier_digest(classifier, spec) for spec, classifier in loaded]
                for key, loaded in method.classifiers.items()
            },
        )
        for index, (step, method, given) in enumerate(zip(config.steps, methods, inputs, strict=True), start=1)
    ]


def _step_record(step: StepConfig, method: PreparedMethod, inputs: StepInputs, fingerprint: str) -> dict[str, Any]:
    return {
        "name": step.name,
        "method": step.method,
        "title": step.title,
        "settings": step.settings,
        "fingerprint": fingerprint,
        "classifier": inputs.classifier,
        "compared_with": [spec for loaded in method.classifiers.values() for spec, _ in loaded],
        "generator": inputs.generator,
        "oracle": inputs.oracle,
        "images": inputs.images.spec or f"{len(inputs.images.files)} files",
    }


def _selection_record(choice: Choice, selection: Selection) -> dict[str, Any]:
    images, classifier = choice
    return {
        "images": selection.images.name,
        "classifier": classifier,
        "only": images.only,
        "total": selection.total,
        "classified": selection.classified,
        "correct": selection.correct,
        "mistakes": selection.classified - selection.correct,
        "selected": len(selection.images),
    }
