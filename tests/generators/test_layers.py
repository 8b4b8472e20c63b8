import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from failscape.generators.layers import (
    ACTIVATION_GAIN,
    EqualizedConv,
    EqualizedLinear,
    MinibatchDeviation,
    activate,
    normalized,
    pointwise,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(kind: type[Any], *sizes: int, **options: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return kind(*sizes, **options)


# Activations.


def test_activation_is_a_leaky_relu_and_its_gain_keeps_the_mean_square() -> None:
    x = randn(100_000)
    y = activate(x.clone())
    assert torch.equal(y, torch.where(x > 0, x, 0.2 * x))
    # Exactly, the mean square is (1 + 0.2²) / 2: the field's gain of √2 leaves 1.04.
    assert float((ACTIVATION_GAIN * y).square().mean()) == pytest.approx(1.04, abs=0.02)


def test_activation_leaves_a_view_alone_and_writes_into_anything_else() -> None:
    x = randn(4, 6)
    view = x.view(6, 4)
    before = x.clone()
    activate(view)
    assert torch.equal(x, before)
    assert activate(x).data_ptr() == x.data_ptr()


def test_normalised_rows_have_a_mean_square_of_one() -> None:
    x = 7 * randn(5, 9)
    assert torch.allclose(normalized(x).square().mean(dim=1), torch.ones(5), atol=1e-5)
    assert torch.allclose(normalized(3 * x), normalized(x), atol=1e-6)
    assert normalized(torch.zeros(2, 9)).eq(0).all()


def test_normalising_is_differentiated_twice_as_its_formula_is() -> None:
    x = torch.randn(2, 5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).view_as(x)

    def written_out(x: Tensor) -> Tensor:
        return x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()

    def penalty(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return the gradient, and that of the gradient's square."""
        (gradient,) = torch.autograd.grad((function(x).sin() * weight).sum(), x, create_graph=True)
        return gradient, torch.autograd.grad(gradient.square().sum(), x)[0]

    for ours, theirs in zip(penalty(normalized), penalty(written_out), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(normalized, x)
    assert torch.autograd.gradgradcheck(normalized, x)


# Convolutions of one pixel.


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pointwise_is_a_convolution(
    stride: int, size: tuple[int, int], biased: bool, layout: torch.memory_format
) -> None:
    x = randn(3, 4, *size).double().contiguous(memory_format=layout).requires_grad_()
    weight, bias = randn(5, 4, 1, 1).double().requires_grad_(), randn(5).double().requires_grad_()
    given = bias if biased else None
    y, expected = pointwise(x, weight, given, stride=stride), F.conv2d(x, weight, given, stride=stride)
    assert torch.allclose(y, expected, rtol=1e-12)
    inputs = (x, weight, bias) if biased else (x, weight)
    gradients, wanted = (torch.autograd.grad(each.square().sum(), inputs) for each in (y, expected))
    assert all(torch.allclose(one, other, rtol=1e-10) for one, other in zip(gradients, wanted, strict=True))


# Equalised layers.


@pytest.mark.parametrize("gain", [1.0, ACTIVATION_GAIN])
def test_equalised_layers_keep_unit_variance(gain: float) -> None:
    x = randn(400, 50)
    # The weights are one draw of 64 × 50: the deviation is known to a few hundredths.
    y = made(EqualizedLinear, 50, 64, gain=gain)(x).detach()
    assert float(y.std()) == pytest.approx(gain, rel=0.05)
    pixels = randn(40, 12, 16, 16)
    for size in (1, 3):
        y = made(EqualizedConv, 12, 64, size, gain=gain)(pixels).detach()
        assert float(y[..., 1:-1, 1:-1].std()) == pytest.approx(gain, rel=0.08)


def test_a_relative_learning_rate_changes_the_weights_alone_not_what_is_computed() -> None:
    x = randn(300, 50)
    slow, plain = made(EqualizedLinear, 50, 64, rate=0.1, bias=0.5), made(EqualizedLinear, 50, 64, bias=0.5)
    assert torch.allclose(slow(x), plain(x), atol=1e-5)
    assert torch.allclose(slow.weight, 10 * plain.weight)
    # A step of Adam, the same for every weight, is felt a tenth as much.
    with torch.no_grad():
        for layer in (slow, plain):
            for parameter in layer.parameters():
                parameter.add_(0.1)
    start = made(EqualizedLinear, 50, 64, bias=0.5)(x)
    assert torch.allclose(slow(x) - start, 0.1 * (plain(x) - start), atol=1e-4)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_equalised_convolution_is_a_convolution_with_scaled_weights(size: int, stride: int) -> None:
    layer = made(EqualizedConv, 4, 5, size, stride=stride, gain=1.5)
    with torch.no_grad():
        layer.bias.copy_(randn(5))
    x = randn(2, 4, 7, 6)
    weight = layer.weight * 1.5 / math.sqrt(4 * size * size)
    assert torch.allclose(layer(x), F.conv2d(x, weight, layer.bias, stride, size // 2), atol=1e-5)
    assert made(EqualizedConv, 4, 5, size, bias=False).bias is None


# Minibatch deviation.


def test_minibatch_deviation_is_the_mean_deviation_of_each_group() -> None:
    x = randn(8, 3, 5, 4)
    y = MinibatchDeviation()(x)
    assert y.shape == (8, 4, 5, 4)
    assert torch.equal(y[:, :3], x)
    for group in (slice(0, 4), slice(4, 8)):
        expected = x[group].std(dim=0, unbiased=False).mean()
        assert torch.allclose(y[group, 3], expected.expand(4, 5, 4), atol=1e-5)


@pytest.mark.parametrize(("n", "group"), [(8, 4), (6, 2), (5, 1), (4, 4), (2, 2), (1, 1)])
def test_groups_divide_the_batch_and_never_mix(n: int, group: int) -> None:
    x = randn(n, 3, 4, 4)
    before = MinibatchDeviation()(x)[:, 3, 0, 0]
    for changed in range(n):
        other = x.clone()
        other[changed] += randn(3, 4, 4, seed=2)
        moved = MinibatchDeviation()(other)[:, 3, 0, 0] != before
        expected = torch.arange(n) // group == changed // group
        assert torch.equal(moved, expected if group > 1 else torch.zeros(n, dtype=torch.bool))


def test_minibatch_deviation_of_equal_images_has_a_finite_gradient() -> None:
    x = torch.ones(4, 2, 3, 3, requires_grad=True)
    y = MinibatchDeviation()(x)
    assert y[:, 2].max() < 1e-3
    (gradient,) = torch.autograd.grad(y[:, 2].sum(), x)
    assert gradient.isfinite().all()


def test_minibatch_deviation_has_the_gradient_of_finite_differences() -> None:
    x = randn(4, 2, 3, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: MinibatchDeviation()(x)[:, 2], (x,), eps=1e-2, atol=1e-3)
