r"""What an image looks like, in numbers: noise, sharpness, contrast, strokes, position, parts.

What is measured is luminance $L \in [0, 1]$: of one channel its values as they are, of three the weighted sum
$0.2126 R + 0.7152 G + 0.0722 B$ of Recommendation ITU-R BT.709, of any other number their mean. What is said of
strokes, position and parts is measured on the shape that stands out from the background, as `Shapes` finds it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from failscape.data.checks import check_values
from failscape.data.ids import NumberedIds
from failscape.errors import MetricError
from failscape.metrics.shapes import Shapes

# Pixels that are measured at a time.
_CHUNK = 2**18
_LUMINANCE = (0.2126, 0.7152, 0.0722)


@final
@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Something that can be measured of an image, with the words for its changes.

    Attributes:
        name: what it is called.
        unit: in which it is measured, such as "px"; "" for none.
        measure: takes images `(N, C, H, W)`, float32 in [0, 1], and returns a floating-point number each, `(N,)`;
            NaN where there is nothing to measure.
        more: what an image does whose value rises, such as "adds noise".
        less: what it does when the value falls.
        digits: after the decimal point when a change is printed.
        smallest: the smallest change that is worth telling.
        tier: which changes are told before which, the lowest first, whatever their size: 0 for noise and sharpness,
            which change what all else measures, 1 for contrast and brightness, 2 for the shape and everything else.
            What a digit that is drowned or blurred has for a stroke means little.

    Example:
        >>> def red(x):
        ...     return x[:, 0].mean(dim=(1, 2)) - x.mean(dim=(1, 2, 3))
        >>> redness = Measurement(
        ...     name="redness", unit="", measure=red, more="reddens", less="takes red away", digits=2, smallest=0.02
        ... )
        >>> redness.change(0.123)
        'reddens (+0.12)'
    """

    name: str
    unit: str
    measure: Callable[[Tensor], Tensor]
    more: str
    less: str
    digits: int
    smallest: float
    tier: int = 2

    def __post_init__(self) -> None:
        if self.digits < 0 or not self.smallest > 0:
            raise MetricError(
                f"Expected `digits` of at least 0 and `smallest` above 0 of the measurement {self.name!r}, but got "
                f"{self.digits} and {self.smallest}. Give the smallest change that somebody would notice."
            )

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
        """Measure images.

        Raises:
            ImageError: if a value is NaN or outside [0, 1].
            MetricError: if `x` is not a batch of images, or `measure` raises an error or does not return one
                floating-point number an image.
        """
        if x.ndim != 4:
            raise MetricError(
                f"Expected images of shape (N, C, H, W), but got {tuple(x.shape)}. Add a dimension to a single image: "
                "`x[None]`."
            )
        check_values(x, NumberedIds("images", len(x)))
        try:
            values = self.measure(x)
        except Exception as error:
            raise MetricError(
                f"Expected the measurement {self.name!r} to return a number an image, but its function raised "
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}. Correct the function, or "
                "take it out of MEASUREMENTS."
            ) from error
        if not isinstance(values, Tensor) or values.shape != (len(x),) or not values.is_floating_point():
            got = f"{values.dtype} of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values)
            raise MetricError(
                f"Expected a tensor of one floating-point number an image, shape ({len(x)},), of the measurement "
                f"{self.name!r}, but got {got}. Reduce over all dimensions but the first."
            )
        return values.cpu()

    def change(self, change: float) -> str:
        """Say a change in words, such as "thins the stroke (−0.8 px)"."""
        number = f"{change:+.{self.digits}f}".replace("-", "−")
        separator = "" if self.unit in ("", "°") else " "
        return f"{self.more if change > 0 else self.less} ({number}{separator}{self.unit})"


