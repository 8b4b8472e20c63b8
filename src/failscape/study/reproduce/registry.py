"""Running a reproduction: its study, its numbers, and the comparison with the paper."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from failscape.data import load_images
from failscape.errors import SpecError, StudyError
from failscape.explain import load_result
from failscape.figures import Plot, save_plot
from failscape.metrics import Estimate
from failscape.study.config import StudyConfig
from failscape.study.reproduce import (
    failure_conditions,
    latent_sympathetic_examples,
    synthetic_data_generation,
    uncertainty_conditioned_gan,
)
from failscape.study.reproduce.claims import Claim, write_json_list, write_metrics
from failscape.study.reproduce.weights import recorded_seconds, say_how_long, train_embedded
from failscape.study.run_folder import read_steps
from failscape.study.runner import run_study


class Reproduction(Protocol):
    """What the module of a reproduction offers."""

    @property
    def WEIGHTS(self) -> tuple[str, ...]:
        """Names of the embedded weights that it uses."""

    @property
    def CLAIMS(self) -> tuple[Claim, ...]:
        """The comparison with the paper."""

    @property
    def MINUTES(self) -> int:
        """How long the whole took with the embedded weights, on one core with AVX-512 beside other work."""

    @property
    def TRAININGS(self) -> Mapping[str, float]:
        """What is trained beside the weights, if they are: FOLDER/NAME of the run to the seconds that it took."""

    def study(self, weights: Mapping[str, str]) -> StudyConfig:
        """Return the study, given where each of `WEIGHTS` is loaded from."""

    def measure(
        self, weights: Mapping[str, str], out: Path, *, retrain: bool, progress: Callable[[str], None]
    ) -> dict[str, Any]:
        """Return what is measured beside the steps; it joins the results under its keys."""

    def figures(self, results: Mapping[str, Any]) -> Sequence[Plot]:
        """Return the paper's figures that several steps make together."""

    def metrics(self, results: Mapping[str, Any]) -> dict[str, Estimate | float | int]:
        """Return the numbers of `metrics.json`, given the result of each step."""


REPRODUCTIONS: dict[str, Reproduction] = {
    "failure-conditions": failure_conditions,
    "latent-sympathetic-examples": latent_sympathetic_examples,
    "synthetic-data-generation": synthetic_data_generation,
    "uncertainty-conditioned-gan": uncertainty_conditioned_gan,
}


def reproduce(
    name: str, out: Path, *, retrain: bool = False, progress: Callable[[str], None] = lambda message: None
) -> Path:
    """Run a paper's experiments and write `metrics.json` and `claims.json` beside the steps.

    Args:
        name: a key of `REPRODUCTIONS`.
        out: the run folder; one that was cut off goes on.
        retrain: train the weights again first, in `out/weights`, instead of taking the embedded ones.
        progress: is told in a line what is being done.

    Returns:
        The run folder.

    Raises:
        SpecError: if there is no such reproduction.
        StudyError: if a step failed, so that the numbers cannot be had.
        FailscapeError: what the study or the trainings raise.
    """
    if name not in REPRODUCTIONS:
        raise SpecError(f"Expected one of {', '.join(REPRODUCTIONS)} to reproduce, but got {name!r}.")
    reproduction = REPRODUCTIONS[name]
    weights = {weight: f"embedded:{weight}" for weight in reproduction.WEIGHTS}
    took = f"{reproduction.MINUTES} minutes of one core where it was measured"
    progress(f"{name}: took {took}{', and the trainings before it' if retrain else ''}; a run that is cut off goes on")
    if retrain:
        _require_images(reproduction.study(weights))
        trainings = {out / "weights" / weight: recorded_seconds(weight) for weight in weights}
        trainings |= {out / run: seconds for run, seconds in reproduction.TRAININGS.items()}
        say_how_long(trainings, progress=progress)
        weights = {weight: str(train_embedded(weight, out / "weights", progress=progress)) for weight in weights}
    run = run_study(reproduction.study(weights), folder=out, progress=progress)
    results = {}
    for step in read_steps(run):
        if step["status"] != "done":
            raise StudyError(
                f"Expected every step to succeed, but {step['name']} did not: {step['error']} Mend that and run the "
                "same command again; what is done is kept."
            )
        results[step["name"]] = load_result(run / "steps" / step["folder"])
    results |= reproduction.measure(weights, run, retrain=retrain, progress=progress)
    plots = reproduction.figures(results)
    for plot in plots:
        save_plot(plot, run / "figures")
    write_json_list(run / "figures.json", [{"name": p.name, "title": p.title, "caption": p.caption} for p in plots])
    write_metrics(run, reproduction.metrics(results), reproduction.CLAIMS)
    return run


def _require_images(config: StudyConfig) -> None:
    """Load the images of all steps, so that a missing extra or file is told of before hours of training, not after.

    Without a training before it, the study does so itself before its first step.
    """
    for images in dict.fromkeys((config.images, *(step.images for step in config.steps if step.images))):
        assert images.spec is not None, "reproductions explain sets"
        load_images(images.spec)
