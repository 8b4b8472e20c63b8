"""StyleGAN2 and its training step as they are usually written, on the very weights of our networks.

The measure of `benchmarks/stylegan2.py`: weights modulated sample by sample and convolved in groups, NCHW, float32,
noise and bias added by broadcasting, the passes of the official training loop one after the other. The layers, their
widths and their parameters are those of `failscape.generators.StyleGAN2` and its discriminator.
"""

import math
from copy import deepcopy
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from failscape.generators import StyleGAN2
from failscape.generators.discriminator import ProjectionDiscriminator

N = TypeVar("N", bound=nn.Module)
Order = Literal["usual", "ours"]
"""Of an up-sampling layer: "usual" enlarges and then convolves, "ours" convolves and then enlarges."""

_SLOPE, _GAIN = 0.2, math.sqrt(2)
_PENALTY_EVERY = 16


def draw(generator: StyleGAN2, z: Tensor, noise: Tensor, order: Order) -> Tensor:
    """Return the images of latents, before they are clipped."""
    styles = generator.styles(generator.mapping(z))
    sizes = [height * width for height, width in generator.noise_sizes]
    flat = noise.split(sizes, dim=1)
    maps = iter([each.unflatten(1, (1, *size)) for each, size in zip(flat, generator.noise_sizes, strict=True)])
    parts = iter(styles.split([layer.stop - layer.start for layer in generator.style_layers], dim=1))
    x: Tensor = generator.first.expand(len(z), -1, -1, -1)
    image: Tensor | None = None
    blocks: Any = generator.blocks
    for index, block in enumerate(blocks):
        for number, layer in enumerate(block.convolutions):
            up = index > 0 and number == 0
            y = _modulated(x, next(parts), layer.convolution, demodulate=True, up=up, order=order)
            y = y + layer.noise_strength[:, None, None] * next(maps) + layer.bias[:, None, None]
            x = F.leaky_relu(y, _SLOPE) * _GAIN
        added = _modulated(x, next(parts), block.to_image, demodulate=False, up=False, order=order)
        added = added + block.to_image.bias[:, None, None]
        image = added if image is None else _enlarged(image) + added
    assert image is not None
    return 0.5 + 0.5 * image


def score(discriminator: ProjectionDiscriminator, views: Tensor) -> Tensor:
    """Return one score an image, of its views, without a condition."""
    trunk: Any = discriminator.trunk
    x = F.leaky_relu(_convolved(2 * views - 1, trunk.from_image), _SLOPE)
    for block in trunk.blocks:
        y = F.leaky_relu(_convolved(x, block.first), _SLOPE)
        y = F.leaky_relu(_convolved(y, block.second), _SLOPE)
        x = y + _convolved(x, block.shortcut)
    x = _with_deviation(x)
    x = F.leaky_relu(_convolved(x, trunk.last), _SLOPE).flatten(1)
    scores: Tensor = discriminator.head.score(F.leaky_relu(trunk.flat(x), _SLOPE))
    return scores[:, 0]


class Usual:
    """The official training step: both networks' passes one after the other, images drawn twice.

    Args:
        generator: whose weights are copied.
        discriminator: whose weights are copied; without condition.
        order: of up-sampling layers.
        rate: learning rate.
        r1: weight of the gradient penalty on real images, which is scaled by 16 and meant for every 16th step.
    """

    def __init__(
        self, generator: StyleGAN2, discriminator: ProjectionDiscriminator, *, order: Order, rate: float, r1: float
    ) -> None:
        self.generator, self.discriminator = _plain(generator), _plain(discriminator)
        self._averaged = deepcopy(self.generator).requires_grad_(False)
        self._order, self._r1 = order, r1
        drawn = [p for name, p in self.generator.named_parameters() if not name.startswith("encoder.")]
        lazy = _PENALTY_EVERY / (_PENALTY_EVERY + 1)
        self._of_generator = torch.optim.Adam(drawn, lr=rate, betas=(0.0, 0.99))
        self._of_discriminator = torch.optim.Adam(
            self.discriminator.parameters(), lr=rate * lazy, betas=(0.0, 0.99**lazy)
        )

    def step(self, x: Tensor, rng: torch.Generator, *, penalty: bool) -> None:
        """Update both networks once, with or without the gradient penalty."""
        x = x.contiguous()
        self.discriminator.requires_grad_(False)
        fake = self._fake(len(x), rng)
        loss = F.softplus(-self._score(fake)).mean()
        self._update(self._of_generator, loss)
        self.discriminator.requires_grad_(True)

        with torch.no_grad():
            fake = self._fake(len(x), rng)
        self._of_discriminator.zero_grad(set_to_none=True)
        lost = F.softplus(self._score(fake)).mean()
        lost.backward()
        told = F.softplus(-self._score(x)).mean()
        told.backward()
        self._of_discriminator.step()
        if penalty:
            seen = self.discriminator.views(x).requires_grad_()
            (gradient,) = torch.autograd.grad(score(self.discriminator, seen).sum(), seen, create_graph=True)
            squared = gradient.square().sum(dim=(1, 2, 3)).mean()
            self._update(self._of_discriminator, 0.5 * self._r1 * _PENALTY_EVERY * squared)
        with torch.no_grad():
            for mean, parameter in zip(self._averaged.parameters(), self.generator.parameters(), strict=True):
                mean.lerp_(parameter, 0.001)
        # As every loop does, to log them.
        float(loss.detach()), float(lost.detach()), float(told.detach())

    def _score(self, x: Tensor) -> Tensor:
        return score(self.discriminator, self.discriminator.views(x))

    def _fake(self, n: int, rng: torch.Generator) -> Tensor:
        z = self.generator.sample_latents(n, rng=rng)
        return draw(self.generator, z, self.generator.draw_noise(n, rng=rng), self._order)

    def _update(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def _modulated(x: Tensor, s: Tensor, layer: Any, *, demodulate: bool, up: bool, order: Order) -> Tensor:
    """Convolve each image with its own weights: eq. 1 and 3 of the paper, the batch as groups."""
    n, inputs, _, _ = x.shape
    scale = 1 / math.sqrt(layer.weight[0].numel())
    weight = scale * layer.weight[None] * s[:, None, :, None, None]
    if demodulate:
        weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    if up and order == "usual":
        x = _enlarged(x)
    x = x.reshape(1, n * inputs, *x.shape[2:])
    y = F.conv2d(x, weight.flatten(0, 1), padding=layer.weight.shape[2] // 2, groups=n)
    y = y.unflatten(1, (n, -1))[0]
    return _enlarged(y) if up and order == "ours" else y


def _enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _convolved(x: Tensor, layer: Any) -> Tensor:
    return F.conv2d(x, layer.weight * layer._scale, layer.bias, layer._stride, layer._padding)


def _with_deviation(x: Tensor, group: int = 4) -> Tensor:
    n, _, height, width = x.shape
    grouped = x.unflatten(0, (n // group, group))
    deviation = (grouped.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    extra = deviation.repeat_interleave(group)[:, None, None, None].expand(n, 1, height, width)
    return torch.cat([x, extra], dim=1)


def _plain(network: N) -> N:
    """Return a copy with all weights in the default layout."""
    copy = deepcopy(network)
    for parameter in copy.parameters():
        parameter.data = parameter.data.contiguous()
    return copy
