"""Round after round: draw what the classifier is unsure of, have it labelled, retrain, measure, and draw again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import torch

from failscape.classifiers import Classifier, target_distribution
from failscape.data import ImageSet
from failscape.data.joined import joined
from failscape.explain import LoopResult, Verification
from failscape.generators import load_generator, save_generator
from failscape.labels import NewLabel, label_task, labelled_images
from failscape.study.accuracy import right_corrupted, right_on
from failscape.study.candidates import Candidates, Images
from failscape.study.config import StepConfig
from failscape.study.fingerprint import classifier_digest, step_seed
from failscape.study.labelled_samples import protocol_of
from failscape.study.retraining_config import LoopConfig
from failscape.study.retraining_inputs import RetrainingInputs
from failscape.study.run_folder import RunFolder
from failscape.training import fine_tune, steer

if TYPE_CHECKING:
    from failscape.labels import LabelStore

FRESH = "fresh"
"""The project of the images that are measured on."""

CONTROL = "control"
"""The project of the random images that the control is trained on."""

_STEP = StepConfig(method="loop", title="What each round mends")
_EXAMPLES = 8
# Far from the numbers of the rounds, so that no draw depends on another.
_CORRUPTION_SEED, _STEERING_SEED, _CONTROL_SEED = 1_000_000, 2_000_000, 3_000_000
# Of a labeller in the store.
_LONGEST_NAME = 100


@final
@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A project whose images people have still to label.

    Attributes:
        project: its name.
        missing: labels that are still wanted.
    """

    project: str
    missing: int


