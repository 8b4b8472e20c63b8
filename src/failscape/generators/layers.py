"""Layers with equalised learning rates, shared by the adversarial families."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Keeps the variance of what a leaky ReLU of slope 0.2 lets through.
ACTIVATION_GAIN = math.sqrt(2)
_SLOPE = 0.2


def activate(x: Tensor) -> Tensor:
    """Apply the leaky ReLU of slope 0.2, in place where that saves time; its gain is in the weights before it."""
    # Writing into a view makes the backward pass copy all of it, several times.
    return F.leaky_relu(x, _SLOPE, inplace=not x._is_view())


class _Normalized(torch.autograd.Function):
    """Scales each row to a mean square of one; returns the scale beside it, so that both can be differentiated twice.

    Written out, since what autograd makes of the same formula passes over activations several times more: at 28 × 28
    pixels, 64 rows and 24 channels its backward pass took three times as long.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return `x * scale` and `scale`."""
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        scale = (norm.square_() / x.shape[1]).add_(1e-8).rsqrt_()
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y, scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, of_scale: Tensor) -> Tensor:
        """Take away what would change the length of a row."""
        y, scale = ctx.saved_tensors
        along = (gradient * y).mean(dim=1, keepdim=True) + of_scale * scale / y.shape[1]
        return torch.addcmul(gradient, y, along, value=-1).mul_(scale)


def normalized(x: Tensor) -> Tensor:
    """Scale each row to a mean square of one.

    Args:
        x: `(N, D)`, or `(N, D, H, W)`, of which each pixel is a row.
    """
    y: Tensor = _Normalized.apply(x)[0]  # type: ignore[no-untyped-call]
    return y


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1) -> Tensor:
    """Convolve with a kernel of one pixel, as a product of matrices.

    With the one or three channels of an image that is many times quicker on a CPU than `conv2d`.

    Args:
        x: `(N, C, H, W)`, quickest in `channels_last`.
        weight: `(O, C, 1, 1)`.
        bias: `(O,)`.
        stride: takes every so many pixels.
    """
    # The pixels are chosen with the channels last: so the gradient, too, is laid out that way.
    pixels = x.permute(0, 2, 3, 1)[:, ::stride, ::stride]
    y = F.linear(pixels, weight[:, :, 0, 0], None if bias is None else bias.to(weight.dtype))
    return y.permute(0, 3, 1, 2)


class EqualizedLinear(nn.Module):
    r"""A linear layer whose weights are of unit variance and scaled as they are used, $w / \sqrt{fan_{in}}$.

    So Adam moves all layers at one relative speed (Karras et al., "Progressive Growing of GANs", ICLR 2018).

    Args:
        inputs: width in.
        outputs: width out.
        bias: its first value.
        gain: multiplies the result's scale.
        rate: relative learning rate.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, gain: float = 1.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self._scale = gain * rate / math.sqrt(inputs)
        self._rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        bias = self.bias if self._rate == 1 else self.bias * self._rate
        return F.linear(x, self.weight * self._scale, bias)


class EqualizedConv(nn.Module):
    """A convolution whose weights are of unit variance and scaled as they are used, "same" padding.

    Args:
        inputs: channels in.
        outputs: channels out.
        size: of the kernel, odd.
        stride: of the convolution.
        bias: whether one is added.
        gain: multiplies the result's scale.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, *, stride: int = 1, bias: bool = True, gain: float = 1.0
    ) -> None:
        super().__init__()
        weight = torch.randn(outputs, inputs, size, size).contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self._scale = gain / math.sqrt(inputs * size * size)
        self._stride, self._padding = stride, size // 2

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution."""
        if self.weight.shape[2] == 1:
            return pointwise(x, self.weight * self._scale, self.bias, stride=self._stride)
        return F.conv2d(x, self.weight * self._scale, self.bias, self._stride, self._padding)


class MinibatchDeviation(nn.Module):
    """Appends one channel with the mean deviation within groups of the batch, so that sameness can be seen.

    Args:
        group: images a group, neighbours in the batch; a smaller divisor is taken where the batch is no multiple.

    References:
        Karras et al., "Progressive Growing of GANs", ICLR 2018, section 3.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        self._group = group

    def forward(self, x: Tensor) -> Tensor:
        """Return `(N, C + 1, H, W)`."""
        n, channels, height, width = x.shape
        group = math.gcd(self._group, n)
        grouped = x.float().reshape(n // group, group, channels, height, width)
        # A mean of squares: `var` over a leading axis is many times slower.
        centred = grouped - grouped.mean(dim=1, keepdim=True)
        deviation = (centred.square().mean(dim=1) + 1e-8).sqrt().mean(dim=(1, 2, 3))
        extra = deviation.repeat_interleave(group).to(x.dtype)[:, None, None, None].expand(n, 1, height, width)
        return torch.cat([x, extra], dim=1)
