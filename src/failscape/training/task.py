"""What is trained: its networks, its optimisers, and what one step does."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from failscape.data import ImageSet
from failscape.errors import CheckpointError
from failscape.training.checkpoint import restore_layout
from failscape.training.ema import update_average
from failscape.training.sampler import Order, Sampler


class Task(ABC):
    """One thing to be trained by `train`, of any number of networks and optimisers.

    A task draws random numbers from the loop's `rng` alone; then a resumed training ends with the same bits.

    Attributes:
        networks: all trained parts.
        averaged: moving averages of some or all of them, under the same names.
        optimizers: by name.
    """

    networks: nn.ModuleDict
    averaged: nn.ModuleDict
    optimizers: dict[str, torch.optim.Optimizer]

    @abstractmethod
    def step(
        self, x: Float[Tensor, "N C H W"], y: Int[Tensor, " N"], *, progress: float, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Update the networks once.

        Args:
            x: images.
            y: labels.
            progress: the part of all images that was seen before this step, in [0, 1].
            rng: the source of every random draw.

        Returns:
            The losses as scalars, by name.
        """

    def sampler(self, images: ImageSet, seed: int) -> Order:
        """Return the order in which images are seen; by default each once an epoch, shuffled."""
        return Sampler(len(images), seed=seed)

    @abstractmethod
    def evaluate(self, images: ImageSet) -> dict[str, float]:
        """Return what the averaged networks reach on `images`; the same numbers whenever it is called."""

    @abstractmethod
    def export(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """Save the averaged networks in `folder` as what a user loads."""

    def average(self, decay: float) -> None:
        """Let the averages follow the networks."""
        for name, average in self.averaged.items():
            update_average(average, self.networks[name], decay)

    def is_finite(self) -> bool:
        """Tell whether all weights are finite."""
        return all(bool(parameter.isfinite().all()) for parameter in self.networks.parameters())

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint must keep; a task with more state than this adds it."""
        return {
            "networks": dict(self.networks.state_dict()),
            "averaged": dict(self.averaged.state_dict()),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned.

        Raises:
            CheckpointError: if it is the state of other networks or optimisers.
        """
        try:
            self.networks.load_state_dict(state["networks"])
            self.averaged.load_state_dict(state["averaged"])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
                restore_layout(optimizer)
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"Expected a checkpoint of this task, but its content does not fit: "
                f"{str(error).partition(chr(10))[0]}. Resume with the version of failscape that "
                "wrote it, or start again in a new folder."
            ) from error
