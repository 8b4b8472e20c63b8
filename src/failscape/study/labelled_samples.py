"""Where the labelled images of a retraining come from: people's labels, or a stand-in for people."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.errors import DataError, LabelError, LabelStoreError, NotInStore
from failscape.explain import to_8_bits
from failscape.generators import Generator
from failscape.labels import NOT_ANY, Project, teaching_value
from failscape.study.fingerprint import classifier_digest, step_seed

if TYPE_CHECKING:
    from failscape.labels import Decision

_BLOCK = 512
# A stand-in that knows so few of the images drawn could as well know none.
_MOST_BLOCKS_IN_VAIN = 50
# Of each replicate: the draws that must not depend on each other.
_ROLES = ("chosen", "control", "fresh", "new frontier")


@final
@dataclass(frozen=True, kw_only=True)
class LabelledSample:
    """The labelled images of one replicate, no image in two of them.

    Attributes:
        chosen: to retrain on: those that should teach most.
        control: to retrain the control on: as many, at random. They may share images with the chosen ones.
        fresh: to measure on.
    """

    chosen: ImageSet
    control: ImageSet
    fresh: ImageSet


@runtime_checkable
class Labels(Protocol):
    """Who gives labels, and to which images.

    Attributes:
        labeller: its name.
        stand_in: whether it stands in for a person.
        protocol: how the images came about, in one sentence or two.
    """

    labeller: str
    stand_in: bool
    protocol: str

    def sample(self, replicate: int) -> LabelledSample:
        """Return the labelled images of a replicate; the same whenever it is asked."""

    def at_frontier_of(self, classifier: Classifier, replicate: int) -> ImageSet | None:
        """Return labelled images that a classifier is unsure of; None where nobody is there to label them."""

    def fingerprint(self) -> str:
        """Return a SHA-256 of what the labels depend on beside the settings."""


@final
class StandIn:
    """A network that labels what a generator draws, in place of a person.

    Images are taken where a classifier is least sure: of each block of images that the generator draws, the part
    `1 / one_in` of the least margin between the two most probable classes. The labeller has no say in that.

    Args:
        classifier: whose uncertainty says which images are taken.
        generator: draws them.
        labeller: names their class.
        labelled: images to retrain on.
        fresh: images to measure on.
        one_in: of so many images drawn one is taken.
        sure: an image of whose class the labeller is less sure belongs to none, and is left out.
        seed: of all draws.

    Raises:
        ClassifierError: if the labeller has other classes than the classifier.
    """

    stand_in = True

    def __init__(
        self,
        classifier: Classifier,
        generator: Generator,
        labeller: Classifier,
        *,
        name: str,
        labelled: int,
        fresh: int,
        one_in: int,
        sure: float,
        seed: int,
    ) -> None:
        self.labeller = name
        self._classifier = classifier
        self._generator = generator
        self._labeller = labeller
        self._labelled = labelled
        self._fresh = fresh
        self._one_in = one_in
        self._sure = sure
        self._seed = seed
        left_out = f" Images of whose class {name} is less than {sure:.0%} sure belong to none." if sure > 0 else ""
        self.protocol = (
            f"The images are those, one in {one_in} that the generator draws, which the classifier before retraining "
            f"is least sure of.{left_out}"
        )

    def sample(self, replicate: int) -> LabelledSample:
        """Draw and label the images of a replicate."""
        chosen = self._draw("chosen", self._classifier, self._labelled, replicate)
        control = self._draw("control", None, self._labelled, replicate)
        return LabelledSample(
            chosen=chosen,
            control=control,
            fresh=self._draw("fresh", self._classifier, self._fresh, replicate),
        )

    def at_frontier_of(self, classifier: Classifier, replicate: int) -> ImageSet | None:
        """Draw and label images that another classifier is unsure of, half as many as fresh ones."""
        return self._draw("new frontier", classifier, max(1, self._fresh // 2), replicate)

    def fingerprint(self) -> str:
        """Return that of the labeller."""
        return classifier_digest(self._labeller, self.labeller)

    def _draw(self, role: str, classifier: Classifier | None, count: int, replicate: int) -> ImageSet:
        """Draw until so many images have a class; those a classifier is unsure of, or without one any."""
        rng = torch.Generator().manual_seed(step_seed(self._seed, len(_ROLES) * replicate + _ROLES.index(role)))
        images, labels, found, vain = [], [], 0, 0
        for x in self._blocks(classifier, rng):
            y = self._label(x)
            images.append(x[y != NOT_ANY])
            labels.append(y[y != NOT_ANY])
            found += len(labels[-1])
            vain = vain + 1 if len(labels[-1]) == 0 else 0
            if found >= count:
                break
            if vain == _MOST_BLOCKS_IN_VAIN:
                raise DataError(
                    f"Expected {self.labeller} to be {self._sure:.0%} sure of the class of some of the images drawn, "
                    f"but it is of none of {vain * _BLOCK:,}. Ask for less certainty."
                )
        ids = [f"{role.replace(' ', '-')}-{replicate}-{i:05d}" for i in range(count)]
        x, y = torch.cat(images)[:count], torch.cat(labels)[:count]
        return ImageSet.from_tensors(x, y, self._classifier.class_names, ids, name=f"{role} images")

    def _blocks(self, classifier: Classifier | None, rng: torch.Generator) -> Iterator[Float[Tensor, "M C H W"]]:
        space = self._generator.condition_space
        while True:
            condition = None if space is None else space.sample(_BLOCK, rng=rng)
            x = to_8_bits(self._generator.sample(_BLOCK, rng=rng, condition=condition))
            if classifier is not None:
                value = teaching_value(classifier.probs(x))
                x = x[value.argsort(descending=True, stable=True)[: max(1, _BLOCK // self._one_in)]]
            yield x

    def _label(self, x: Float[Tensor, "M C H W"]) -> Int[Tensor, " M"]:
        probability, label = self._labeller.probs(x).max(dim=1)
        return torch.where(probability >= self._sure, label, NOT_ANY)


@final
class People:
    """What people said of the images of a labelling project, by majority.

    Each replicate keeps another part of the images to be measured on: `1 / replicates` of them, and a third where
    there is one replicate. Of the others those with the highest priority are chosen, and the control's are drawn.

    Args:
        where: the run folder or database of the labels.
        project: its name, where there are several.
        class_names: of the classifier that is to be retrained.
        labelled: images to retrain on; by default half of those that are not kept to be measured on.
        replicates: how many there will be.
        seed: of all draws.

    Raises:
        LabelStoreError: if there are no labels, or several projects and none named.
        LabelError: if only one class has labels, there are fewer labels than asked for, or other classes.
    """

    stand_in = False

    def __init__(
        self,
        where: Path | str,
        *,
        project: str | None,
        class_names: tuple[str, ...],
        labelled: int | None,
        replicates: int,
        seed: int,
    ) -> None:
        found, decided, images = _read(where, project)
        classed = [one for one in decided if one.label not in (None, NOT_ANY)]
        if images.class_names != class_names:
            raise LabelError(
                f"Expected labels of the classes of the classifier, {', '.join(class_names)}, but those of "
                f"{found.name!r} are {', '.join(images.class_names)}. Name the run that was labelled for it."
            )
        images.require_two_classes()
        self._images = images
        self._priority = torch.tensor([one.image.priority for one in classed])
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(step_seed(seed, 0)))
        folds = max(3, replicates) if replicates == 1 else replicates
        self._folds = [order[fold::folds] for fold in range(folds)][:replicates]
        self._seed = seed
        least = len(images) - max(len(fold) for fold in self._folds)
        self._labelled = max(1, least // 2) if labelled is None else labelled
        if len(images) < 2 * folds or self._labelled >= least:
            raise LabelError(
                f"Expected fewer than {least} labelled images to retrain on, since {len(images)} have a class and "
                f"{len(images) - least} of them are kept to measure on, but got {self._labelled}. Ask for fewer with "
                "--labelled, or label more."
            )
        people = {label.labeller for one in classed for label in one.labels}
        self.labeller = f"{len(people)} {'people' if len(people) > 1 else 'person'}"
        tied, not_any = sum(one.tied for one in decided), sum(one.label == NOT_ANY for one in decided)
        self.protocol = (
            f"The images are those of {found.name!r} to which most labellers give a class; {tied:,} on which they are "
            f"tied and {not_any:,} that they put in no class are left out."
        )

    def sample(self, replicate: int) -> LabelledSample:
        """Part the labelled images for a replicate."""
        kept = self._folds[replicate]
        left = torch.ones(len(self._images), dtype=torch.bool)
        left[kept] = False
        rows = left.nonzero()[:, 0]
        rng = torch.Generator().manual_seed(step_seed(self._seed, 1 + replicate))
        control = rows[torch.randperm(len(rows), generator=rng)[: self._labelled]]
        by_priority = self._priority[rows].argsort(descending=True, stable=True)
        return LabelledSample(
            chosen=self._images.select(rows[by_priority[: self._labelled]]),
            control=self._images.select(control),
            fresh=self._images.select(kept),
        )

    def at_frontier_of(self, classifier: Classifier, replicate: int) -> ImageSet | None:
        """Return None: nobody is there to label more."""
        return None

    def fingerprint(self) -> str:
        """Return that of the labelled images."""
        return self._images.fingerprint()


def _read(where: Path | str, project: str | None) -> "tuple[Project, tuple[Decision, ...], ImageSet]":
    """Return a project, what people said of each image, and the images that have a class, out of the store."""
    from failscape.labels import LabelStore, decisions, labelled_images, project_of

    try:
        with LabelStore(where, create=False) as store:
            found = project_of(store, project)
            read = labelled_images(store, found.id)
            images = ImageSet.from_tensors(read.x, read.y, read.class_names, read.ids, name=found.name)
            return found, decisions(store, found.id), images
    except NotInStore:
        raise
    except LabelStoreError as error:
        raise LabelStoreError(
            f"{error} Take labels over with `failscape labels import RUN FILE`, or let a classifier label generated "
            "images in place of people with --labeller."
        ) from error
