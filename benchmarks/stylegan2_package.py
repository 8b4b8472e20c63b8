"""PyPI's `stylegan2-pytorch` 1.9.0, made to run where it says it cannot: without CUDA and without torchvision.

It is installed without its dependencies into a folder outside the environment; what a training step does not use
(command line, tracker, image folders, quantisation) is replaced by empty modules. Its own `Trainer.train` is timed.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from tempfile import gettempdir
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from apart import make_importable
from torch import Tensor, nn

_REQUIREMENTS = ("stylegan2-pytorch==1.9.0", "einops==0.8.1", "kornia==0.8.1", "kornia_rs", "tqdm")
_EMPTY = ("fire", "aim", "torchvision", "torchvision.transforms", "vector_quantize_pytorch")
# Trainer.train makes its penalty at every step whose number is a multiple of 4, and saves and draws at others.
_WITH_PENALTY, _WITHOUT_PENALTY = 4, 1


class Package:
    """Its trainer, of networks with one number of channels at all resolutions, which is what both sides can have.

    Args:
        size: of the images, a power of two.
        channels: at every resolution.
        batch: images a step.
        style_dim: length of its latents.
        style_depth: layers of its mapping.
    """

    # The share of steps with a penalty is fixed in its code.
    penalty_every = 4

    def __init__(self, *, size: int, channels: int, batch: int, style_dim: int, style_depth: int) -> None:
        with _on_the_cpu():
            module = _imported()
            # It forgets `fmap_max` where it copies its generator, so that the copy does not fit.
            whole = module.Generator
            module.Generator = lambda *arguments, **options: whole(*arguments, **({"fmap_max": channels} | options))
            self._trainer = module.Trainer(
                base_dir=gettempdir(),
                image_size=size,
                network_capacity=channels // 2,
                fmap_max=channels,
                batch_size=batch,
                mixed_prob=0.0,
                latent_dim=style_dim,
                style_depth=style_depth,
            )
            self._trainer.init_GAN()
        self.generator: nn.Module = self._trainer.GAN.G
        self.mapping: nn.Module = self._trainer.GAN.S
        self.discriminator: nn.Module = self._trainer.GAN.D

    def step(self, x: Tensor, *, penalty: bool) -> None:
        """Update both of its networks once."""
        self._trainer.loader = iter([x.clone()])
        self._trainer.steps = _WITH_PENALTY if penalty else _WITHOUT_PENALTY
        with _on_the_cpu():
            self._trainer.train()

    def draw(self, n: int) -> Tensor:
        """Return images, drawn without their mapping."""
        network: Any = self.generator
        styles = torch.zeros(n, network.num_layers, network.latent_dim)
        images: Tensor = network(styles, torch.rand(n, network.image_size, network.image_size, 1))
        return images


def _imported() -> Any:
    make_importable("stylegan2-pytorch", *_REQUIREMENTS)
    for name in _EMPTY:
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore[attr-defined]
    sys.modules["vector_quantize_pytorch"].VectorQuantize = None  # type: ignore[attr-defined]
    return import_module("stylegan2_pytorch.stylegan2_pytorch")


@contextmanager
def _on_the_cpu() -> Iterator[None]:
    """Let `.cuda()` leave everything where it is, and let the package believe that there is a GPU."""

    def same(thing: Any, *_: Any) -> Any:
        return thing

    with (
        patch.object(torch.cuda, "is_available", lambda: True),
        patch.object(Tensor, "cuda", same),
        patch.object(nn.Module, "cuda", same),
    ):
        yield
