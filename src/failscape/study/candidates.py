"""Images that somebody is to label: drawn by a generator or taken from a set, where a classifier is least sure."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.errors import DataError
from failscape.explain import to_8_bits
from failscape.generators import Condition, Generator
from failscape.labels import NOT_ANY, teaching_value
from failscape.study.fingerprint import classifier_digest, step_seed

_BLOCK = 512
# A stand-in that knows none of so many blocks in a row could as well know none at all.
_MOST_BLOCKS_IN_VAIN = 50


@final
@dataclass(frozen=True)
class Images:
    """Some images, and where they stand in the set that they are from, if they are from one."""

    x: Float[Tensor, "M C H W"]
    indices: Int[Tensor, " M"]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor) -> "Images":
        return Images(self.x[rows], self.indices[rows])


class Candidates(ABC):
    """Where images come from, and what stands in for the person who labels them.

    Attributes:
        labeller: the name of what labels; "" where nothing stands in for people.
        source: where the images come from, in words.
    """

    labeller: str
    source: str

    @abstractmethod
    def blocks(self, seed: int, *, part: int, parts: int) -> Iterator[Images]:
        """Yield images in random order, as 8-bit values in [0, 1]; no image occurs in two of the parts of a seed.

        Part p + parts is another go through part p: other draws where there is no end of them.
        """

    @abstractmethod
    def label(self, images: Images) -> Int[Tensor, " M"]:
        """Return the class of each image, or `NOT_ANY`."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a SHA-256 of what gives the labels."""

    def unsure(
        self, classifier: Classifier | None, *, one_in: int, seed: int, part: int, parts: int
    ) -> Iterator[Images]:
        """Yield, of each block, those that a classifier is least sure of: one in so many; without a classifier all."""
        for block in self.blocks(seed, part=part, parts=parts):
            if classifier is None:
                yield block
                continue
            value = teaching_value(classifier.probs(block.x))
            yield block[value.argsort(descending=True, stable=True)[: max(1, len(block) // one_in)]]

    def take(
        self, classifier: Classifier | None, count: int, *, one_in: int, seed: int, part: int, parts: int
    ) -> Images:
        """Return so many images to be labelled; the same whenever it is asked.

        Raises:
            DataError: if there are fewer.
        """
        found: list[Images] = []
        for images in self.unsure(classifier, one_in=one_in, seed=seed, part=part, parts=parts):
            found.append(images)
            if sum(map(len, found)) >= count:
                x, indices = torch.cat([each.x for each in found]), torch.cat([each.indices for each in found])
                return Images(x[:count], indices[:count])
        raise self._too_few(count, sum(map(len, found)))

    def take_labelled(
        self,
        classifier: Classifier | None,
        count: int,
        *,
        one_in: int,
        seed: int,
        part: int,
        parts: int,
        class_names: tuple[str, ...],
        name: str,
    ) -> ImageSet:
        """Return so many images that have a class, with it.

        Raises:
            DataError: if there are fewer.
        """
        images, labels, vain = [], [], 0
        for taken in self.unsure(classifier, one_in=one_in, seed=seed, part=part, parts=parts):
            y = self.label(taken)
            images.append(taken.x[y != NOT_ANY])
            labels.append(y[y != NOT_ANY])
            vain = 0 if len(labels[-1]) else vain + 1
            if sum(map(len, labels)) >= count:
                x, y = torch.cat(images)[:count], torch.cat(labels)[:count]
                ids = [f"{name}-{i:05d}" for i in range(count)]
                return ImageSet.from_tensors(x, y, class_names, ids, name=name)
            if vain == _MOST_BLOCKS_IN_VAIN:
                raise DataError(
                    f"Expected {self.labeller} to be sure enough of the class of some of the images drawn, but it is "
                    f"of none of {vain * _BLOCK:,}. Ask for less certainty."
                )
        raise self._too_few(count, sum(map(len, labels)))

    def _too_few(self, count: int, found: int) -> DataError:
        return DataError(
            f"Expected {count:,} images from {self.source}, but got {found:,}. Ask for fewer, or give more."
        )


@final
class GeneratedImages(Candidates):
    """What a generator draws; a network may label it in place of people.

    Args:
        generator: draws without end.
        labeller: names the class of an image.
        name: what to call the labeller.
        sure: an image of whose class the labeller is less sure belongs to none.
        ask: draws so many conditions; by default as those of the generator's training images are distributed.
    """

    def __init__(
        self,
        generator: Generator,
        labeller: Classifier | None = None,
        *,
        name: str = "",
        sure: float = 0.0,
        ask: Callable[[int, torch.Generator], Condition | None] | None = None,
    ) -> None:
        self.labeller = name
        self.source = "the generator"
        self._generator = generator
        self._labeller = labeller
        self._sure = sure
        space = generator.condition_space
        self._ask = ask or (lambda n, rng: None if space is None else space.sample(n, rng=rng))

    def blocks(self, seed: int, *, part: int, parts: int) -> Iterator[Images]:
        """Draw without end; every part has draws of its own."""
        rng = torch.Generator().manual_seed(step_seed(seed, part))
        while True:
            condition = self._ask(_BLOCK, rng)
            x = to_8_bits(self._generator.sample(_BLOCK, rng=rng, condition=condition))
            yield Images(x, torch.arange(_BLOCK))

    def label(self, images: Images) -> Int[Tensor, " M"]:
        """Return what the labeller takes each image for, if it is sure enough."""
        assert self._labeller is not None, "somebody must label"
        probability, label = self._labeller.probs(images.x).max(dim=1)
        return torch.where(probability >= self._sure, label, NOT_ANY)

    def fingerprint(self) -> str:
        """Return that of the labeller."""
        return "" if self._labeller is None else classifier_digest(self._labeller, self.labeller)


@final
class KnownImages(Candidates):
    """Images whose class is known, such as drawn faces by the attribute that they were drawn with.

    Args:
        images: labels numbered as the classes of the classifier.
        name: their spec.
    """

    def __init__(self, images: ImageSet, *, name: str) -> None:
        self.labeller = f"the known labels of {name}"
        self.source = name
        self._images = images

    def blocks(self, seed: int, *, part: int, parts: int) -> Iterator[Images]:
        """Go through a part of the images, in an order of the seed."""
        order = torch.randperm(len(self._images), generator=torch.Generator().manual_seed(step_seed(seed, 0)))
        for rows in order[part % parts :: parts].split(_BLOCK):
            yield Images(to_8_bits(self._images.read(rows)), rows)

    def label(self, images: Images) -> Int[Tensor, " M"]:
        """Return the known class of each image."""
        return self._images.y[images.indices]

    def fingerprint(self) -> str:
        """Return that of the images."""
        return self._images.fingerprint()
