"""Where the labelled images of a retraining come from: people's labels, or a stand-in for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, final, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.errors import LabelError, LabelStoreError, NotInStore
from failscape.labels import NOT_ANY, Project
from failscape.study.candidates import Candidates
from failscape.study.fingerprint import step_seed

if TYPE_CHECKING:
    from failscape.labels import Decision

# Of each replicate: the images that must not depend on each other.
_ROLES = ("chosen", "control", "fresh", "new-frontier")


@final
@dataclass(frozen=True, kw_only=True)
class LabelledSample:
    """The labelled images of one replicate, no image in two of them.

    Attributes:
        chosen: to retrain on: those that should teach most.
        control: to retrain the control on: as many, at random. They may share images with the chosen ones.
        fresh: to measure on.
        fresh_group: which of these were made from the same; None where no two were.
    """

    chosen: ImageSet
    control: ImageSet
    fresh: ImageSet
    fresh_group: Int[Tensor, " M"] | None = None


@runtime_checkable
class Labels(Protocol):
    """Who gives labels, and to which images.

    Attributes:
        labeller: its name.
        stand_in: whether it stands in for a person.
        protocol: how the images came about, in one sentence or two.
        sources: ids of the images that labelled ones are or were made from, which cannot be tested on any more.
    """

    labeller: str
    stand_in: bool
    protocol: str
    sources: frozenset[str]

    def sample(self, replicate: int) -> LabelledSample:
        """Return the labelled images of a replicate; the same whenever it is asked."""

    def at_frontier_of(self, classifier: Classifier, replicate: int) -> ImageSet | None:
        """Return labelled images that a classifier is unsure of; None where nobody is there to label them."""

    def fingerprint(self) -> str:
        """Return a SHA-256 of what the labels depend on beside the settings."""


@final
class StandIn:
    """A network, or what is known of the images, that labels in place of a person.

    Images are taken where a classifier is least sure: of each block of candidates, the part `1 / one_in` of the least
    margin between the two most probable classes. What labels has no say in that.

    Args:
        classifier: whose uncertainty says which images are taken.
        candidates: where they are taken from, and what labels them.
        labelled: images to retrain on.
        fresh: images to measure on.
        one_in: of so many candidates one is taken.
        sure: below which certainty the labeller says that an image belongs to no class; 0 where it always knows.
        seed: of all draws.
    """

    stand_in = True
    sources: frozenset[str] = frozenset()

    def __init__(
        self,
        classifier: Classifier,
        candidates: Candidates,
        *,
        labelled: int,
        fresh: int,
        one_in: int,
        sure: float,
        seed: int,
    ) -> None:
        self.labeller = candidates.labeller
        self._classifier = classifier
        self._candidates = candidates
        self._labelled = labelled
        self._fresh = fresh
        self._one_in = one_in
        self._seed = seed
        self.protocol = protocol_of(candidates, one_in=one_in, sure=sure)

    def sample(self, replicate: int) -> LabelledSample:
        """Take and label the images of a replicate."""
        return LabelledSample(
            chosen=self._take("chosen", self._classifier, self._labelled, replicate),
            control=self._take("control", None, self._labelled, replicate),
            fresh=self._take("fresh", self._classifier, self._fresh, replicate),
        )

    def at_frontier_of(self, classifier: Classifier, replicate: int) -> ImageSet | None:
        """Take and label images that another classifier is unsure of, half as many as fresh ones."""
        return self._take("new-frontier", classifier, max(1, self._fresh // 2), replicate)

    def fingerprint(self) -> str:
        """Return that of what labels."""
        return self._candidates.fingerprint()

    def _take(self, role: str, classifier: Classifier | None, count: int, replicate: int) -> ImageSet:
        return self._candidates.take_labelled(
            classifier,
            count,
            one_in=self._one_in,
            seed=step_seed(self._seed, replicate),
            part=_ROLES.index(role),
            parts=len(_ROLES),
            class_names=self._classifier.class_names,
            name=f"{role}-{replicate}",
        )


def protocol_of(candidates: Candidates, *, one_in: int, sure: float) -> str:
    """Say in a sentence or two which images are taken, and which of them have no class."""
    which = (
        f"The images are those, one in {one_in} of {candidates.source}, that the classifier before is least sure of."
    )
    if one_in == 1:
        which = f"The images are from {candidates.source}, at random."
    if sure == 0 or not candidates.labeller:
        return which
    return (
        f"{which} Those whose class {candidates.labeller} is less than {sure:.0%} sure of have none, and are left out."
    )


@final
class People:
    """What people said of the images of a labelling project, by what they say most often.

    Each replicate keeps another part of the images to be measured on: `1 / replicates` of them, and a third where
    there is one replicate. Images that were made from the same, such as the two sides of a boundary, stay together. Of
    the others those with the highest priority are chosen, and the control's are drawn from those that are not.

    Args:
        where: the run folder or database of the labels.
        project: its name, where there are several.
        classifier: spec of what is to be retrained.
        class_names: its.
        labelled: images to retrain on; by default half of those that are not kept to be measured on.
        replicates: how many there will be.
        seed: of all draws.

    Raises:
        LabelStoreError: if there are no labels, or several projects and none named.
        LabelError: if only one class has labels, there are fewer labels than asked for, or other classes, or they were
            asked for another classifier.
    """

    stand_in = False

    def __init__(
        self,
        where: Path | str,
        *,
        project: str | None,
        classifier: str,
        class_names: tuple[str, ...],
        labelled: int | None,
        replicates: int,
        seed: int,
    ) -> None:
        found, decided, images = _read(where, project)
        classed = [one for one in decided if one.label not in (None, NOT_ANY)]
        # What nobody knows the source of may be a test image.
        usable = torch.tensor([one.image.origin != "test" or one.image.source != "" for one in classed])
        classed, images = [one for one, use in zip(classed, usable, strict=True) if use], images.select(usable)
        if images.class_names != class_names:
            raise LabelError(
                f"Expected labels of the classes of the classifier, {', '.join(class_names)}, but those of "
                f"{found.name!r} are {', '.join(images.class_names)}. Name the run that was labelled for it."
            )
        if found.classifier and not _same(found.classifier, classifier):
            raise LabelError(
                f"Expected labels that were asked for to teach {classifier}, but those of {found.name!r} were for "
                f"{found.classifier}, whose mistakes they are about. Name that with --classifier, or the labels of the "
                "other with --project or --labels."
            )
        images.require_two_classes()
        self._images = images
        self._priority = torch.tensor([one.image.priority for one in classed])
        group = _groups(classed)
        groups = int(group.max()) + 1
        order = torch.randperm(groups, generator=torch.Generator().manual_seed(step_seed(seed, 0)))
        folds = max(3, replicates) if replicates == 1 else replicates
        self._group = group
        self._folds = [torch.isin(group, order[fold::folds]).nonzero()[:, 0] for fold in range(folds)][:replicates]
        self._seed = seed
        least = len(images) - max(len(fold) for fold in self._folds)
        self._labelled = max(1, least // 2) if labelled is None else labelled
        if groups < 2 * folds or self._labelled >= least:
            alike = "" if groups == len(images) else f", made from {groups},"
            raise LabelError(
                f"Expected fewer than {least} labelled images to retrain on, since {len(images)}{alike} have a class "
                f"and {len(images) - least} of them are kept to measure on, but got {self._labelled}. Ask for fewer "
                "with --labelled, or label more."
            )
        people = {label.labeller for one in classed for label in one.labels}
        self.labeller = f"{len(people)} {'people' if len(people) > 1 else 'person'}"
        tied, not_any = sum(one.tied for one in decided), sum(one.label == NOT_ANY for one in decided)
        self.sources = frozenset(one.image.source for one in classed if one.image.source)
        unfinished, wanted = sum(one.unfinished for one in decided), found.labellers_per_image
        self.protocol = (
            f"The images are those of {found.name!r} with at least {wanted} label{'s' if wanted > 1 else ''} each, "
            f"of which one class is given more often than any other answer; {unfinished:,} with fewer labels, {tied:,} "
            f"on which people are tied and {not_any:,} that they put in no class are left out."
        )
        shared = max(0, 2 * self._labelled - least)
        self.protocol += (
            " Each replicate keeps another part of them to be measured on; what is left, largely the same in all, is "
            "parted by how much it should teach, and the control is drawn from what is not chosen"
            + (f", but for up to {shared:,} that are." if shared else ".")
        )
        if not usable.all():
            self.protocol += (
                f" Left out, too, are {int((~usable).sum()):,} that come from the images explained, without a record "
                "of which."
            )

    def sample(self, replicate: int) -> LabelledSample:
        """Part the labelled images for a replicate."""
        kept = self._folds[replicate]
        left = torch.ones(len(self._images), dtype=torch.bool)
        left[kept] = False
        rows = left.nonzero()[:, 0]
        rows = rows[self._priority[rows].argsort(descending=True, stable=True)]
        chosen, others = rows[: self._labelled], rows[self._labelled :]
        rng = torch.Generator().manual_seed(step_seed(self._seed, 1 + replicate))
        # Others first, and chosen ones only where there are not enough.
        control = torch.cat([part[torch.randperm(len(part), generator=rng)] for part in (others, chosen)])
        return LabelledSample(
            chosen=self._images.select(chosen),
            control=self._images.select(control[: self._labelled]),
            fresh=self._images.select(kept),
            fresh_group=self._group[kept],
        )

    def at_frontier_of(self, classifier: Classifier, replicate: int) -> ImageSet | None:
        """Return None: nobody is there to label more."""
        return None

    def fingerprint(self) -> str:
        """Return that of the labelled images."""
        return self._images.fingerprint()


def _same(one: str, other: str) -> bool:
    """Whether two specs are the same, or two paths lead to the same."""
    return one == other or (Path(one).exists() and Path(one).resolve() == Path(other).resolve())


def _groups(decided: "Sequence[Decision]") -> Int[Tensor, " N"]:
    """Number what images were made from; one that is like no other is a group by itself."""
    numbers: dict[str, int] = {}
    keys = [one.image.source or f"image {one.image.id}" for one in decided]
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])


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
            f"{error} `failscape serve RUN` asks for them in the browser, `failscape labels import RUN FILE` takes "
            "them over, and with --labeller a classifier labels generated images in place of people."
        ) from error
