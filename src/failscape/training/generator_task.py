"""What the trainings of generators share: an averaged generator that is judged and saved."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.errors import ClassifierError
from failscape.generators import Condition, Generator, save_generator
from failscape.training.distributed import workers
from failscape.training.task import Task


class GeneratorTask(Task):
    """A task that ends in a generator, of which samples can be drawn at any time.

    Attributes:
        half: save the weights as float16.
    """

    half: bool

    @property
    @abstractmethod
    def judged(self) -> Generator:
        """The averaged generator, on the CPU, where latents are drawn and classifiers judge."""

    def export(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """Save the averaged generator as `generator.safetensors` and `generator.json`."""
        save_generator(self.judged, folder, provenance=provenance, half=self.half)

    def learnt_conditions(self, n: int, *, rng: torch.Generator) -> Condition | None:
        """Draw the conditions of `n` images learnt from; None, the default, for a generator without condition."""
        return None


def check_oracle(oracle: Classifier, images: ImageSet, class_names: Sequence[str]) -> None:
    """Refuse an oracle that cannot judge the images.

    Raises:
        ClassifierError: if it takes images of another shape, or knows other classes.
    """
    if oracle.image_shape != images.image_shape or oracle.class_names != tuple(class_names):
        raise ClassifierError(
            f"Expected an oracle for images of shape {images.image_shape} and the classes {tuple(class_names)}, but "
            f"{oracle.name} takes {oracle.image_shape} and knows {oracle.class_names}. Train one on the same images."
        )


def adam(parameters: Iterable[nn.Parameter], *, beta1: float = 0.0, beta2: float = 0.99) -> torch.optim.Adam:
    """Return the optimiser of an adversarial game, by default without momentum; its rate is set at each step."""
    return torch.optim.Adam(list(parameters), betas=(beta1, beta2), eps=1e-8, fused=True)


def update(optimizer: torch.optim.Optimizer, backward: Callable[[], Any], parameters: Iterable[nn.Parameter]) -> None:
    """Let an optimiser make one step along the gradients that `backward` leaves, averaged over all processes."""
    optimizer.zero_grad(set_to_none=True)
    backward()
    workers().average_gradients(parameters)
    optimizer.step()
