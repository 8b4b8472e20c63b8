"""Reference networks: small classifiers that train in minutes on a laptop.

Two unlike convolutional architectures, so that one can be the oracle of the other, and one of fully connected layers
for points. All take images in [0, 1] and normalise inside themselves; none uses batch normalisation, so an image's
logits do not depend on its batch.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PlainCNN(nn.Module):
    """Four strided convolutions and two linear layers; any image size from 8 px.

    Args:
        image_shape: `(C, H, W)`.
        num_classes: K.
        width: channels of the first layer; deeper layers have 2 ×, 4 × and 4 × as many.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int, width: int = 16) -> None:
        super().__init__()
        channels = image_shape[0]
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.GroupNorm(4, 2 * width),
            nn.SiLU(),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            nn.GroupNorm(4, 4 * width),
            nn.SiLU(),
            nn.Conv2d(4 * width, 4 * width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
        )
        # Each of the three strides halves a side, rounded up.
        flat = 4 * width * math.ceil(image_shape[1] / 8) * math.ceil(image_shape[2] / 8)
        self.head = nn.Sequential(nn.Linear(flat, 128), nn.SiLU(), nn.Linear(128, num_classes))

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
        """Return the logits."""
        logits: Tensor = self.head(self.features(2 * x - 1))
        return logits


class _ResidualBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, channels_in),
            nn.ReLU(),
            nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(8, channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        )
        same = stride == 1 and channels_in == channels_out
        self.shortcut: nn.Module = (
            nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.shortcut(x) + self.body(x)
        return y


class ResidualCNN(nn.Module):
    """A small pre-activation residual network with global average pooling; any image size from 8 px.

    Args:
        image_shape: `(C, H, W)`.
        num_classes: K.
        width: channels of the first stage, a multiple of 8; the next two stages have 2 × and 4 × as many.

    References:
        He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv2d(image_shape[0], width, 3, stride=2, padding=1, bias=False)
        self.stages = nn.Sequential(
            _ResidualBlock(width, width, stride=1),
            _ResidualBlock(width, 2 * width, stride=2),
            _ResidualBlock(2 * width, 2 * width, stride=1),
            _ResidualBlock(2 * width, 4 * width, stride=2),
        )
        self.head = nn.Sequential(
            nn.GroupNorm(8, 4 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, num_classes),
        )

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
        """Return the logits."""
        logits: Tensor = self.head(self.stages(self.stem((x - 0.5) / 0.25)))
        return logits


class FullyConnected(nn.Module):
    """Three hidden layers, for data of few dimensions: a point of the plane is an image of shape `(2, 1, 1)`.

    Args:
        image_shape: `(C, H, W)`, any.
        num_classes: K.
        width: of each hidden layer.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int, width: int = 64) -> None:
        super().__init__()
        widths = [math.prod(image_shape), width, width, width]
        hidden = [layer for sizes in pairwise(widths) for layer in (nn.Linear(*sizes), nn.SiLU())]
        self.layers = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, num_classes))

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
        """Return the logits."""
        logits: Tensor = self.layers((x - 0.5) / 0.25)
        return logits


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "plain-cnn": PlainCNN,
    "residual-cnn": ResidualCNN,
    "mlp": FullyConnected,
}


def build_network(architecture: str, *, seed: int | None = None, **sizes: Any) -> nn.Module:
    """Build a reference network, its first weights drawn from `seed` without touching the global generator."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return NETWORKS[architecture](**sizes)
