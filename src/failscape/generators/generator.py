"""What draws images: the base classes of every generator family."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from failscape.errors import GeneratorError, UnsupportedGenerator


class Generator(nn.Module, ABC):
    """Turns latents into images.

    A family is one subclass in one file. It keeps the keyword arguments of its constructor in `config`, so that
    `save` and `load_generator` can build it again.

    Attributes:
        family: the name under which the family is saved.
        config: the constructor's arguments.
        latent_dim: D, the length of a latent.
        image_shape: `(C, H, W)` of what it draws.
    """

    family: ClassVar[str]
    config: dict[str, Any]
    latent_dim: int
    image_shape: tuple[int, int, int]

    @abstractmethod
    def forward(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N C H W"]:
        """Draw the images of the latents, in [0, 1]."""

    def sample_latents(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "N D"]:
        """Draw latents from the prior, by default a standard normal distribution."""
        return torch.randn(n, self.latent_dim, generator=rng)

    @torch.no_grad()
    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """Draw images of latents from the prior."""
        images: Tensor = self(self.sample_latents(n, rng=rng))
        return images

    def check_latents(self, z: Tensor) -> None:
        """Refuse latents of another length.

        Raises:
            GeneratorError: if `z` is not `(N, D)`.
        """
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise GeneratorError(f"Expected latents of shape (N, {self.latent_dim}), but got {tuple(z.shape)}.")


class Autoencoder(Generator):
    """A generator that also has an encoder from images to latents."""

    @abstractmethod
    def encode(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D"]:
        """Return the latent of each image; for a distribution over latents, its mean."""


def require_autoencoder(generator: Generator, method: str) -> Autoencoder:
    """Return the generator as an `Autoencoder`.

    Raises:
        UnsupportedGenerator: if it cannot encode images.
    """
    if not isinstance(generator, Autoencoder):
        raise UnsupportedGenerator(
            f"Expected a generator with an encoder for {method}, but {type(generator).__name__} has none. "
            "Use a variational autoencoder: `failscape train vae` makes one."
        )
    return generator