def luminance(x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N H W"]:
    """Return the luminance of images, as float64; see the top of this file for the weights."""
    if x.shape[1] != len(_LUMINANCE):
        return x.double().mean(dim=1)
    return torch.einsum("nchw,c->nhw", x.double(), torch.tensor(_LUMINANCE, dtype=torch.float64, device=x.device))


def noise_level(x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    r"""Return the standard deviation of the noise where the image is flat.

    $$\sigma = \sqrt{\pi / 2} \cdot \tfrac{1}{6} \operatorname{mean} |L * M|, \qquad
    M = (1, -2, 1)^\top (1, -2, 1)$$

    over the pixels that are more than 2 px away from the edge of the shape; over all where there are none. The mask M
    does not see slopes. Noise that black and white cut off is as much smaller as it looks. Noise that is found only
    within thin strokes, such as that in proportion to the value, is not seen. NaN below 3 × 3 pixels.

    References:
        Immerkær, "Fast Noise Variance Estimation", Computer Vision and Image Understanding 1996.
    """
    return _each(x, lambda shapes: shapes.noise)


def sharpness(x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    r"""Return how steeply the edges of the shape rise, as the share of the whole step within one pixel.

    The mean of $\nabla L \cdot n$ over the pixels on either side of the edge, divided by the difference of the mean
    luminance within and without; the gradient is that of central differences and n the direction in which the smoothed
    shape rises, so that noise, which has no direction, averages out. An edge between two pixels has 0.5, and one
    blurred by a Gaussian of large σ between wide areas $1 / \sqrt{2 \pi} \sigma$. NaN without a shape.
    """
    return _each(x, Shapes.sharpness)


def contrast(x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    """Return how far the median luminance within the shape lies from that outside, in [0, 1]; 0 without a shape.

    Medians do not heed that black and white cut off noise on one side.
    """
    return _each(x, lambda shapes: np.where(shapes.found, shapes.contrast, 0.0))


def brightness(x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    """Return the median luminance of the background, in [0, 1]: of what is more than 2 px away from the shape.

    The mean of the whole image would change with every change of contrast, ink and noise.
    """
    return _each(x, lambda shapes: shapes.brightness)


def ink(x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    """Return the area of the shape in percent of the image: its mass, however faint it is drawn; 0 without a shape."""
    return _each(x, lambda shapes: 100 * shapes.mask.mean(axis=(1, 2)))


def stroke_width(x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    r"""Return the width of the strokes in pixels.

    $$4 \operatorname{mean}_{p} d(p)$$

    over the points p of the shape, where d is the distance to its edge, which in a long stroke goes up to half of the
    width and is a quarter of it on average. At ends there is less: a bar of width w and length l has
    $w - w^2 / 3 l$. The image is enlarged for that, linearly. NaN without a shape.
    """
    return _each(x, Shapes.stroke_width)


def slant(x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    r"""Return by how many degrees the shape leans to the right: $\arctan(-\mu_{11} / \mu_{02})$.

    With $\mu$ the central moments of the shape, y downwards: the angle of the shear that makes horizontal and vertical
    position uncorrelated. NaN without a shape.

    References:
        Castro et al., "Morpho-MNIST: Quantitative Assessment and Diagnostics for Representation Learning", JMLR 2019.
    """
    return _each(x, lambda shapes: np.degrees(np.arctan(-shapes.moment(0, 1) / shapes.moment(0, 0))))


def size(x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    r"""Return the side in pixels of the square whose points are as far from its centre as those of the shape.

    $$\sqrt{6 (\mu_{20} + \mu_{02})}$$

    with $\mu$ the central second moments of the shape, pixels counted as squares. NaN without a shape.
    """
    return _each(x, lambda shapes: np.sqrt(6 * (shapes.moment(0, 0) + shapes.moment(1, 1))))


def horizontal_position(x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    """Return how far to the right of the image's centre the centre of mass of the shape is, px; NaN without a shape."""
    return _each(x, lambda shapes: shapes.centre[1])


def vertical_position(x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    """Return how far below the image's centre the centre of mass of the shape is, in pixels; NaN without a shape."""
    return _each(x, lambda shapes: shapes.centre[0])


def parts(x: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
    """Return of how many parts the shape consists; pixels that touch, if only at a corner, belong together."""
    return _each(x, lambda shapes: shapes.parts.astype(np.float64))


MEASUREMENTS: dict[str, Measurement] = {
    each.name: each
    for each in (
        Measurement(
            name="noise",
            unit="",
            measure=noise_level,
            more="adds noise",
            less="removes noise",
            digits=2,
            smallest=0.02,  # a quarter of the slightest Gaussian noise of ImageNet-C, 5 of the 255 grey levels
            tier=0,
        ),
        Measurement(
            name="sharpness",
            unit="per px",
            measure=sharpness,
            more="sharpens",
            less="blurs",
            digits=2,
            smallest=0.03,  # of 0.5, that of a perfect edge; a blur of σ = 1 px takes twice as much from a digit
            tier=0,
        ),
        Measurement(
            name="contrast",
            unit="",
            measure=contrast,
            more="raises the contrast",
            less="lowers the contrast",
            digits=2,
            smallest=0.05,  # of 1, black on white; all that the most severe contrast of ImageNet-C leaves
            tier=1,
        ),
        Measurement(
            name="brightness",
            unit="",
            measure=brightness,
            more="brightens",
            less="darkens",
            digits=2,
            smallest=0.02,  # 5 of the 255 grey levels; fewer are hard to tell on a screen
            tier=1,
        ),
        Measurement(
            name="ink",
            unit="% of the image",
            measure=ink,
            more="adds ink",
            less="removes ink",
            digits=1,
            smallest=1.0,  # of 13 % that a digit has
        ),
        Measurement(
            name="stroke width",
            unit="px",
            measure=stroke_width,
            more="thickens the stroke",
            less="thins the stroke",
            digits=1,
            smallest=0.2,  # of 2.7 px that a digit has; the worst Gaussian noise of ImageNet-C takes less
        ),
        Measurement(
            name="slant",
            unit="°",
            measure=slant,
            more="slants to the right",
            less="slants to the left",
            digits=0,
            smallest=3.0,  # one pixel sideways over the 20 px of a digit's height
        ),
        Measurement(
            name="size",
            unit="px",
            measure=size,
            more="enlarges",
            less="shrinks",
            digits=1,
            smallest=0.5,  # of 16 px that a digit has
        ),
        Measurement(
            name="horizontal position",
            unit="px",
            measure=horizontal_position,
            more="moves right",
            less="moves left",
            digits=1,
            smallest=0.5,  # a shift by less cannot be told from a grey pixel at the edge
        ),
        Measurement(
            name="vertical position",
            unit="px",
            measure=vertical_position,
            more="moves down",
            less="moves up",
            digits=1,
            smallest=0.5,  # as for the horizontal one
        ),
        Measurement(
            name="parts",
            unit="",
            measure=parts,
            more="adds parts",
            less="joins parts",
            digits=1,
            smallest=0.1,  # one image in ten gains or loses a part
        ),
    )
}


def _each(x: Tensor, measure: Callable[[Shapes], NDArray[np.float64]]) -> Tensor:
    """Measure images in batches."""
    if x.numel() == 0:
        return torch.full((len(x),), torch.nan, dtype=torch.float64)
    values = []
    for part in x.split(max(1, _CHUNK // x[0, 0].numel())):
        lum = luminance(part).cpu().numpy()
        values.append(torch.from_numpy(measure(_shapes(lum.tobytes(), lum.shape))))
    return torch.cat(values)


@lru_cache(maxsize=1)
def _shapes(lum: bytes, shape: tuple[int, int, int]) -> Shapes:
    """Find the shapes once for all measurements of the same images, which are usually made one after another."""
    return Shapes(np.frombuffer(lum).reshape(shape))
