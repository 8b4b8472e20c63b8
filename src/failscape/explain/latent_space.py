"""The latents of a generator in units of its prior, where searches move."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.explain.method import to_8_bits
from failscape.generators import Autoencoder, Condition, Generator, StyleGenerator

_BATCH = 500
# Of the middle and the deviation of W, which are known by draws alone.
_DRAWS = 4096
_NARROWEST = 1e-6


@final
class LatentSpace:
    """Latents in units of the prior's deviation about its middle.

    Of a generator with styles they are those of W, of which middle and deviation are those of 4,096 draws. Of one with
    a condition they are drawn for all its classes alike, since what lies between classes belongs to none. Without
    styles the condition is no part of the latent: it is given beside it, and the same for all points.

    Args:
        generator: draws the images.
        rng: draws what middle and deviation are measured on.
        condition: of all points, one row, for a generator that has a condition and no styles.
    """

    def __init__(self, generator: Generator, *, rng: torch.Generator, condition: Condition | None = None) -> None:
        self._generator = generator
        self._condition = condition
        self._middle, self._scale = torch.zeros(generator.latent_dim), torch.ones(generator.latent_dim)
        if isinstance(generator, StyleGenerator):
            w = self._latents(_DRAWS, rng)
            self._middle, self._scale = w.mean(dim=0), w.std(dim=0).clamp_min(_NARROWEST)

    @torch.no_grad()
    def sample(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "N D"]:
        """Draw points from the prior."""
        return (self._latents(n, rng) - self._middle) / self._scale

    def draw(self, points: Float[Tensor, "N D"]) -> Float[Tensor, "N C H W"]:
        """Return the images of points, differentiable."""
        generator, latents = self._generator, points * self._scale + self._middle
        if isinstance(generator, StyleGenerator):
            return generator.synthesize(generator.styles(latents))
        condition = None if self._condition is None else self._condition[torch.zeros(len(points), dtype=torch.long)]
        images: Tensor = generator(latents, condition)
        return images

    @torch.no_grad()
    def drawn(self, points: Float[Tensor, "N D"]) -> Float[Tensor, "N C H W"]:
        """Return their 8-bit images."""
        return torch.cat([to_8_bits(self.draw(part)) for part in points.split(_BATCH)])

    def on_prior(self, points: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Return the points of the same images that the prior may draw; of W, the points themselves."""
        return points if isinstance(self._generator, StyleGenerator) else self._generator.on_prior(points)

    def log_prior(self, points: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Return the log-density of the prior at points, in nats; of W that of a normal distribution as wide."""
        return self._generator.log_prior(points)

    def _latents(self, n: int, rng: torch.Generator) -> Tensor:
        z = self._generator.sample_latents(n, rng=rng)
        if not isinstance(self._generator, StyleGenerator):
            return z
        space = self._generator.condition_space
        condition: Condition | None = None
        if space is not None:
            classes = space.classes
            condition = space.of_classes(classes[torch.randint(len(classes), (n,), generator=rng)])
        rows = torch.arange(n).split(_BATCH)
        return torch.cat(
            [self._generator.mapping(z[part], None if condition is None else condition[part]) for part in rows]
        )


@torch.no_grad()
def realism_of(generator: Generator, images: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    """Return the score that the generator's critic gives each image; NaN where it keeps none."""
    scores = [generator.realism(part) for part in images.split(_BATCH)]
    known = [score for score in scores if score is not None]
    return torch.cat(known) if len(known) == len(scores) else torch.full((len(images),), torch.nan)


@torch.no_grad()
def encoded_log_prior(generator: Generator, images: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    """Return the log-density of the generator's prior at the encoded latent of each image; NaN without an encoder."""
    if not isinstance(generator, Autoencoder):
        return torch.full((len(images),), torch.nan)
    return torch.cat([generator.log_prior(generator.encode(part)) for part in images.split(_BATCH)])
