"""A retraining: a classifier trained further on labelled images, and the measured difference that they make."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.errors import DataError
from failscape.explain import RetrainingResult, Verification
from failscape.explain.retraining_result import ARMS
from failscape.study.accuracy import right_corrupted, right_on
from failscape.study.config import StepConfig
from failscape.study.fingerprint import step_seed
from failscape.study.labelled_samples import LabelledSample, Labels, People, StandIn
from failscape.study.retraining_config import RetrainingConfig
from failscape.study.retraining_inputs import RetrainingInputs, settings_of_run
from failscape.study.run_folder import RunFolder
from failscape.training import fine_tune

_STAND_IN_LABELLED = 1_000
_EXAMPLES = 24
# Far from the numbers of the replicates, so that no draw depends on another.
_CORRUPTION_SEED = 1_000_000
_STEP = StepConfig(method="retraining", title="What retraining mends")


def retraining_of(run: str, given: Mapping[str, Any], *, out: Path) -> RetrainingConfig:
    """Return the retraining of the classifier of a run, by default on the labels that people gave in it.

    Args:
        run: a run folder, or "latest".
        given: settings by the names of `RetrainingConfig`.
        out: where "latest" is looked for.

    Raises:
        FailscapeError: what `settings_of_run` raises.
        ConfigError: if a setting is wrong.
    """
    folder, settings = settings_of_run(run, given, out=out)
    if not settings.keys() & {"labeller", "known"}:
        settings.setdefault("labels", str(folder))
    return RetrainingConfig.from_mapping(settings)


def run_retraining(
    config: RetrainingConfig,
    *,
    out: Path = Path("runs"),
    folder: Path | None = None,
    allow_code: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> Path:
    """Retrain, measure, and return the run folder, whose only step holds what came of it.

    The latest run of the same name is gone on with if its settings are the same; trainings that are complete are kept.

    Args:
        config: the retraining.
        out: the parent of the numbered run folders.
        folder: write into this very folder instead.
        allow_code: whether `python:` specs may run their file.
        progress: is told in a line what is being done.

    Raises:
        FailscapeError: if something cannot be loaded, does not fit, or cannot be trained; or a folder cannot be
            written.
    """
    progress("loading models and images")
    retraining = Retraining(config, allow_code=allow_code)
    with RunFolder.open(config, out=out, folder=folder) as run:
        retraining.step(run, index=1, progress=progress)
    return run.path


@final
class Retraining:
    """A retraining whose models and images are loaded and fit each other.

    Args:
        config: the retraining.
        allow_code: whether `python:` specs may run their file.

    Raises:
        FailscapeError: if something cannot be loaded, or does not fit.
    """

    def __init__(self, config: RetrainingConfig, *, allow_code: bool = False) -> None:
        self._config = config
        self._inputs = RetrainingInputs(config, allow_code=allow_code)
        self._labels = self._labels_of()
        tested = torch.tensor([name not in self._labels.sources for name in self._inputs.test.ids])
        if not tested.any():
            raise DataError(
                f"Expected test images that no labelled one was made from, but all of {config.test} are such. Name "
                "others with --test."
            )
        self._left_out = int((~tested).sum())
        self._test = self._inputs.test.select(tested) if self._left_out else self._inputs.test

    def step(self, run: RunFolder, *, index: int, progress: Callable[[str], None]) -> RetrainingResult:
        """Retrain and measure as a step of a run, unless that was done before on the same inputs.

        Args:
            run: the folder.
            index: number of the step.
            progress: is told in a line what is being done.
        """
        fingerprint = self._inputs.fingerprint(_STEP, self._labels.fingerprint())

        def measure() -> RetrainingResult:
            # What was trained on other inputs is of no use.
            return self.measure(run.path / "retrained" / fingerprint[:12], progress=progress)

        return self._inputs.keep(
            run,
            _STEP,
            index=index,
            fingerprint=fingerprint,
            kind=RetrainingResult,
            measure=measure,
            progress=progress,
        )

    def measure(self, folder: Path, *, progress: Callable[[str], None]) -> RetrainingResult:
        """Retrain in all replicates, and return what changed.

        Args:
            folder: holds the trainings; those that were cut off go on, and complete ones are kept.
            progress: is told in a line what is being done.
        """
        config, labels = self._config, self._labels
        samples, fresh, trained = [], [], []
        for replicate in range(config.replicates):
            progress(f"replicate {replicate + 1} of {config.replicates}: labelled images")
            sample = labels.sample(replicate)
            arms = self._retrain(sample, replicate, folder, progress)
            fresh.append((sample.fresh, False))
            at_new = labels.at_frontier_of(arms[0], replicate)
            if at_new is not None:
                fresh.append((at_new, True))
            samples.append(sample)
            trained.append(arms)
        progress("measuring")
        return self._result(samples, fresh, trained)

    def _retrain(
        self, sample: LabelledSample, replicate: int, folder: Path, progress: Callable[[str], None]
    ) -> list[Classifier]:
        """Return the retrained classifier, the control, and the one trained as long on its own data alone."""
        config, inputs = self._config, self._inputs
        # The same seed for all, so that the classifiers of a replicate differ in nothing but their images.
        seed = step_seed(config.seed, replicate)
        trained = []
        for arm, labelled in zip(ARMS[1:], (sample.chosen, sample.control, None), strict=True):
            name = f"{arm.replace(' ', '-')}-{replicate}"
            progress(f"replicate {replicate + 1} of {config.replicates}: training, {arm}")
            settings = inputs.fine_tuning(name, seed=seed)
            trained.append(
                fine_tune(inputs.classifier, inputs.data, labelled, folder / name, settings, spec=config.classifier)
            )
        return trained

    def _result(
        self,
        samples: Sequence[LabelledSample],
        fresh: Sequence[tuple[ImageSet, bool]],
        trained: Sequence[Sequence[Classifier]],
    ) -> RetrainingResult:
        config, inputs, labels = self._config, self._inputs, self._labels
        classifier = inputs.classifier
        per_replicate = len(fresh) // len(samples)
        images = torch.cat([each.x for each, _ in fresh])
        sizes = [len(each) for each, _ in fresh]
        replicate = torch.arange(len(samples)).repeat_interleave(per_replicate)
        predictions = [
            torch.stack([arm.predict(each.x) for arm in trained[i // per_replicate]])
            for i, (each, _) in enumerate(fresh)
        ]
        everyone = [classifier, *(arm for arms in trained for arm in arms)]
        rng = torch.Generator().manual_seed(step_seed(config.seed, _CORRUPTION_SEED))
        shown = samples[0].chosen
        rows = torch.linspace(0, len(shown) - 1, min(_EXAMPLES, len(shown))).long()
        return RetrainingResult(
            images=images,
            verification=Verification(
                probs=classifier.probs(images),
                oracle_probs=None if inputs.judge is None else inputs.judge.probs(images),
            ),
            ids=tuple(identifier for each, _ in fresh for identifier in each.ids),
            replicate=replicate.repeat_interleave(torch.tensor(sizes)),
            group=_joined([sample.fresh_group for sample in samples]),
            new_frontier=torch.tensor([new for _, new in fresh]).repeat_interleave(torch.tensor(sizes)),
            labels=torch.cat([each.y for each, _ in fresh]),
            predictions=torch.cat(predictions, dim=1),
            clean=_by_arm(right_on(everyone, self._test), len(trained)),
            corrupted=_by_arm(
                right_corrupted(everyone, inputs.generator, self._test, count=config.corrupted, rng=rng), len(trained)
            ),
            labelled=len(shown),
            taught=torch.stack(
                [
                    torch.stack([self._share_wrong(sample.chosen) for sample in samples]),
                    torch.stack([self._share_wrong(sample.control) for sample in samples]),
                ]
            ),
            examples=shown.read(rows),
            example_labels=shown.y[rows],
            labeller=labels.labeller,
            stand_in=labels.stand_in,
            judge=config.judge or "",
            protocol=labels.protocol,
            data=config.data,
            test=self._tested_on(),
            class_names=classifier.class_names,
        )

    def _tested_on(self) -> str:
        name = self._config.test
        if self._config.test_part != "all":
            name = f"the {self._config.test_part} of {name}"
        return f"{name}, less {self._left_out:,} that labelled images are or were made from" if self._left_out else name

    def _share_wrong(self, images: ImageSet) -> Float[Tensor, ""]:
        return (self._inputs.classifier.predict(images.x) != images.y).double().mean()

    def _labels_of(self) -> Labels:
        config, classifier = self._config, self._inputs.classifier
        if config.labels is not None:
            return People(
                config.labels if "://" in config.labels else Path(config.labels),
                project=config.project,
                classifier=config.classifier,
                class_names=classifier.class_names,
                labelled=config.labelled,
                replicates=config.replicates,
                seed=config.seed,
            )
        return StandIn(
            classifier,
            self._inputs.candidates,
            labelled=config.labelled or _STAND_IN_LABELLED,
            fresh=config.fresh,
            one_in=config.one_in,
            sure=0.0 if config.labeller is None else config.sure,
            seed=config.seed,
        )


def _joined(groups: Sequence[Tensor | None]) -> Tensor | None:
    """Join what is told of each replicate's fresh images, if it is told."""
    told = [each for each in groups if each is not None]
    return torch.cat(told) if told else None


def _by_arm(values: Tensor, replicates: int) -> Tensor:
    """Part rows, first that of the classifier before and then those of each replicate, by arm and replicate."""
    before, after = values[:1], values[1:].unflatten(0, (replicates, len(ARMS) - 1))
    return torch.cat([before.expand(replicates, -1)[None], after.transpose(0, 1)])
