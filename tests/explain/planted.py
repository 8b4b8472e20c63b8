"""Decoders and classifiers of which everything is known by analysis."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.generators import Autoencoder, Condition

SHAPE = (1, 4, 4)
GREY = 128 / 255

# Each latent brightens one quadrant of the image.
QUADRANTS = torch.zeros(4, 4, 4)
for _k, (_row, _column) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
    QUADRANTS[_k, _row : _row + 2, _column : _column + 2] = 1

# One latent brightens the whole image, the other makes the left half brighter than the right.
PLANE = torch.stack([torch.ones(4, 4), torch.tensor([1.0, 1.0, -1.0, -1.0]).expand(4, 4)])


class Linear(Autoencoder):
    """g(z) = grey + z · patterns, with orthogonal patterns, so that the encoder is its exact inverse."""

    family: ClassVar[str] = "planted"

    def __init__(self, patterns: Tensor, scale: float = 0.1) -> None:
        super().__init__()
        self.config, self.latent_dim, self.image_shape = {}, len(patterns), SHAPE
        self.register_buffer("weight", scale * patterns.flatten(1))

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        self.check_latents(z)
        self.check_condition(condition, len(z))
        return (GREY + z @ self.weight).clamp(0, 1).unflatten(1, SHAPE)

    def encode(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - GREY) @ self.weight.T / self.weight.square().sum(dim=1)


def grey_images(n: int = 3) -> Tensor:
    return torch.full((n, *SHAPE), GREY)


def classes_by(*scores: Callable[[Tensor], Tensor]) -> Classifier:
    """Wrap a classifier whose logits are these functions of `(N, H, W)` grey values."""

    def logits(x: Tensor) -> Tensor:
        return torch.stack([score(x[:, 0]) for score in scores], dim=1)

    return Classifier(logits, image_shape=SHAPE, name="planted")


def never(x: Tensor) -> Tensor:
    """Score a class that no image has."""
    return 0 * x.mean(dim=(1, 2)) - 100


def brighter_than(grey: float, slope: float = 20.0) -> Classifier:
    """Wrap a classifier whose class 1 is the images of a larger mean than `grey`, and class 2 none."""
    return classes_by(
        lambda x: 0 * x.mean(dim=(1, 2)),
        lambda x: slope * (x.mean(dim=(1, 2)) - grey),
        never,
    )
