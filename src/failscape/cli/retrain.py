"""The command that retrains a classifier on labelled images, and measures what that brings."""

from pathlib import Path
from typing import Any

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
