"""What people say most often of each image, and the images with these labels as a set to train on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.data import ImageSet
from failscape.data.encoded import ImageDecoder
from failscape.errors import LabelStoreError
from failscape.labels.agreement import consensus
from failscape.labels.records import NOT_ANY, Event, LabelImage, Project
from failscape.labels.store import LabelStore


@final
@dataclass(frozen=True, kw_only=True)
class Decision:
    """What people said of an image.

    Attributes:
        image: the image.
        labels: those that hold, of everybody.
        label: what is said more often than anything else: a class, or `NOT_ANY`; None where that is a tie, or labels
            are missing.
        least: labels that an image must have to be decided.
    """

    image: LabelImage
    labels: tuple[Event, ...]
    label: int | None
    least: int

    @property
    def unfinished(self) -> bool:
        """Whether there are labels, but fewer than are needed."""
        return 0 < len(self.labels) < self.least

    @property
    def tied(self) -> bool:
        """Whether there are labels enough, but two answers or more were given most often."""
        return len(self.labels) >= self.least and self.label is None

    @property
    def differs(self) -> bool:
        """Whether people decided, and on something else than the classifier's class."""
        return self.label is not None and self.label != self.image.prediction


def decisions(store: LabelStore, project_id: str, *, least: int | None = None) -> tuple[Decision, ...]:
    """Return what people said of each image of a project, in the order in which the images were stored.

    Args:
        store: where from.
        project_id: the project.
        least: labels that an image must have to be decided; by default as many as the project asks for.

    Raises:
        NotInStore: if there is no such project.
        LabelStoreError: if `least` is less than 1.
    """
    least = store.project(project_id).labellers_per_image if least is None else least
    if least < 1:
        raise LabelStoreError(f"Expected at least 1 label an image, but got {least}.")
    images = store.images(project_id)
    by_image: dict[str, list[Event]] = {image.id: [] for image in images}
    for label in store.labels(project_id):
        by_image[label.image_id].append(label)
    return tuple(
        Decision(
            image=image,
            labels=tuple(by_image[image.id]),
            label=consensus([label.label for label in by_image[image.id] if label.label is not None], least=least),
            least=least,
        )
        for image in images
    )


def project_of(store: LabelStore, name: str | None) -> Project:
    """Return the project with a name or an id, or without one the only project that there is.

    Raises:
        NotInStore: if there is no such project.
        LabelStoreError: if none is named and there are none, or several.
    """
    if name is not None:
        return store.project(name)
    projects = store.projects()
    if len(projects) != 1:
        names = ", ".join(repr(project.name) for project in projects) or "none"
        raise LabelStoreError(f"Expected one project in {store.name}, but got {names}. Name one with --project.")
    return projects[0]


def labelled_images(store: LabelStore, project_id: str, *, least: int | None = None) -> ImageSet:
    """Return the images that people gave a class, with that class as the label.

    Images that are unfinished, tied, in no class, or not labelled are left out; `decisions` tells which. The ids are
    the names of the images.

    Args:
        store: where from.
        project_id: the project.
        least: labels that an image must have to be decided; by default as many as the project asks for.

    Raises:
        NotInStore: if there is no such project.
        LabelStoreError: if no image has a class, or `least` is less than 1.
    """
    every = decisions(store, project_id, least=least)
    decided = [one for one in every if one.label not in (None, NOT_ANY)]
    project = store.project(project_id)
    if not decided:
        unfinished = sum(one.unfinished for one in every)
        fewer = f"; {unfinished:,} have fewer labels than are needed" if unfinished else ""
        raise LabelStoreError(
            f"Expected labelled images in {project.name!r}, but no image has a class yet{fewer}. Label some first."
        )
    return ImageSet(
        _StoredImages(store, [one.image for one in decided]),
        torch.tensor([one.label for one in decided]),
        project.class_names,
        ids=[one.image.name for one in decided],
        name=project.name,
    )


class _StoredImages:
    """Reads images from the store when they are needed."""

    def __init__(self, store: LabelStore, images: Sequence[LabelImage]) -> None:
        self._store = store
        self._images = images
        self._decoder = ImageDecoder(store.png(images[0].id), images[0].name)
        self.image_shape = self._decoder.image_shape

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: Int[Tensor, " N"]) -> Float[Tensor, "N C H W"]:
        chosen = [self._images[i] for i in indices.tolist()]
        return torch.stack([self._decoder.decode(self._store.png(image.id), image.name) for image in chosen])
