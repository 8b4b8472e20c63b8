"""Several processes that train one network: who I am, which rows are mine, sums over all, decisions for all.

Started by `torchrun`, each process works on its share of every batch and the gradients are averaged. All random
draws are made for the whole batch by every process, which keeps its own rows; so the losses are those of one
process with the same total batch, up to rounding. The first process alone writes files and evaluates.
"""

import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, final

import torch
from torch import Tensor, distributed

from failscape.errors import FailscapeError, TrainingError

T = TypeVar("T")

# The others wait while the first evaluates or downloads; gloo's half an hour is too short for that.
_PATIENCE = timedelta(hours=4)


@final
@dataclass(frozen=True, kw_only=True)
class Workers:
    """The processes of a training.

    Attributes:
        rank: number of this one.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share_of(self, batch: int) -> slice:
        """Return which rows of a whole batch are mine: neighbours, as many as each of the others has.

        Raises:
            TrainingError: if the batch cannot be divided evenly.
        """
        if batch % self.world:
            raise TrainingError(
                f"Expected batches that {self.world} processes can share evenly, but got one of {batch} images. Choose "
                f"`batch` and `images` as multiples of {self.world}."
            )
        size = batch // self.world
        return slice(self.rank * size, (self.rank + 1) * size)

    def mine(self, draw: Callable[[int], Tensor], n: int) -> Tensor:
        """Draw for the whole batch and return my `n` rows, so that all processes stay in step."""
        return draw(n * self.world)[self.rank * n : (self.rank + 1) * n]

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace all gradients by their means over the processes, in one exchange."""
        if self.world == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        with _exchange():
            distributed.all_reduce(flat)
        flat /= self.world
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over the processes."""
        if self.world == 1:
            return value
        total = value.detach().clone()
        with _exchange():
            distributed.all_reduce(total)
        return total / self.world

    def agree(self, decide: Callable[[], T]) -> T:
        """Let the first process decide, or do, something, and return what it returns in all.

        Meanwhile the first is alone: `workers` says so, and so does `torch.distributed` to libraries such as
        torchmetrics, which would else gather from processes that do not take part, and never end.

        Raises:
            FailscapeError: in all, if the first process raises one.
        """
        if self.world == 1:
            return decide()
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                with _alone():
                    outcome[0] = decide()
            except FailscapeError as error:
                outcome[1] = error
        with _exchange():
            distributed.broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        decision: T = outcome[0]
        return decision

    def in_turn(self, work: Callable[[], T]) -> T:
        """Let the first process work, then the others, which find what it has left: a download is made once.

        Raises:
            FailscapeError: in all, if the first process raises one.
        """
        done: list[T] = []
        self.agree(lambda: done.append(work()))
        return done[0] if done else work()


@contextmanager
def _alone() -> Iterator[None]:
    group, distributed.group.WORLD = distributed.group.WORLD, None
    try:
        yield
    finally:
        distributed.group.WORLD = group


@contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            "Expected all processes of the training to go on, but one has ended or was not heard of for "
            f"{_PATIENCE.total_seconds() / 3600:.0f} hours. See its message, mend the cause, and go on with --resume."
        ) from error


def workers() -> Workers:
    """Return the processes of this training: one, unless within `process_group`."""
    if not distributed.is_initialized():
        return Workers()
    return Workers(rank=distributed.get_rank(), world=distributed.get_world_size())


def find_device(name: str) -> torch.device:
    """Return the device that this process computes on: of several processes on a machine, each has its own GPU.

    Args:
        name: "cpu", "cuda" or "cuda:N".

    Raises:
        TrainingError: if there is no such device, or several processes are to share one GPU.
    """
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise TrainingError(
            f"Expected a CUDA device for device = {name!r}, but this PyTorch ({torch.__version__}) finds none. Train "
            "with --device cpu, or install the driver and a PyTorch built for it."
        )
    _, _, number = name.partition(":")
    if number and _world() > 1:
        raise TrainingError(
            f"Expected device = 'cuda' for several processes, each of which takes a GPU of its own, but got {name!r}."
        )
    index, count = int(number or os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise TrainingError(
            f"Expected CUDA devices up to number {index}, but this machine has {count}. Name another device, or start "
            "fewer processes."
        )
    return torch.device("cuda", index)


@contextmanager
def process_group(device: str) -> Iterator[Workers]:
    """Join the processes that `torchrun` started, if it did; otherwise be alone.

    Raises:
        TrainingError: if this process has no such device.
    """
    found = find_device(device)
    if _world() == 1 or distributed.is_initialized():
        yield workers()
        return
    if found.type == "cuda":
        torch.cuda.set_device(found)
    # The first step of an optimiser imports this too. Imported while there is a group it keeps the group (torch 2.13),
    # whose threads outlive it and now and then abort the process at its exit.
    importlib.import_module("torch._dynamo")
    distributed.init_process_group("cpu:gloo,cuda:nccl" if found.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield workers()
    finally:
        distributed.destroy_process_group()


def _world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
