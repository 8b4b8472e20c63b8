"""The synthesis of StyleGAN2 as the paper writes it: each image has its own weights, convolved in groups.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, section 2.2. The weights are those of
a `StyleGAN2`, read by their names in its state. One thing is taken over from it: where a layer enlarges, the
convolution comes first.
"""

import math
from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional as F

from failscape.generators import StyleGAN2


def modulated_convolution(x: Tensor, weight: Tensor, s: Tensor, *, demodulate: bool, enlarge: bool = False) -> Tensor:
    """Return the convolution of image n with the weights of image n.

    Args:
        x: `(N, I, H, W)`.
        weight: `(O, I, k, k)`, of unit variance.
        s: `(N, I)`.
        demodulate: scale each image's weights to unit norm, output by output.
        enlarge: double height and width after the convolution.
    """
    n, inputs, height, width = x.shape
    outputs, _, size, _ = weight.shape
    own = weight / math.sqrt(inputs * size * size) * s[:, None, :, None, None]
    if demodulate:
        own = own / (own.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()
    grouped = x.reshape(1, n * inputs, height, width)
    y = F.conv2d(grouped, own.reshape(n * outputs, inputs, size, size), padding=size // 2, groups=n)
    y = y.reshape(n, outputs, height, width)
    return twice_as_large(y) if enlarge else y


def twice_as_large(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def synthesize(generator: StyleGAN2, s: Tensor, noise: Tensor) -> Tensor:
    """Return the images of styles, not clipped to [0, 1]."""
    state = generator.state_dict()
    layers = iter(generator.style_layers)
    maps = _maps(generator, noise)
    x = state["first"].expand(len(s), -1, -1, -1)
    image: Tensor | None = None
    for block in range(len(generator.config["channels"])):
        for number in range(2 if block else 1):
            layer, name = next(layers), f"blocks.{block}.convolutions.{number}"
            weight, own = state[f"{name}.convolution.weight"], s[:, layer.start : layer.stop]
            y = modulated_convolution(x, weight, own, demodulate=True, enlarge=block > 0 and number == 0)
            y = y + state[f"{name}.noise_strength"][:, None, None] * next(maps) + state[f"{name}.bias"][:, None, None]
            x = math.sqrt(2) * F.leaky_relu(y, 0.2)
        layer, name = next(layers), f"blocks.{block}.to_image"
        added = modulated_convolution(x, state[f"{name}.weight"], s[:, layer.start : layer.stop], demodulate=False)
        added = added + state[f"{name}.bias"][:, None, None]
        image = added if image is None else twice_as_large(image) + added
    assert image is not None
    return 0.5 + 0.5 * image


def _maps(generator: StyleGAN2, noise: Tensor) -> Iterator[Tensor]:
    """Return the noise maps `(N, 1, H, W)`, in order."""
    start = 0
    for layer in generator.style_layers:
        if layer.kind == "convolution":
            height, width = layer.resolution
            yield noise[:, start : start + height * width].reshape(-1, 1, height, width)
            start += height * width
    assert start == noise.shape[1]
