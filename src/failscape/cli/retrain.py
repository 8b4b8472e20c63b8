"""Commands that retrain a classifier on labelled images, and measure what that brings: retrain, loop."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from failscape.cli.studies import finish
from failscape.cli.terminal import progress


def retrain(
    run: str,
    /,
    *,
    labels: str | None = None,
    project: str | None = None,
    labeller: str | None = None,
    known: str | None = None,
    judge: str | None = None,
    classifier: str | None = None,
    generator: str | None = None,
    data: str | None = None,
    test: str | None = None,
    labelled: PositiveInt | None = None,
    fresh: PositiveInt | None = None,
    replicates: PositiveInt | None = None,
    sure: float | None = None,
    share: float | None = None,
    images: PositiveInt | None = None,
    seed: int | None = None,
    out: Path = Path("runs"),
    allow_code: bool = False,
) -> int:
    """Retrain the classifier of a run on labelled images, and measure the difference on fresh ones.

    Args:
        run: a run folder, or "latest"; people's labels are in it, and it names classifier, generator and oracle.
        labels: another run folder, or the URL of a database, in which people's labels are.
        project: which labelling project, where there are several.
        labeller: a classifier that labels generated images in place of people.
        known: images whose class is known, such as avatars:hair:extra, to be taken in place of what the generator
            draws, and their labels in place of people's; none that the classifier was trained or is tested on.
        judge: another classifier, which gives no labels and judges the outcome; by default the run's oracle, if that
            is not the labeller.
        classifier: what is retrained, in place of the run's.
        generator: what draws images, in place of the run's.
        data: what the classifier was trained on; by default what is recorded with its weights.
        test: labelled images that it was not trained on; by default what is recorded with its weights.
        labelled: labelled images to retrain on; by default half of those that are not kept to be measured on, or
            1,000 with --labeller.
        fresh: images drawn to be measured on in each replicate, with --labeller.
        replicates: repetitions with other seeds and images.
        sure: a labeller that is less sure than this says that an image belongs to no class.
        share: of each batch, the part that is labelled images.
        images: to be seen in each retraining, repetitions counted.
        seed: of all random draws.
        out: where "latest" is looked for, and numbered run folders are made.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    with progress() as show:
        show("importing")
        from failscape.study.retraining import retraining_of, run_retraining

        given: dict[str, Any] = {
            "labels": labels,
            "project": project,
            "labeller": labeller,
            "known": known,
            "judge": judge,
            "classifier": classifier,
            "generator": generator,
            "data": data,
            "test": test,
            "labelled": labelled,
            "fresh": fresh,
            "replicates": replicates,
            "sure": sure,
            "share": share,
            "images": images,
            "seed": seed,
        }
        config = retraining_of(run, {key: value for key, value in given.items() if value is not None}, out=out)
        folder = run_retraining(config, out=out, allow_code=allow_code, progress=show)
        show("writing the report")
    return finish(folder)


def loop(
    run: str,
    /,
    *,
    labeller: str | None = None,
    known: str | None = None,
    judge: str | None = None,
    classifier: str | None = None,
    generator: str | None = None,
    data: str | None = None,
    test: str | None = None,
    rounds: PositiveInt | None = None,
    labelled: PositiveInt | None = None,
    labellers: PositiveInt | None = None,
    control: Annotated[bool | None, Parameter(negative="--no-control")] = None,
    fresh: PositiveInt | None = None,
    one_in: PositiveInt | None = None,
    sure: float | None = None,
    share: float | None = None,
    images: PositiveInt | None = None,
    steer: str | None = None,
    steer_steps: PositiveInt | None = None,
    seed: int | None = None,
    out: Path = Path("runs"),
    allow_code: bool = False,
) -> int:
    """Go round: draw what the classifier of a run is unsure of, have it labelled, retrain, and draw again.

    Where people label, the command ends when labels are missing; given the loop's own folder, it goes on there.

    Args:
        run: a run folder, or "latest", which names classifier, generator and oracle; or that of a loop, to go on.
        labeller: a classifier that labels in place of people.
        known: images whose class is known, such as avatars:hair:extra, to be taken in place of what the generator
            draws, and their labels in place of people's; none that the classifier was trained or is tested on.
        judge: another classifier, which gives no labels and judges the outcome; by default the run's oracle, if that
            is not the labeller.
        classifier: what is retrained, in place of the run's.
        generator: what draws images, in place of the run's.
        data: what the classifier was trained on; by default what is recorded with its weights.
        test: labelled images that it was not trained on; by default what is recorded with its weights.
        rounds: how many.
        labelled: images to be labelled in each round.
        labellers: how many people each image is asked of.
        control: train another classifier on as many random labelled images, to hold the rounds against; by default
            where something stands in for people, who would have to label as many again.
        fresh: images to be labelled to measure on, once.
        one_in: of so many images drawn, the one that the classifier is least sure of is asked.
        sure: a labeller that is less sure than this says that an image belongs to no class.
        share: of each batch, the part that is labelled images.
        images: to be seen in each retraining, repetitions counted.
        steer: before each round train the generator further until the classifier gives its images this distribution, a
            class, shares such as 3=0.5,8=0.5, or uniform.
        steer_steps: steps of that training.
        seed: of all random draws.
        out: where "latest" is looked for, and numbered run folders are made.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    with progress() as show:
        show("importing")
        from failscape.study.retraining_config import LoopConfig
        from failscape.study.retraining_inputs import settings_of_run
        from failscape.study.retraining_loop import run_loop

        given: dict[str, Any] = {
            "labeller": labeller,
            "known": known,
            "judge": judge,
            "classifier": classifier,
            "generator": generator,
            "data": data,
            "test": test,
            "rounds": rounds,
            "labelled": labelled,
            "labellers": labellers,
            "control": control,
            "fresh": fresh,
            "one_in": one_in,
            "sure": sure,
            "share": share,
            "images": images,
            "steer": steer,
            "steer_steps": steer_steps,
            "seed": seed,
        }
        given = {key: value for key, value in given.items() if value is not None}
        # Of a loop all settings, so that its folder alone is enough to go on.
        _, settings = settings_of_run(run, given, out=out, lent=LoopConfig.model_fields)
        folder, waiting = run_loop(LoopConfig.from_mapping(settings), out=out, allow_code=allow_code, progress=show)
    if not waiting:
        return finish(folder)
    for each in waiting:
        sys.stdout.write(f"{each.project}: {each.missing:,} labels are missing\n")
    sys.stdout.write(
        f"`failscape serve {folder}` asks for them in the browser, and `failscape labels import {folder} FILE "
        f"--project {waiting[0].project}` takes them over; then `failscape loop {folder}` goes on.\n{folder}\n"
    )
    return 0
