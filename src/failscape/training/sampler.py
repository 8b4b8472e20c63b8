"""Endless shuffled batches whose whole state is one number."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


@runtime_checkable
class Order(Protocol):
    """Says which images come next, as a function of how many have been seen: a resumed training needs no more."""

    def indices(self, position: int, size: int) -> Int[Tensor, " size"]:
        """Return the indices of the `size` images that come after `position` images."""


class Sampler:
    """Goes through all images in a new order each epoch.

    The order of epoch $e$ is a function of (seed, $e$), so a checkpoint need only keep the images seen.

    Args:
        length: N, the number of images.
        seed: of all orders.

    Example:
        >>> sampler = Sampler(5, seed=0)
        >>> sorted(sampler.indices(0, 5).tolist())
        [0, 1, 2, 3, 4]
    """

    def __init__(self, length: int, *, seed: int) -> None:
        assert length > 0
        self._length = length
        self._seed = seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def indices(self, position: int, size: int) -> Int[Tensor, " size"]:
        """Return the indices of the `size` images that come after `position` images; may span epochs."""
        parts = [self._order[:0]]
        while size > 0:
            epoch, start = divmod(position, self._length)
            part = self._order_of(epoch)[start : start + size]
            parts.append(part)
            position += len(part)
            size -= len(part)
        return torch.cat(parts)

    def _order_of(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            mixed = np.random.SeedSequence((self._seed, epoch)).generate_state(1, np.uint64)
            rng = torch.Generator().manual_seed(int(mixed[0]))
            self._order = torch.randperm(self._length, generator=rng)
            self._epoch = epoch
        return self._order
