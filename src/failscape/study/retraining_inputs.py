"""What a retraining works on: models and images, loaded and checked, and the settings that a run lends it."""

import hashlib
import time
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar, final

import torch

from failscape.classifiers import Classifier, load_classifier, provenance_of
from failscape.data import ImageSet
from failscape.errors import ConfigError, DataError, StorageError
from failscape.explain import Result, load_result, to_8_bits
from failscape.explain.comparison import require_same_task
from failscape.generators import Condition, Generator, load_generator
from failscape.storage import latest_run_folder, write_json
from failscape.study.candidates import Candidates, GeneratedImages, KnownImages
from failscape.study.config import ImagesConfig, StepConfig, StudyConfig
from failscape.study.fingerprint import classifier_digest, generator_digest, step_fingerprint
from failscape.study.inputs import StepInputs, draw_conditions, load_labelled, require_drawn_for
from failscape.study.retraining_config import LabelSettings
from failscape.study.run_folder import RunFolder, write_result
from failscape.training import FineTuningSettings
from failscape.training.temperature import first_half

Found = TypeVar("Found", bound=Result)
_BATCH = 500


# What a run lends to a retraining of its classifier.
OF_A_RUN = ("classifier", "generator", "judge", "data", "test")


def settings_of_run(
    run: str, given: Mapping[str, Any], *, out: Path, lent: Collection[str] = OF_A_RUN
) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a run, and the settings of a retraining of its classifier.

    What is not given is that of the run: of a study its classifier, generator and oracle, which judges if it is not
    what labels. Training data and test images are those that the classifier's weights were saved with.

    Args:
        run: a run folder, or "latest".
        given: settings by the names of `LabelSettings`, and others.
        out: where "latest" is looked for.
        lent: of the run of a retraining or a loop, the names of the settings that are taken over.

    Raises:
        StorageError: if there is no such run.
        ConfigError: if the run names no study, or it is not known what the classifier was trained on.
    """
    folder = latest_run_folder(out) if run == "latest" else Path(run)
    if folder is None or not folder.is_dir():
        raise StorageError(
            f"Expected a run folder, but {folder or out} is none. Give the path of a folder such as runs/00001-demo."
        )
    needed = {"classifier", "generator"} - given.keys()
    own = _own_settings(folder / "study.toml", lent) if needed or (folder / "study.toml").exists() else {}
    # An oracle that labels is not asked to judge, too.
    if own.get("judge") == given.get("labeller"):
        own.pop("judge", None)
    # Data of another classifier are not those of this one.
    if "classifier" in given and given["classifier"] != own.get("classifier"):
        own = {key: value for key, value in own.items() if key not in ("data", "test")}
    return folder, with_recorded_images(own | dict(given))


def _own_settings(source: Path, lent: Collection[str]) -> dict[str, Any]:
    """Return what the settings of a run lend: those of a study, or of another retraining or loop."""
    try:
        document = tomllib.loads(source.read_text())
    except (OSError, ValueError):
        # The study says what is wrong.
        document = {}
    if isinstance(document.get("classifier"), str):
        return {key: value for key, value in document.items() if key in lent}
    study = StudyConfig.from_toml(source)
    first = StepInputs.of(study.steps[0], study)
    found = {"classifier": first.classifier, "generator": first.generator, "judge": first.oracle}
    return {key: value for key, value in found.items() if value is not None}


def with_recorded_images(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with the training data and test images that the classifier's weights were saved with.

    Raises:
        ConfigError: if nothing is recorded of them, and none are given.
    """
    recorded = provenance_of(settings["classifier"]).get("settings", {})
    for key, name in (("data", "data"), ("test", "validation")):
        known = recorded.get(name, "none")
        if key not in settings and known == "none":
            raise ConfigError(
                f"Expected --{key}, since nothing is recorded of {settings['classifier']} about it, but got none. Name "
                "the images it was trained on with --data and others, which it was not, with --test."
            )
        settings.setdefault(key, known)
    return settings


