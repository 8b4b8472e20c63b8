"""What draws images: the base classes of every generator family."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from failscape.errors import GeneratorError, UnsupportedGenerator
from failscape.generators.condition import Condition, ConditionSpace

LayerKind = Literal["convolution", "image"]
"""Of a layer with styles; an image layer adds to the image."""


class Generator(nn.Module, ABC):
    """Turns latents into images.

    A family is one subclass in one file. It keeps the keyword arguments of its constructor in `config`, so that
    `save` and `load_generator` can build it again.

    Attributes:
        family: the name under which the family is saved.
        config: the constructor's arguments.
        latent_dim: D, the length of a latent.
        image_shape: `(C, H, W)` of what it draws.
        condition_space: what it can be asked for; None for a generator without condition.
    """

    family: ClassVar[str]
    condition_space: ConditionSpace | None = None
    config: dict[str, Any]
    latent_dim: int
    image_shape: tuple[int, int, int]

    @abstractmethod
    def forward(self, z: Float[Tensor, "N D"], condition: Condition | None = None) -> Float[Tensor, "N C H W"]:
        """Draw the images of the latents, in [0, 1].

        Raises:
            GeneratorError: if latents or conditions are not what the generator takes.
        """

    def sample_latents(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "N D"]:
        """Draw latents from the prior, by default a standard normal distribution."""
        return torch.randn(n, self.latent_dim, generator=rng)

    def on_prior(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Return the latents that the prior may draw and that give the same images; by default, these themselves.

        Where only a part of a latent counts, a search moves the rest for nothing, and its length is no distance.
        """
        return z

    def log_prior(self, z: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Return the log-density of the prior at each latent, in nats; for the prior that `sample_latents` draws."""
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1)

    def realism(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"] | None:
        """Return the score that the critic gives each image, the higher the more it looks like the training images.

        Scores of one critic can be compared with each other, and mean nothing else. By default None: the family keeps
        no critic.
        """
        return None

    @torch.no_grad()
    def sample(self, n: int, *, rng: torch.Generator, condition: Condition | None = None) -> Float[Tensor, "N C H W"]:
        """Draw images of latents from the prior."""
        images: Tensor = self(self.sample_latents(n, rng=rng), condition)
        return images

    def check_latents(self, z: Tensor) -> None:
        """Refuse latents of another length.

        Raises:
            GeneratorError: if `z` is not `(N, D)`.
        """
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise GeneratorError(
                f"Expected latents of shape (N, {self.latent_dim}), but got {tuple(z.shape)}. "
                "`sample_latents` draws them."
            )

    def check_images(self, x: Tensor) -> None:
        """Refuse images of another shape.

        Raises:
            GeneratorError: if `x` is not `(N, *image_shape)`.
        """
        if tuple(x.shape[1:]) != self.image_shape:
            raise GeneratorError(
                f"Expected images of shape {self.image_shape} (C, H, W), but got {tuple(x.shape[1:])}. "
                "Use a generator that was trained on images of that shape."
            )

    def check_condition(self, condition: Condition | None, n: int) -> None:
        """Refuse a missing condition, one too many, or one that is not understood.

        Raises:
            GeneratorError: saying what the generator takes.
        """
        space = self.condition_space
        if space is None:
            if condition is not None:
                raise GeneratorError(
                    f"Expected no condition, but got {len(condition)}: this {self.family} was trained without. "
                    "Leave it out."
                )
        elif condition is None:
            raise GeneratorError(
                f"Expected a condition, class and {space.score}, but got none: this {self.family} was trained with "
                "it. Pass a failscape.generators.Condition."
            )
        else:
            space.check(condition, n)


class Autoencoder(Generator):
    """A generator that also has an encoder from images to latents."""

    @abstractmethod
    def encode(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D"]:
        """Return the latent of each image; for a distribution over latents, its mean."""


@final
@dataclass(frozen=True, kw_only=True)
class StyleLayer:
    """Which styles belong to one layer.

    Attributes:
        kind: what the layer does.
        start: index of its first style.
        stop: index after its last one.
        resolution: `(H, W)` of its output.
    """

    kind: LayerKind
    start: int
    stop: int
    resolution: tuple[int, int]


class StyleGenerator(Autoencoder):
    """A generator whose latents become styles, each of which can be set and differentiated.

    `forward(z, condition)` is `synthesize(styles(mapping(z, condition)))`.

    Attributes:
        style_layers: which styles belong to which layer, in order.
        noise_dim: P, the values of all noise maps of an image.
    """

    style_layers: tuple[StyleLayer, ...]
    noise_dim: int

    @property
    def style_dim(self) -> int:
        """S, the number of styles."""
        return self.style_layers[-1].stop

    @abstractmethod
    def mapping(self, z: Float[Tensor, "N D"], condition: Condition | None = None) -> Float[Tensor, "N W"]:
        """Return the intermediate latents."""

    @abstractmethod
    def styles(self, w: Float[Tensor, "N W"]) -> Float[Tensor, "N S"]:
        """Return the styles of all layers, side by side."""

    @abstractmethod
    def synthesize(
        self, s: Float[Tensor, "N S"], noise: Float[Tensor, "#N P"] | None = None
    ) -> Float[Tensor, "N C H W"]:
        """Draw the images of styles, in [0, 1]; one row of `noise` serves all, and so does none."""

    @abstractmethod
    def draw_noise(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "N P"]:
        """Draw the noise maps of `n` images, side by side."""

    def shared_noise(self) -> Float[Tensor, "1 P"]:
        """Return the noise maps that serve every image which is given none of its own."""
        return self.draw_noise(1, rng=torch.Generator().manual_seed(0))


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


def require_styles(generator: Generator, method: str) -> StyleGenerator:
    """Return the generator as a `StyleGenerator`.

    Raises:
        UnsupportedGenerator: if it has no styles.
    """
    if not isinstance(generator, StyleGenerator):
        raise UnsupportedGenerator(
            f"Expected a generator with styles for {method}, but {type(generator).__name__} has none. Use a "
            "StyleGAN2: `failscape train gan` makes one."
        )
    return generator
