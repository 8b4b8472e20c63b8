"""The runner: a study from its configuration to its run folder."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from failscape.errors import FailscapeError, StorageError
from failscape.storage import write_json
from failscape.study.config import ImagesConfig, StepConfig, StudyConfig
from failscape.study.fingerprint import classifier_digest, generator_digest, step_fingerprint, step_seed
from failscape.study.inputs import (
    Models,
    Selection,
    generator_spec,
    images_config,
    load_models,
    select_for_steps,
)
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
    changed are not run again. A step that fails is recorded with its error, and the next one runs.

    Args:
        config: the study.
        out: the parent of the numbered run folders.
        folder: write into this very folder instead.
        allow_code: whether `python:` specs may run their file.
        progress: is told in a line what is being done.

    Raises:
        FailscapeError: if the study cannot start, or its folder cannot be written.
    """
    methods = [prepare_method(step) for step in config.steps]
    progress("loading models")
    models = load_models(config, allow_code=allow_code)
    progress("classifying images")
    selections = select_for_steps(config, models.classifier)

    with RunFolder.open(config, out=out, folder=folder) as run:
        run.log("start", study=config.name)
        for wanted, selection in selections.items():
            run.log("selected", images=wanted.spec, sentence=selection.describe(wanted.only))
            progress(selection.describe(wanted.only))
        first = images_config(config.steps[0], config)
        write_json(run.path / "selection.json", _selection_record(first, selections[first]))

        fingerprints = _fingerprints(config, methods, models, selections)
        numbered = enumerate(zip(config.steps, methods, fingerprints, strict=True), start=1)
        for index, (step, method, fingerprint) in numbered:
            place = f"step {index} of {len(config.steps)}, {step.name}"
            if run.is_done(index, step, fingerprint):
                run.log("step_kept", step=step.name)
                progress(f"{place}: done before, inputs unchanged")
                continue
            progress(place)
            record = _step_record(config, step, fingerprint)
            with run.new_step(index, step) as step_folder:
                started = time.perf_counter()
                selection = selections[images_config(step, config)]
                record |= _run_step(method, models, selection, config, index, step_folder)
                record["seconds"] = round(time.perf_counter() - started, 3)
                write_json(step_folder / "step.json", record)
            outcome = {key: record[key] for key in ("status", "error", "seconds")}
            run.log("step_ended", step=step.name, **outcome)
            progress(f"{place}: {record['status']} in {record['seconds']:.1f} s")
        run.log("end")
    return run.path


def _run_step(
    method: PreparedMethod,
    models: Models,
    selection: Selection,
    config: StudyConfig,
    index: int,
    folder: Path,
) -> dict[str, Any]:
    """Run one step into `folder` and return its status and error."""
    step = config.steps[index - 1]
    if len(selection.images) == 0:
        sentence = selection.describe(images_config(step, config).only)
        return {"status": "skipped", "error": f"Nothing to explain: {sentence}"}
    try:
        result = method.method(
            models.classifier,
            models.generators[generator_spec(step, config)],
            selection.images.x,
            selection.images.y,
            rng=torch.Generator().manual_seed(step_seed(config.seed, index)),
            oracle=models.oracle,
            ids=selection.images.ids,
        )
        write_result(result, folder)
    except StorageError:
        # The disk is at fault, not the step: there is no use in going on.
        raise
    except FailscapeError as error:
        return {"status": "failed", "error": str(error)}
    return {"status": "done", "error": None}


def _fingerprints(
    config: StudyConfig,
    methods: list[PreparedMethod],
    models: Models,
    selections: Mapping[ImagesConfig, Selection],
) -> list[str]:
    """Return the fingerprint of each step."""
    images = {wanted: selection.images.fingerprint() for wanted, selection in selections.items()}
    shared: dict[str, str | None] = {"oracle": None}
    shared["classifier"] = classifier_digest(models.classifier, config.classifier.spec)
    if models.oracle is not None and config.oracle is not None:
        shared["oracle"] = classifier_digest(models.oracle, config.oracle.spec)
    generators = {spec: generator_digest(generator) for spec, generator in models.generators.items()}
    return [
        step_fingerprint(
            step,
            **shared,
            images=images[images_config(step, config)],
            generator=generators[generator_spec(step, config)],
            seed=step_seed(config.seed, index),
            image_sets={key: images.fingerprint() for key, images in method.image_sets.items()},
        )
        for index, (step, method) in enumerate(zip(config.steps, methods, strict=True), start=1)
    ]


def _step_record(config: StudyConfig, step: StepConfig, fingerprint: str) -> dict[str, Any]:
    images = images_config(step, config)
    return {
        "name": step.name,
        "method": step.method,
        "title": step.title,
        "settings": step.settings,
        "fingerprint": fingerprint,
        "classifier": config.classifier.spec,
        "generator": generator_spec(step, config),
        "oracle": config.oracle.spec if config.oracle else None,
        "images": images.spec or f"{len(images.files)} files",
    }


def _selection_record(config: ImagesConfig, selection: Selection) -> dict[str, Any]:
    return {
        "images": selection.images.name,
        "only": config.only,
        "total": selection.total,
        "classified": selection.classified,
        "correct": selection.correct,
        "mistakes": selection.classified - selection.correct,
        "selected": len(selection.images),
    }