def run_loop(
    config: LoopConfig,
    *,
    out: Path = Path("runs"),
    folder: Path | None = None,
    allow_code: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> tuple[Path, tuple[Waiting, ...]]:
    """Go round as far as there are labels.

    The images and labels of all rounds are in the run folder's label store: one project of fresh images, which are
    measured on and trained on in no round, one project a round, and one of random images where a control is asked for.
    After the last round the classifier of the beginning is trained as long on its own data alone, and on the random
    images: what the rounds are held against. Where a labeller or known labels stand in for
    people, they answer at once; else the loop ends where labels are missing, and goes on there when it is run again.

    Args:
        config: the loop.
        out: the parent of the numbered run folders; the latest of the same settings is gone on with.
        folder: write into this very folder instead.
        allow_code: whether `python:` specs may run their file.
        progress: is told in a line what is being done.

    Returns:
        The run folder, and what people have still to label before the loop can go on: nothing once it is done.

    Raises:
        FailscapeError: if something cannot be loaded, does not fit, or cannot be trained; or nothing can be written.
    """
    from failscape.labels import LabelStore

    progress("loading models and images")
    inputs = RetrainingInputs(config, allow_code=allow_code)
    with RunFolder.open(config, out=out, folder=folder) as run, LabelStore(run.path) as store:
        return run.path, _Loop(config, inputs, run, store, progress).go()


@dataclass(frozen=True)
class _Round:
    """What is known after a round.

    Attributes:
        classifier: as it came out of it.
        asked: the images that were labelled in it and have a class.
        labelled: images that it was trained on, those of earlier rounds among them.
        differs: of how many of the asked images the classifier before the round was wrong.
    """

    classifier: Classifier
    asked: ImageSet
    labelled: int
    differs: int


@final
class _Loop:
    """A loop in its run folder, with the store open."""

    def __init__(
        self,
        config: LoopConfig,
        inputs: RetrainingInputs,
        run: RunFolder,
        store: "LabelStore",
        progress: Callable[[str], None],
    ) -> None:
        self._config = config
        self._inputs = inputs
        self._run = run
        self._store = store
        self._progress = progress

    def go(self) -> tuple[Waiting, ...]:
        """Go through the rounds; return what is still to be labelled."""
        config, classifier = self._config, self._inputs.classifier
        rounds: list[_Round] = []
        for number in range(1, config.rounds + 1):
            name = f"round-{number}"
            candidates = self._candidates(number, classifier)
            names = [name]
            if number == 1:
                # Both at once, so that people can label both before they come back.
                names = [FRESH, name]
                self._ask(FRESH, classifier, candidates, config.fresh, part=0)
            self._ask(name, classifier, candidates, config.labelled, part=number)
            if number == 1 and self._has_control:
                self._ask_control()
            if self._waiting(names):
                return self._waiting([*names, CONTROL] if self._has_control else names)
            asked = self._labelled(name)
            learnt = joined([*(each.asked for each in rounds), asked], name="labelled images")
            differs = int((classifier.predict(asked.x) != asked.y).sum())
            self._progress(f"round {number} of {config.rounds}: training on {len(learnt):,} labelled images")
            classifier = self._retrained(f"round-{number}", learnt, seed=number)
            rounds.append(_Round(classifier, asked, len(learnt), differs))
        if self._has_control and (waiting := self._waiting([CONTROL])):
            return waiting
        self._keep(rounds)
        return ()

    @property
    def _has_control(self) -> bool:
        wanted = self._config.control
        return bool(self._inputs.candidates.labeller) if wanted is None else wanted

    def _candidates(self, number: int, classifier: Classifier) -> Candidates:
        """Return where the images of a round come from: the generator, steered by the classifier if that is asked."""
        config, inputs = self._config, self._inputs
        if config.steer is None:
            return inputs.candidates
        folder = self._run.path / "generators" / f"round-{number}-{classifier_digest(classifier, '')[:12]}"
        if not (folder / "generator.json").exists():
            self._progress(f"round {number} of {config.rounds}: steering the generator toward {config.steer}")
            rng = torch.Generator().manual_seed(step_seed(config.seed, _STEERING_SEED + number))
            rows = torch.randperm(len(inputs.data), generator=rng)[: config.steer_images]
            steered = steer(
                inputs.generator,
                classifier,
                target_distribution(config.steer, classifier.class_names),
                inputs.data.read(rows),
                steps=config.steer_steps,
                rng=rng,
            )
            save_generator(steered, folder)
        # Loaded also when it was just made, so that a loop that goes on draws the very same images.
        return inputs.candidates_of(load_generator(folder))

    def _ask(self, name: str, classifier: Classifier, candidates: Candidates, count: int, *, part: int) -> None:
        """Have a project of images to be labelled, and let the stand-in answer, if that was not done before."""
        if self._is_asked(name, candidates):
            return
        config = self._config
        self._progress(f"{name}: {count:,} images to be labelled")
        images = candidates.take(
            classifier, count, one_in=config.one_in, seed=config.seed, part=part, parts=config.rounds + 1
        )
        self._store_images(name, images, candidates, classifier, part=part)

    def _ask_control(self) -> None:
        """Have random images labelled, as many as in all rounds, from where those of the rounds come."""
        config, candidates = self._config, self._inputs.candidates
        if self._is_asked(CONTROL, candidates):
            return
        self._progress(f"{CONTROL}: {config.rounds * config.labelled:,} images to be labelled")
        parts = config.rounds + 1
        taken = [
            # Another go through the part of the round, so that none is among the fresh ones.
            candidates.take(None, config.labelled, one_in=1, seed=config.seed, part=parts + number, parts=parts)
            for number in range(1, parts)
        ]
        images = Images(torch.cat([each.x for each in taken]), torch.cat([each.indices for each in taken]))
        self._store_images(CONTROL, images, candidates, self._inputs.classifier, part=2 * parts)

    def _is_asked(self, name: str, candidates: Candidates) -> bool:
        """Whether a project of images is there, with all its labels if it is not people who give them."""
        exists = name in [project.name for project in self._store.projects()]
        return exists and not (candidates.labeller and self._waiting([name]))

    def _store_images(
        self, name: str, images: Images, candidates: Candidates, classifier: Classifier, *, part: int
    ) -> None:
        """Make a project of images unless it is there, and let the stand-in answer, if there is one."""
        config, labeller = self._config, candidates.labeller
        if name not in [project.name for project in self._store.projects()]:
            task = label_task(images.x, classifier, names=[f"{name}-{i:05d}" for i in range(len(images))])
            rng = torch.Generator().manual_seed(step_seed(config.seed, part))
            people = 1 if labeller else config.labellers
            self._store.create_project(name, task, classifier=config.classifier, labellers_per_image=people, rng=rng)
        if labeller:
            project = self._store.project(name)
            stored = self._store.images(project.id)
            new = [
                # The same whenever it is sent, so that a loop that was killed here does not label twice.
                NewLabel(image_id=image.id, label=label, client_id=f"stand-in-{image.id}")
                for image, label in zip(stored, candidates.label(images).tolist(), strict=True)
            ]
            self._store.label_all(project.id, labeller[:_LONGEST_NAME], new)

    def _waiting(self, names: Sequence[str]) -> tuple[Waiting, ...]:
        """Return the projects among these in which labels are missing."""
        found = []
        for name in names:
            progress = self._store.progress(self._store.project(name).id, "")
            if progress.missing:
                found.append(Waiting(project=name, missing=progress.missing))
        return tuple(found)

    def _labelled(self, name: str) -> ImageSet:
        """Return the images of a project that have a class, in memory."""
        images = labelled_images(self._store, self._store.project(name).id)
        return ImageSet.from_tensors(images.x, images.y, images.class_names, images.ids, name=name)

    def _retrained(self, name: str, learnt: ImageSet | None, *, seed: int) -> Classifier:
        """Return the classifier of the beginning, retrained on labelled images, or as long on its own data alone."""
        config, inputs = self._config, self._inputs
        settings = inputs.fine_tuning(name, seed=step_seed(config.seed, seed))
        # Labels that people change afterwards make another training.
        folder = self._run.path / "retrained" / (f"{name}-{learnt.fingerprint()[:12]}" if learnt is not None else name)
        return fine_tune(inputs.classifier, inputs.data, learnt, folder, settings, spec=config.classifier)

    def _keep(self, rounds: Sequence[_Round]) -> None:
        inputs, fresh = self._inputs, self._labelled(FRESH)
        control = self._control(rounds[-1].labelled) if self._has_control else None
        asked = [fresh, *(each.asked for each in rounds), *([] if control is None else [control])]
        labels = "/".join(each.fingerprint() for each in asked)
        inputs.keep(
            self._run,
            _STEP,
            index=1,
            fingerprint=inputs.fingerprint(_STEP, labels),
            kind=LoopResult,
            measure=lambda: self._result(fresh, rounds, control),
            progress=self._progress,
        )

    def _control(self, count: int) -> ImageSet:
        """Return random labelled images, as many as the last round was trained on if so many have a class."""
        images = self._labelled(CONTROL)
        rng = torch.Generator().manual_seed(step_seed(self._config.seed, _CONTROL_SEED))
        return images.select(torch.randperm(len(images), generator=rng)[:count].sort().values)

    def _arms(self, control: ImageSet | None) -> list[Classifier]:
        """Return what the rounds are held against, trained as the last of them but for its labelled images."""
        self._progress("training on the data alone")
        arms = [self._retrained("data-alone", None, seed=self._config.rounds)]
        if control is not None:
            self._progress(f"training the control on {len(control):,} labelled images")
            arms.append(self._retrained(CONTROL, control, seed=self._config.rounds))
        return arms

    def _result(self, fresh: ImageSet, rounds: Sequence[_Round], control: ImageSet | None) -> LoopResult:
        arms = self._arms(control)
        self._progress("measuring")
        config, inputs = self._config, self._inputs
        candidates = inputs.candidates
        classifiers = [inputs.classifier, *(each.classifier for each in rounds), *arms]
        rng = torch.Generator().manual_seed(step_seed(config.seed, _CORRUPTION_SEED))
        shown = min(_EXAMPLES, *(len(each.asked) for each in rounds))
        steered = f" The generator was steered toward {config.steer} by the classifier of each round."
        return LoopResult(
            images=fresh.x,
            verification=Verification(
                probs=inputs.classifier.probs(fresh.x),
                oracle_probs=None if inputs.judge is None else inputs.judge.probs(fresh.x),
            ),
            ids=fresh.ids,
            labels=fresh.y,
            predictions=torch.stack([each.predict(fresh.x) for each in classifiers[1:]]),
            clean=right_on(classifiers, inputs.test),
            corrupted=right_corrupted(classifiers, inputs.generator, inputs.test, count=config.corrupted, rng=rng),
            controlled=0 if control is None else len(control),
            labelled=torch.tensor([each.labelled for each in rounds]),
            asked=torch.tensor([len(each.asked) for each in rounds]),
            differs=torch.tensor([each.differs for each in rounds]),
            examples=torch.cat([each.asked.x[:shown] for each in rounds]),
            example_labels=torch.cat([each.asked.y[:shown] for each in rounds]),
            labeller=candidates.labeller or "people",
            stand_in=bool(candidates.labeller),
            judge=config.judge or "",
            protocol=protocol_of(candidates, one_in=config.one_in, sure=config.sure if config.labeller else 0.0)
            + (steered if config.steer else ""),
            test=config.test if config.test_part == "all" else f"the {config.test_part} of {config.test}",
            class_names=inputs.classifier.class_names,
        )
