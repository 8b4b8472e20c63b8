"""Endless shuffled batches whose whole state is one number."""

import math
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


class MixedSampler:
    r"""Goes through two sets that lie one behind the other, each in a new order each epoch of its own.

    Of the first $p$ images $\lfloor p s \rfloor$ are of the second set, so that every batch has its share.

    Args:
        first: images in the first set.
        second: images in the second set.
        share: $s$, of the second set among all that are seen, in [0, 1].
        seed: of all orders.

    Example:
        >>> sampler = MixedSampler(5, 3, share=0.25, seed=0)
        >>> sum(index >= 5 for index in sampler.indices(0, 8).tolist())
        2
    """

    def __init__(self, first: int, second: int, *, share: float, seed: int) -> None:
        assert 0 <= share <= 1
        assert first > 0 or share == 1
        assert second > 0 or share == 0
        self._offset = first
        self._share = share
        self._first = Sampler(first, seed=seed) if first else None
        self._second = Sampler(second, seed=seed) if second else None

    def indices(self, position: int, size: int) -> Int[Tensor, " size"]:
        """Return the indices of the `size` images that come after `position` images, those of the first set first."""
        before, after = (math.floor(place * self._share) for place in (position, position + size))
        parts = []
        if self._first is not None:
            parts.append(self._first.indices(position - before, size - (after - before)))
        if self._second is not None:
            parts.append(self._offset + self._second.indices(before, after - before))
        return torch.cat(parts)
