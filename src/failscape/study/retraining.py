"""A retraining: a classifier trained further on labelled images, and the measured difference that they make."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from failscape.classifiers import Classifier, load_classifier, provenance_of
from failscape.data import ImageSet
from failscape.errors import ConfigError, DataError, StorageError
from failscape.explain import CorruptionTable, RetrainingResult, Verification, load_result
from failscape.explain.comparison import require_same_task
from failscape.explain.retraining_result import ARMS
from failscape.generators import Generator, load_generator
from failscape.storage import latest_run_folder, write_json
from failscape.study.config import ImagesConfig, StepConfig, StudyConfig
from failscape.study.fingerprint import classifier_digest, generator_digest, step_fingerprint, step_seed
from failscape.study.inputs import StepInputs, load_labelled, require_drawn_for
from failscape.study.labelled_samples import LabelledSample, Labels, People, StandIn
from failscape.study.retraining_config import RetrainingConfig
from failscape.study.run_folder import RunFolder, write_result
from failscape.training import FineTuningSettings, fine_tune

_BATCH = 500
_STAND_IN_LABELLED = 1_000
_EXAMPLES = 24
# A step of its own numbers, so that those of the samples stay apart.
_CORRUPTION_SEED = 1_000_000
# Of the corruptions, that which only pictures of one or three channels can have.
_JPEG = "jpeg_compression"


def retraining_of(run: str, given: Mapping[str, Any], *, out: Path) -> RetrainingConfig:
    """Return the retraining of the classifier of a run.

    What is not given is that of the run: its classifier, generator and oracle, which judges if it is not what labels,
    and the labels that people gave in it. Training data and test images are those that the classifier's weights were
    saved with.

    Args:
        run: a run folder, or "latest".
        given: settings by the names of `RetrainingConfig`.
        out: where "latest" is looked for.

    Raises:
        StorageError: if there is no such run.
        ConfigError: if the run names no study, or it is not known what the classifier was trained on.
    """
    folder = latest_run_folder(out) if run == "latest" else Path(run)
    if folder is None or not folder.is_dir():
        raise StorageError(
            f"Expected a run folder, but {folder or out} is none. Give the path of a folder such as runs/00001-demo."
        )
    settings: dict[str, Any] = {"classifier": None, "generator": None, "judge": None}
    if (folder / "study.toml").exists() or not settings.keys() <= given.keys():
        study = StudyConfig.from_toml(folder / "study.toml")
        first = StepInputs.of(study.steps[0], study)
        settings = {"classifier": first.classifier, "generator": first.generator, "judge": first.oracle}
    # An oracle that labels is not asked to judge, too.
    if settings["judge"] in (None, given.get("labeller")):
        del settings["judge"]
    settings |= given
    if "labeller" not in settings:
        settings.setdefault("labels", str(folder))
    recorded = provenance_of(settings["classifier"]).get("settings", {})
    for key, name in (("data", "data"), ("test", "validation")):
        known = recorded.get(name, "none")
        if key not in settings and known == "none":
            raise ConfigError(
                f"Expected --{key}, since nothing is recorded of {settings['classifier']} about it, but got none. Name "
                "the images it was trained on with --data and others, which it was not, with --test."
            )
        settings.setdefault(key, known)
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
        self._classifier = load_classifier(config.classifier, allow_code=allow_code)
        self._generator: Generator = load_generator(config.generator)
        require_drawn_for(self._classifier, self._generator, config.generator)
        self._judge = _other(config.judge, self._classifier, allow_code)
        self._data = load_labelled(ImagesConfig(spec=config.data), self._classifier)
        self._test = load_labelled(ImagesConfig(spec=config.test), self._classifier)
        if len(self._test) == 0 or self._test.fingerprint() == self._data.fingerprint():
            raise DataError(
                f"Expected test images that the classifier was not trained on, but {config.test} are those of "
                f"{config.data}. Name others."
            )
        self._labels = self._labels_of(allow_code)

    def step(self, run: RunFolder, *, index: int, progress: Callable[[str], None]) -> RetrainingResult:
        """Retrain and measure as a step of a run, unless that was done before on the same inputs.

        Args:
            run: the folder.
            index: number of the step.
            progress: is told in a line what is being done.
        """
        config = self._config
        step = StepConfig(method="retraining", title="What retraining mends")
        fingerprint = self._fingerprint(step)
        place = run.step_folder(index, step)
        if run.is_done(index, step, fingerprint):
            run.log("step_kept", step=step.name)
            progress("retraining: done before, inputs unchanged")
            return _loaded(place)
        started = time.perf_counter()
        result = self.measure(run.path / "retrained", fingerprint=fingerprint, progress=progress)
        record = {
            "name": step.name,
            "method": step.method,
            "title": step.title,
            "settings": config.model_dump(mode="json", exclude_none=True),
            "fingerprint": fingerprint,
            "classifier": config.classifier,
            "generator": config.generator,
            "oracle": config.judge,
            "images": config.test,
            "status": "done",
            "error": None,
            "seconds": round(time.perf_counter() - started, 3),
        }
        with run.new_step(index, step) as folder:
            write_result(result, folder)
            write_json(folder / "step.json", record)
        run.log("step_ended", step=step.name, status="done", seconds=record["seconds"])
        return result

    def measure(self, folder: Path, *, fingerprint: str, progress: Callable[[str], None]) -> RetrainingResult:
        """Retrain in all replicates, and return what changed.

        Args:
            folder: holds the trainings; those that were cut off go on, complete ones are kept, and those of another
                fingerprint are made again.
            fingerprint: of all inputs.
            progress: is told in a line what is being done.
        """
        config, labels = self._config, self._labels
        own = folder / fingerprint[:12]
        samples, fresh, trained = [], [], []
        for replicate in range(config.replicates):
            progress(f"replicate {replicate + 1} of {config.replicates}: labelled images")
            sample = labels.sample(replicate)
            arms = self._retrain(sample, replicate, own, progress)
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
        config = self._config
        trained = []
        for arm, labelled in zip(ARMS[1:], (sample.chosen, sample.control, None), strict=True):
            name = f"{arm.replace(' ', '-')}-{replicate}"
            progress(f"replicate {replicate + 1} of {config.replicates}: training, {arm}")
            settings = FineTuningSettings(
                name=name,
                data=config.data,
                images=config.images,
                warmup=config.images // 20,
                ema_half_life=config.images // 20,
                checkpoint_every=max(1, config.images // 3),
                evaluate_every=config.images,
                learning_rate=config.learning_rate,
                share=config.share,
                augment=config.augment,
                # The same for all, so that the classifiers of a replicate differ in nothing but their images.
                seed=step_seed(config.seed, replicate) % 2**31,
            )
            trained.append(
                fine_tune(self._classifier, self._data, labelled, folder / name, settings, spec=config.classifier)
            )
        return trained

    def _result(
        self,
        samples: Sequence[LabelledSample],
        fresh: Sequence[tuple[ImageSet, bool]],
        trained: Sequence[Sequence[Classifier]],
    ) -> RetrainingResult:
        config, classifier, labels = self._config, self._classifier, self._labels
        per_replicate = len(fresh) // len(samples)
        images = torch.cat([each.x for each, _ in fresh])
        sizes = [len(each) for each, _ in fresh]
        replicate = torch.arange(len(samples)).repeat_interleave(per_replicate)
        predictions = [
            torch.stack([arm.predict(each.x) for arm in trained[i // per_replicate]])
            for i, (each, _) in enumerate(fresh)
        ]
        shown = samples[0].chosen
        rows = torch.linspace(0, len(shown) - 1, min(_EXAMPLES, len(shown))).long()
        return RetrainingResult(
            images=images,
            verification=Verification(
                probs=classifier.probs(images),
                oracle_probs=None if self._judge is None else self._judge.probs(images),
            ),
            ids=tuple(identifier for each, _ in fresh for identifier in each.ids),
            replicate=replicate.repeat_interleave(torch.tensor(sizes)),
            new_frontier=torch.tensor([new for _, new in fresh]).repeat_interleave(torch.tensor(sizes)),
            labels=torch.cat([each.y for each, _ in fresh]),
            predictions=torch.cat(predictions, dim=1),
            clean=self._clean(trained),
            corrupted=self._corrupted(trained),
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
            test=config.test,
            class_names=classifier.class_names,
        )

    def _share_wrong(self, images: ImageSet) -> Float[Tensor, ""]:
        return (self._classifier.predict(images.x) != images.y).double().mean()

    def _clean(self, trained: Sequence[Sequence[Classifier]]) -> Bool[Tensor, "A S M"]:
        """Return which test images each classifier gets right, each read once."""
        everyone = [self._classifier, *(arm for arms in trained for arm in arms)]
        right = [
            torch.stack([each.predict(batch.x) == batch.y for each in everyone]) for batch in self._test.batches(_BATCH)
        ]
        return _by_arm(torch.cat(right, dim=1), len(trained))

    def _corrupted(self, trained: Sequence[Sequence[Classifier]]) -> Float[Tensor, "A S L"]:
        """Return in what share of the corruptions each classifier gets each of some test images right."""
        rng = torch.Generator().manual_seed(step_seed(self._config.seed, _CORRUPTION_SEED))
        rows = torch.randperm(len(self._test), generator=rng)[: self._config.corrupted].sort().values
        x, y = self._test.read(rows), self._test.y[rows]
        kinds = CorruptionTable().corruptions
        if x.shape[1] not in (1, 3):
            kinds = tuple(kind for kind in kinds if kind != _JPEG)
        table = CorruptionTable(others=tuple(arm for arms in trained for arm in arms), corruptions=kinds)
        found = table(self._classifier, self._generator, x, y, rng=rng)
        return _by_arm(found.corrupted.float(), len(trained))

    def _labels_of(self, allow_code: bool) -> Labels:
        config = self._config
        if config.labels is not None:
            return People(
                config.labels if "://" in config.labels else Path(config.labels),
                project=config.project,
                class_names=self._classifier.class_names,
                labelled=config.labelled,
                replicates=config.replicates,
                seed=config.seed,
            )
        labeller = _other(config.labeller, self._classifier, allow_code)
        assert labeller is not None
        assert config.labeller is not None
        return StandIn(
            self._classifier,
            self._generator,
            labeller,
            name=config.labeller,
            labelled=config.labelled or _STAND_IN_LABELLED,
            fresh=config.fresh,
            one_in=config.one_in,
            sure=config.sure,
            seed=config.seed,
        )

    def _fingerprint(self, step: StepConfig) -> str:
        config = self._config
        given: dict[str, Any] = {
            "config": config.model_dump(mode="json"),
            "classifier": classifier_digest(self._classifier, config.classifier),
            "generator": generator_digest(self._generator),
            "judge": None if self._judge is None else classifier_digest(self._judge, str(config.judge)),
            "data": self._data.fingerprint(),
            "test": self._test.fingerprint(),
            "labels": self._labels.fingerprint(),
        }
        return step_fingerprint(step, **given)


def _other(spec: str | None, classifier: Classifier, allow_code: bool) -> Classifier | None:
    """Load another classifier of the same task."""
    if spec is None:
        return None
    other = load_classifier(spec, allow_code=allow_code)
    require_same_task(classifier, [other])
    return other


def _by_arm(values: Tensor, replicates: int) -> Tensor:
    """Part rows, first that of the classifier before and then those of each replicate, by arm and replicate."""
    before, after = values[:1], values[1:].unflatten(0, (replicates, len(ARMS) - 1))
    return torch.cat([before.expand(replicates, -1)[None], after.transpose(0, 1)])


def _loaded(folder: Path) -> RetrainingResult:
    result = load_result(folder)
    assert isinstance(result, RetrainingResult)
    return result