@final
class RetrainingInputs:
    """The models and images of a retraining.

    Args:
        config: names them.
        allow_code: whether `python:` specs may run their file.

    Attributes:
        classifier: what is retrained.
        generator: what draws images.
        judge: another classifier, which gives no labels, or None.
        data: what the classifier was trained on.
        test: what it was not trained on.
        candidates: where images to be labelled come from, and what stands in for people, if anything does.

    Raises:
        FailscapeError: if something cannot be loaded, or does not fit.
    """

    def __init__(self, config: LabelSettings, *, allow_code: bool) -> None:
        self._config = config
        self.classifier = load_classifier(config.classifier, allow_code=allow_code)
        self.generator: Generator = load_generator(config.generator)
        require_drawn_for(self.classifier, self.generator, config.generator)
        self.judge = self._other(config.judge, allow_code)
        self._labeller = self._other(config.labeller, allow_code)
        self.data = load_labelled(ImagesConfig(spec=config.data), self.classifier)
        test = load_labelled(ImagesConfig(spec=config.test), self.classifier)
        self.test = test if config.test_part == "all" else test.select(~first_half(test.y))
        if len(self.test) == 0 or test.fingerprint() == self.data.fingerprint():
            raise DataError(
                f"Expected test images that the classifier was not trained on, but {config.test} are those of "
                f"{config.data}. Name others."
            )
        self._known = self._known_images()
        self.candidates = self.candidates_of(self.generator)

    def candidates_of(self, generator: Generator) -> Candidates:
        """Return where images come from if they are drawn by another generator; known ones are always the same."""
        config = self._config
        if self._known is not None:
            return KnownImages(self._known, name=str(config.known))

        def ask(n: int, rng: torch.Generator) -> Condition | None:
            return draw_conditions(generator, self.classifier, self.data, n, rng=rng)

        return GeneratedImages(generator, self._labeller, name=config.labeller or "", sure=config.sure, ask=ask)

    def fine_tuning(self, name: str, *, seed: int) -> FineTuningSettings:
        """Return what each training is told."""
        config = self._config
        return FineTuningSettings(
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
            kept=config.kept,
            seed=seed % 2**31,
        )

    def fingerprint(self, step: StepConfig, labels: str) -> str:
        """Return a SHA-256 of all that a step depends on.

        Args:
            step: of a run.
            labels: that of the labels.
        """
        config = self._config
        given: dict[str, Any] = {
            "config": config.model_dump(mode="json"),
            "classifier": classifier_digest(self.classifier, config.classifier),
            "generator": generator_digest(self.generator),
            "judge": None if self.judge is None else classifier_digest(self.judge, str(config.judge)),
            "data": self.data.fingerprint(),
            "test": self.test.fingerprint(),
            "labels": labels,
        }
        return step_fingerprint(step, **given)

    def keep(
        self,
        run: RunFolder,
        step: StepConfig,
        *,
        index: int,
        fingerprint: str,
        kind: type[Found],
        measure: Callable[[], Found],
        progress: Callable[[str], None],
    ) -> Found:
        """Return what a step of a run found, measured now unless that was done before on the same inputs."""
        if run.is_done(index, step, fingerprint):
            run.log("step_kept", step=step.name)
            progress(f"{step.name}: done before, inputs unchanged")
            kept = load_result(run.step_folder(index, step))
            assert isinstance(kept, kind)
            return kept
        config, started = self._config, time.perf_counter()
        result = measure()
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

    def _known_images(self) -> ImageSet | None:
        """Load the images whose class is known, if there are such, none of which may be trained or tested on."""
        config = self._config
        if config.known is None:
            return None
        known = load_labelled(ImagesConfig(spec=config.known), self.classifier)
        pixels = _pixels(known)
        for images, spec, whose in ((self.data, config.data, "was trained"), (self.test, config.test, "is tested")):
            shared = len(pixels & _pixels(images))
            if shared:
                raise DataError(
                    f"Expected known images that are none of those that the classifier {whose} on, but {shared:,} of "
                    f"{config.known} are in {spec}, too. Name others, such as avatars:hair:extra where it was trained "
                    "on avatars:hair:train, or leave these out."
                )
        return known

    def _other(self, spec: str | None, allow_code: bool) -> Classifier | None:
        """Load another classifier of the same task, if one is named."""
        if spec is None:
            return None
        other = load_classifier(spec, allow_code=allow_code)
        require_same_task(self.classifier, [other])
        return other


def _pixels(images: ImageSet) -> set[bytes]:
    """Return what tells images apart, whatever they are called: a digest of the 8-bit pixels of each."""
    return {
        hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        for batch in images.batches(_BATCH)
        for image in (to_8_bits(batch.x) * 255).round().to(torch.uint8).numpy()
    }
