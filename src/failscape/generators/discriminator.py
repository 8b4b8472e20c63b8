"""What tells generated from real images, and the residual trunk that it shares with encoders."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from failscape.generators.condition import Condition, ConditionEncoding, ConditionSpace
from failscape.generators.layers import (
    ACTIVATION_GAIN,
    EqualizedConv,
    EqualizedLinear,
    MinibatchDeviation,
    activate,
    normalized,
)

# Contrasts below this deviation are raised less: images of 8 bits have hardly any.
_FAINTEST = 0.01


class _ResidualBlock(nn.Module):
    """Two convolutions, the second of stride 2, beside a shortcut that takes every second pixel.

    An averaged shortcut costs as much as a convolution on a CPU, for its backward pass.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # The two branches add up to unit variance: each is scaled by sqrt(1/2), the activations by sqrt(2).
        self.first = EqualizedConv(inputs, inputs, 3, gain=ACTIVATION_GAIN)
        self.second = EqualizedConv(inputs, outputs, 3, stride=2)
        self.shortcut = EqualizedConv(inputs, outputs, 1, stride=2, bias=False, gain=math.sqrt(0.5))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = activate(self.second(activate(self.first(x))))
        shortcut: Tensor = self.shortcut(x)
        return y + shortcut


class ResidualTrunk(nn.Module):
    """Residual blocks down to half the smallest resolution of a generator, then one layer: features of an image.

    Args:
        image_shape: `(C, H, W)`.
        channels: as the generator's, the smallest resolution first.
        deviation: append the minibatch deviation before the last convolution.
        contrast: look at each image a second time, brought to full contrast.

    Attributes:
        width: of the features.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        channels: Sequence[int],
        *,
        deviation: bool = False,
        contrast: bool = False,
    ) -> None:
        super().__init__()
        widths = [*reversed(channels), channels[0]]
        self._contrast = contrast
        self.from_image = EqualizedConv(image_shape[0] * (2 if contrast else 1), widths[0], 1)
        self.blocks = nn.Sequential(*(_ResidualBlock(a, b) for a, b in pairwise(widths)))
        self.deviation = MinibatchDeviation() if deviation else None
        self.last = EqualizedConv(widths[-1] + int(deviation), widths[-1], 3, gain=ACTIVATION_GAIN)
        sides = [_halved(side, len(channels)) for side in image_shape[1:]]
        self.width = 128
        self.flat = EqualizedLinear(widths[-1] * sides[0] * sides[1], self.width, gain=ACTIVATION_GAIN)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F"]:
        """Return the features of images in [0, 1]."""
        return self.features(self.views(x))

    def views(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N V H W"]:
        """Return images in [0, 1] as they are looked at."""
        return torch.cat([x, _contrasted(x)], dim=1) if self._contrast else x

    def features(self, views: Float[Tensor, "N V H W"]) -> Float[Tensor, "N F"]:
        """Return the features of what `views` returned."""
        return self.summarize(self.blocks(self._begin(views)))

    def maps(self, x: Float[Tensor, "N C H W"]) -> list[Tensor]:
        """Return what each block makes of images in [0, 1], the largest resolution first."""
        maps = [self._begin(self.views(x))]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps[1:]

    def summarize(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F"]:
        """Return the features that the last block's map is made into."""
        if self.deviation is not None:
            x = self.deviation(x)
        return activate(self.flat(activate(self.last(x)).flatten(1)))

    def _begin(self, views: Tensor) -> Tensor:
        return activate(self.from_image((2 * views - 1).contiguous(memory_format=torch.channels_last)))


