"""Accuracy of several classifiers on the same test images, as they are and corrupted."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.explain import CorruptionTable
from failscape.generators import Generator

_BATCH = 500


def right_on(classifiers: Sequence[Classifier], images: ImageSet) -> Bool[Tensor, "A M"]:
    """Return which images each classifier gets right; each image is read once."""
    right = [
        torch.stack([each.predict(batch.x) == batch.y for each in classifiers]) for batch in images.batches(_BATCH)
    ]
    return torch.cat(right, dim=1)


def right_corrupted(
    classifiers: Sequence[Classifier], generator: Generator, images: ImageSet, *, count: int, rng: torch.Generator
) -> Float[Tensor, "A L"]:
    """Return in what share of the corruptions and severities each classifier gets each of some images right.

    Args:
        classifiers: at least one.
        generator: any of the images' shape; nothing is drawn.
        images: of which some are corrupted, the same for all classifiers.
        count: how many, at most.
        rng: draws which, and the corruptions.
    """
    rows = torch.randperm(len(images), generator=rng)[:count].sort().values
    x, y = images.read(rows), images.y[rows]
    first, *others = classifiers
    table = CorruptionTable(others=tuple(others), samples=max(1, len(rows)))
    return table(first, generator, x, y, rng=rng).corrupted.float()
