"""StyleGAN2 for small images, quick on a CPU, with an encoder."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from failscape.errors import GeneratorError
from failscape.generators.condition import Condition, ConditionEncoding, ConditionSpace
from failscape.generators.discriminator import ResidualTrunk
from failscape.generators.generator import LayerKind, StyleGenerator, StyleLayer
from failscape.generators.layers import ACTIVATION_GAIN, EqualizedLinear, activate, normalized

_KERNEL = 3
# The mean latent follows each batch of a training by so much.
_MEAN_RATE = 0.005


@final
class StyleGAN2(StyleGenerator):
    r"""The StyleGAN2 generator: mapping, styles, synthesis with modulated convolutions and skip outputs.

    Images are `base·2ⁿ` pixels high and wide, one entry of `channels` a resolution, the smallest first: 28 px from
    7 with three entries. Three changes make it quick where channels are few:

    - Activations are modulated and demodulated in place of the weights, which is the same function,
      $\sum_i (w_{oi} s_i) x_i = \sum_i w_{oi} (s_i x_i)$, and needs no convolution grouped by sample. The learned
      constant is convolved once for all images.
    - Up-sampling layers convolve first and enlarge after, a quarter of the work.
    - Everything is `channels_last`.

    The condition enters the mapping. The encoder finds the latent of an image.

    Args:
        image_shape: `(C, H, W)`.
        channels: feature maps at each resolution, the smallest first.
        encoder_channels: the same of the encoder; by default as many.
        latent_dim: D, the length of `z`.
        style_dim: W, the length of `w`.
        mapping_layers: of the mapping network.
        condition: arguments of its `ConditionSpace`, or None for a generator without condition.

    Raises:
        GeneratorError: if the sizes do not fit each other.

    References:
        Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020.
        Wu et al., "StyleSpace Analysis", CVPR 2021: the space of styles.
    """

    family: ClassVar[str] = "stylegan2"

    def __init__(
        self,
        *,
        image_shape: Sequence[int],
        channels: Sequence[int] = (96, 48, 24),
        encoder_channels: Sequence[int] | None = None,
        latent_dim: int = 64,
        style_dim: int = 128,
        mapping_layers: int = 2,
        condition: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        base = _base_size(image_shape, channels)
        encoding = channels if encoder_channels is None else encoder_channels
        if min(encoding, default=0) < 1:
            raise GeneratorError(
                f"Expected one positive number of `encoder_channels` a resolution, but got {tuple(encoding)}."
            )
        if min(latent_dim, style_dim, mapping_layers) < 1:
            raise GeneratorError(
                "Expected a positive `latent_dim`, `style_dim` and number of `mapping_layers`, but got "
                f"{latent_dim}, {style_dim}, {mapping_layers}."
            )
        self.condition_space = None if condition is None else ConditionSpace(**condition)
        self.config = {
            "image_shape": list(image_shape),
            "channels": list(channels),
            "encoder_channels": list(encoding),
            "latent_dim": latent_dim,
            "style_dim": style_dim,
            "mapping_layers": mapping_layers,
            "condition": None if self.condition_space is None else self.condition_space.config,
        }
        self.latent_dim = latent_dim
        self.image_shape = (int(image_shape[0]), int(image_shape[1]), int(image_shape[2]))
        self.to_w = _Mapping(latent_dim, style_dim, mapping_layers, self.condition_space)
        self.mean_w: Tensor
        self.register_buffer("mean_w", torch.zeros(style_dim))
        self.first = nn.Parameter(torch.randn(1, channels[0], *base).contiguous(memory_format=torch.channels_last))
        self.blocks = nn.ModuleList(
            _Block(before, after, self.image_shape[0], enlarge=index > 0)
            for index, (before, after) in enumerate(pairwise([channels[0], *channels]))
        )
        self.style_layers = _layout(self.blocks, base)
        self.to_styles = EqualizedLinear(style_dim, self.style_dim, bias=1.0)
        self.encoder = _Encoder(self.image_shape, encoding, latent_dim)
        self.noise_sizes = [layer.resolution for layer in self.style_layers if layer.kind == "convolution"]
        self.noise_dim = sum(height * width for height, width in self.noise_sizes)

    def mapping(self, z: Float[Tensor, "N D"], condition: Condition | None = None) -> Float[Tensor, "N W"]:
        """Return the intermediate latents."""
        self.check_latents(z)
        self.check_condition(condition, len(z))
        w: Tensor = self.to_w(z, condition)
        return w

    def truncate(self, w: Float[Tensor, "N W"], psi: float) -> Float[Tensor, "N W"]:
        """Pull intermediate latents toward their mean over the training: 1 leaves them, 0 gives the mean.

        References:
            Karras et al., "A Style-Based Generator Architecture for GANs", CVPR 2019, appendix B.
        """
        return torch.lerp(self.mean_w, w, psi)

    def follow_mean(self, w: Float[Tensor, "N W"]) -> None:
        """Move the mean that `truncate` pulls to a little toward that of a batch; a training does so at each step."""
        self.mean_w.lerp_(w.float().mean(dim=0), _MEAN_RATE)

    def styles(self, w: Float[Tensor, "N W"]) -> Float[Tensor, "N S"]:
        """Return the styles of all layers, side by side; `style_layers` says which belongs where."""
        s: Tensor = self.to_styles(w)
        return s

    def synthesize(
        self, s: Float[Tensor, "N S"], noise: Float[Tensor, "#N P"] | None = None
    ) -> Float[Tensor, "N C H W"]:
        """Draw the images of styles, in [0, 1].

        Args:
            s: styles of all layers.
            noise: all noise maps side by side, as `draw_noise` gives them, one row an image or one for all; by default
                the same for every image.

        Raises:
            GeneratorError: if styles or noise have another shape.
        """
        if s.ndim != 2 or s.shape[1] != self.style_dim:
            raise GeneratorError(
                f"Expected styles of shape (N, {self.style_dim}), but got {tuple(s.shape)}. `styles` returns them, and "
                "`style_layers` says which belongs where."
            )
        if noise is not None and tuple(noise.shape) not in {(len(s), self.noise_dim), (1, self.noise_dim)}:
            raise GeneratorError(
                f"Expected noise of shape {(len(s), self.noise_dim)}, or (1, {self.noise_dim}) for all images, but got "
                f"{tuple(noise.shape)}. `draw_noise` draws it."
            )
        return self.draw(s, noise).clamp(0, 1)

    def draw(self, s: Float[Tensor, "N S"], noise: Float[Tensor, "#N P"] | None = None) -> Float[Tensor, "N C H W"]:
        """Draw as `synthesize` does, without clipping to [0, 1]: what the training differentiates."""
        if noise is None:
            # No buffer, which would have to be saved: the same few thousand numbers each time.
            noise = self.shared_noise().to(s.device)
        dtype = torch.get_autocast_dtype(s.device.type) if torch.is_autocast_enabled(s.device.type) else s.dtype
        # One constant serves all images; scaled by each image's styles it becomes a batch.
        x, factor = self.first.to(dtype), s.new_ones(())
        image: Tensor | None = None
        sizes = [height * width for height, width in self.noise_sizes]
        maps = iter(noise.to(dtype).expand(len(s), -1).split(sizes, dim=1))
        parts = iter(s.split([layer.stop - layer.start for layer in self.style_layers], dim=1))
        for block in self.blocks:
            x, factor, image = block(x, factor, image, parts, maps)
        assert image is not None
        return 0.5 + 0.5 * image.float()

    def forward(
        self,
        z: Float[Tensor, "N D"],
        condition: Condition | None = None,
        *,
        noise: Float[Tensor, "#N P"] | None = None,
        psi: float = 1.0,
    ) -> Float[Tensor, "N C H W"]:
        """Draw the images of the latents, in [0, 1].

        Args:
            z: latents.
            condition: what is asked of each.
            noise: as for `synthesize`.
            psi: truncation; 1 is none.
        """
        w = self.mapping(z, condition)
        return self.synthesize(self.styles(w if psi == 1 else self.truncate(w, psi)), noise)

    def draw_noise(self, n: int, *, rng: torch.Generator) -> Float[Tensor, "N P"]:
        """Draw the noise maps of `n` images, side by side."""
        return torch.randn(n, self.noise_dim, generator=rng)

    @torch.no_grad()
    def sample(
        self, n: int, *, rng: torch.Generator, condition: Condition | None = None, psi: float = 1.0
    ) -> Float[Tensor, "N C H W"]:
        """Draw images of latents and noise maps from their priors."""
        z = self.sample_latents(n, rng=rng)
        return self(z, condition, noise=self.draw_noise(n, rng=rng), psi=psi)  # type: ignore[no-any-return]

    def encode(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D"]:
        """Return the latent of each image; with its condition and `forward` it gives the image back, but for noise.

        Raises:
            GeneratorError: if the images have another shape than `image_shape`.
        """
        self.check_images(x)
        z: Tensor = self.encoder(x)
        return z


class _Mapping(nn.Module):
    """From latents and conditions to intermediate latents."""

    def __init__(self, latent_dim: int, style_dim: int, layers: int, space: ConditionSpace | None) -> None:
        super().__init__()
        self.encoding = None if space is None else ConditionEncoding(space)
        self.embed = None if self.encoding is None else EqualizedLinear(self.encoding.width, style_dim)
        width = latent_dim if space is None else latent_dim + style_dim
        widths = [width, *[style_dim] * layers]
        # A tenth of the learning rate: the paper takes a hundredth, for deeper mappings. The gain is the activation's.
        self.layers = nn.ModuleList(
            EqualizedLinear(a, b, gain=ACTIVATION_GAIN if i else 1.0, rate=0.1)
            for i, (a, b) in enumerate(pairwise(widths))
        )

    def forward(self, z: Tensor, condition: Condition | None) -> Tensor:
        w = normalized(z)
        if self.encoding is not None and self.embed is not None:
            assert condition is not None, "checked at the border"
            w = torch.cat([w, normalized(self.embed(self.encoding(condition)))], dim=1)
        for layer in self.layers:
            w = activate(layer(w))
        return w


class _ModulatedConv(nn.Module):
    r"""A convolution whose input is scaled by styles, and the scales that bring its output back to unit variance.

    $y_o = d_o \sum_i w_{oi} * (s_i x_i)$ with $d_o = (\sum_{ikl} (w_{oikl} s_i)^2 + \epsilon)^{-1/2}$: eq. 1
    and 3 of the StyleGAN2 paper with the scales moved from the weights to the activations.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        weight = torch.randn(outputs, inputs, _KERNEL, _KERNEL).contiguous(memory_format=torch.channels_last)
        self.weight = nn.Parameter(weight)
        self._scale = 1 / math.sqrt(inputs * _KERNEL**2)

    def forward(self, x: Float[Tensor, "M I H W"], s: Float[Tensor, "N I"]) -> Float[Tensor, "N O H W"]:
        """Return the convolution of the scaled input, before demodulation; one input may serve all styles."""
        weight, s = (self.weight * self._scale).to(x.dtype), s.to(x.dtype)
        if len(x) == 1 < len(s):
            return self._of_one(x, weight, s)
        return F.conv2d(x * s[:, :, None, None], weight, padding=_KERNEL // 2)

    def demodulation(self, s: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """Return the scales that bring the output back to unit variance, in float32."""
        with torch.autocast(s.device.type, enabled=False):
            squares = self.weight.float().square().sum(dim=(2, 3)) * self._scale**2
            return (s.float().square() @ squares.T + 1e-8).rsqrt()

    def _of_one(self, x: Tensor, weight: Tensor, s: Tensor) -> Tensor:
        r"""Convolve one input for all styles at once: $\sum_i s_{ni} (w_{oi} * x_i)$, the brackets made only once.

        With a batch of 64 that takes a fifth of the time of as many convolutions.
        """
        _, inputs, height, width = x.shape
        patches = F.unfold(x, _KERNEL, padding=_KERNEL // 2).view(inputs, _KERNEL**2, height * width)
        kernels = weight.permute(1, 2, 3, 0).flatten(1, 2)
        brackets = patches.transpose(1, 2) @ kernels
        return (s @ brackets.flatten(1)).view(len(s), height, width, len(weight)).permute(0, 3, 1, 2)


class _ModulatedPixels(nn.Module):
    """A convolution of one pixel with weights scaled by styles: what a layer adds to the image.

    So few outputs make weights fewer than activations, and each image's own a product of matrices.
    """

    def __init__(self, inputs: int, colours: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(colours, inputs, 1, 1).contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.zeros(colours))
        self._scale = 1 / math.sqrt(inputs)

    def forward(self, x: Float[Tensor, "N I H W"], s: Float[Tensor, "N I"]) -> Float[Tensor, "N O H W"]:
        n, _, height, width = x.shape
        weight = s[:, :, None] * (self.weight[:, :, 0, 0].T * self._scale)
        # In float32 from the bias on: near black, which is -1, steps of bfloat16 are as large as those of faint images.
        y = x.permute(0, 2, 3, 1).flatten(1, 2) @ weight.to(x.dtype) + self.bias
        return y.view(n, height, width, len(self.weight)).permute(0, 3, 1, 2)


class _StyledConv(nn.Module):
    """A modulated convolution, enlarged or not, with noise, bias and activation.

    Noise is as strong as each feature map learns: so some can carry grain, and others, clean edges, none.
    """

    def __init__(self, inputs: int, outputs: int, *, enlarge: bool) -> None:
        super().__init__()
        self.convolution = _ModulatedConv(inputs, outputs)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(outputs))
        self._enlarge = enlarge

    def forward(self, x: Tensor, factor: Tensor, s: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return activations and the factor `(N, O)` that they lack, which the styles after them take over.

        A leaky ReLU $f$ lets a positive factor pass: $f(g (d y + b)) = g d f(y + b / d)$. So demodulation $d$ and
        gain $g$ are no multiplication of all activations, but one of the next layers' styles.
        """
        y = self.convolution(x, s * factor)
        if self._enlarge:
            y = _enlarged(y)
        d = self.convolution.demodulation(s)
        # Noise and bias as one product of matrices, pixels × [noise, 1] · [strength; bias]: adding them by
        # broadcasting takes ten times as long on a CPU.
        given = torch.stack([noise, torch.ones_like(noise)], dim=2)
        added = torch.stack([self.noise_strength, self.bias]) / d[:, None]
        n, channels, height, width = y.shape
        pixels = torch.baddbmm(y.permute(0, 2, 3, 1).flatten(1, 2), given, added.to(y.dtype))
        return activate(pixels).view(n, height, width, channels).permute(0, 3, 1, 2), ACTIVATION_GAIN * d


class _Block(nn.Module):
    """All layers of one resolution: one or two convolutions, and what they add to the image.

    Attributes:
        layers: kind and number of styles of each layer, in order.
    """

    def __init__(self, inputs: int, outputs: int, colours: int, *, enlarge: bool) -> None:
        super().__init__()
        widths = [inputs, outputs] if enlarge else [outputs]
        self.layers: list[tuple[LayerKind, int]] = [*(("convolution", width) for width in widths), ("image", outputs)]
        self.convolutions = nn.ModuleList(
            _StyledConv(width, outputs, enlarge=enlarge and index == 0) for index, width in enumerate(widths)
        )
        self.to_image = _ModulatedPixels(outputs, colours)

    def forward(
        self, x: Tensor, factor: Tensor, image: Tensor | None, styles: Iterator[Tensor], noise: Iterator[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return activations, the factor that they lack, and the image so far.

        Takes from `styles` and `noise` what its layers need.
        """
        for convolution in self.convolutions:
            x, factor = convolution(x, factor, next(styles), next(noise))
        added = self.to_image(x, next(styles) * factor)
        if image is not None:
            added = added + _enlarged(image)
        return x, factor, added


class _Encoder(nn.Module):
    """From images to latents on the sphere that the mapping normalises to."""

    def __init__(self, image_shape: tuple[int, int, int], channels: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.trunk = ResidualTrunk(image_shape, channels)
        self.head = EqualizedLinear(self.trunk.width, latent_dim)

    def forward(self, x: Tensor) -> Tensor:
        return normalized(self.head(self.trunk(x)).float())


def _layout(blocks: nn.ModuleList, base: tuple[int, int]) -> tuple[StyleLayer, ...]:
    """Return which styles belong to which layer."""
    layers, start = [], 0
    for index, block in enumerate(blocks):
        assert isinstance(block, _Block)
        resolution = (base[0] * 2**index, base[1] * 2**index)
        for kind, width in block.layers:
            layers.append(StyleLayer(kind=kind, start=start, stop=start + width, resolution=resolution))
            start += width
    return tuple(layers)


def _base_size(image_shape: Sequence[int], channels: Sequence[int]) -> tuple[int, int]:
    if len(image_shape) != 3 or min(image_shape) < 1 or not channels or min(channels) < 1:
        raise GeneratorError(
            "Expected a (C, H, W) `image_shape` and one positive number of `channels` a resolution, but got "
            f"{tuple(image_shape)} and {tuple(channels)}."
        )
    factor = 2 ** (len(channels) - 1)
    height, width = int(image_shape[1]), int(image_shape[2])
    if height % factor or width % factor:
        raise GeneratorError(
            f"Expected images of base·{factor} pixels for {len(channels)} resolutions, but got {height} × {width}. "
            "Give fewer entries in `channels`, or images of another size."
        )
    return height // factor, width // factor


def _enlarged(x: Tensor) -> Tensor:
    """Double height and width."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