@final
class ProjectionDiscriminator(nn.Module):
    r"""Scores images as real (positive) or generated, given what was asked for.

    $D(x, c) = v \cdot h(x) + \frac{1}{\sqrt{F}} e(c) \cdot h(x)$ with the features $h$ of a residual trunk and an
    embedding $e$ of the condition.

    It looks at each image twice, the second time brought to full contrast. A heavily blurred digit is a faint blob,
    whose class is in differences of a hundredth; a network that looks once, in bfloat16, is blind to them.

    Args:
        image_shape: `(C, H, W)`.
        channels: as the generator's, the smallest resolution first.
        space: of the conditions, if any.
        concatenate: give the condition to the head beside the features in place of the projection, as the paper's
            baseline does.
        seen: width of what else is known of each image, such as a classifier's features; 0 if nothing is.

    References:
        Miyato and Koyama, "cGANs with Projection Discriminator", ICLR 2018.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        channels: Sequence[int],
        space: ConditionSpace | None,
        *,
        concatenate: bool = False,
        seen: int = 0,
    ) -> None:
        super().__init__()
        self.trunk = ResidualTrunk(image_shape, channels, deviation=True, contrast=True)
        width = self.trunk.width
        self.head = ConditionalHead(width, space, concatenate=concatenate)
        if seen:
            self.perceive = nn.ModuleList(EqualizedLinear(n, width, gain=ACTIVATION_GAIN) for n in (seen, width))
            self.mix = EqualizedLinear(2 * width, width, gain=ACTIVATION_GAIN)

    def views(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N V H W"]:
        """Return images in [0, 1] as they are looked at: what gradient penalties refer to."""
        return self.trunk.views(x)

    def forward(
        self, views: Float[Tensor, "N V H W"], condition: Condition | None, seen: Float[Tensor, "N F"] | None = None
    ) -> Float[Tensor, " N"]:
        """Return one score an image.

        Args:
            views: of the images, as `views` returns them.
            condition: what was asked for, if the discriminator has conditions.
            seen: what else is known of each, if the discriminator was made for that.
        """
        features = self.trunk.features(views)
        if seen is not None:
            seen = seen.to(features.dtype)
            for layer in self.perceive:
                seen = activate(layer(seen))
            features = activate(self.mix(torch.cat([features, seen.to(features.dtype)], dim=1)))
        score: Tensor = self.head(features, condition)
        return score


@final
class ConditionalHead(nn.Module):
    """From features and a condition to one score.

    Args:
        width: of the features.
        space: of the conditions, if any.
        concatenate: in place of the projection.
    """

    def __init__(self, width: int, space: ConditionSpace | None, *, concatenate: bool = False) -> None:
        super().__init__()
        self.encoding = None if space is None else ConditionEncoding(space)
        extra = 0 if self.encoding is None else self.encoding.width
        self._concatenate = concatenate and extra > 0
        self._scale = 1 / math.sqrt(width)
        if self._concatenate:
            self.hidden = EqualizedLinear(width + extra, width)
        elif extra:
            self.embed = nn.ModuleList([EqualizedLinear(extra, width), EqualizedLinear(width, width)])
        self.score = EqualizedLinear(width, 1)

    def forward(self, features: Float[Tensor, "N F"], condition: Condition | None) -> Float[Tensor, " N"]:
        """Return one score an image, in float32."""
        features = features.float()
        if self.encoding is None:
            return self._score(features)
        assert condition is not None, "a conditional discriminator is given conditions"
        encoded = self.encoding(condition)
        if self._concatenate:
            return self._score(activate(self.hidden(torch.cat([features, encoded], dim=1))))
        embedded = normalized(self.embed[1](activate(self.embed[0](encoded))).float())
        return self._score(features) + self._scale * (embedded * features).sum(dim=1)

    def _score(self, features: Tensor) -> Tensor:
        score: Tensor = self.score(features)
        return score[:, 0].float()


def _contrasted(x: Tensor) -> Tensor:
    """Return images brought to a mean and a deviation of one half."""
    centred = x - x.mean(dim=(1, 2, 3), keepdim=True)
    return 0.5 + 0.5 * centred * (centred.square().mean(dim=(1, 2, 3), keepdim=True) + _FAINTEST**2).rsqrt()


def _halved(side: int, times: int) -> int:
    for _ in range(times):
        side = math.ceil(side / 2)
    return side
