"""Shapes, such as digits, that stand out from the background of an image, whatever noise there is.

An image's luminance is smoothed; its distance from the background (the median along the image's border) is split in two
by Otsu's threshold, and the shape is where that distance is at least half of what its strongest tenth reaches. Pieces
too small for a part are specks, which belong to nothing. Dark shapes on a light background are found as light ones on
a dark one are. An image without a shape is one whose shape would stand out by less than the noise does, or by less than
can be seen.

References:
    Otsu, "A Threshold Selection Method from Gray-Level Histograms", IEEE Transactions on Systems, Man, and
    Cybernetics 1979.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

# Standard deviation in px of the smoothing before a shape is sought. It halves the deviation of pixel noise, and
# widens a stroke of 2 px by a fifteenth; with twice as much, gaps of one pixel close.
_SMOOTHING = 0.6
_BINS = 128
# The strongest part of a shape, half of whose height is the shape's edge. A larger part makes blurred strokes wider,
# a smaller one follows single noisy pixels.
_STRONGEST = 0.1
# Share of the image below which a piece is a speck: 6 px of 28 × 28, less than a stroke that is as long as it is wide.
_SPECK = 1 / 128
# A shape must stand out by as much: 5 of the 255 grey levels, and by so many deviations of the noise. Where there is
# nothing but normal noise, what is above the threshold lies 0.9 deviations above the rest, and in one of 25 images more
# than 1.25; digits in the most severe noise of ImageNet-C lie 1.3 to 2.4 above it.
_FAINTEST, _OVER_NOISE = 0.02, 1.25
# Reaches as far as the edge of a shape is taken to blur, 2 px; noise and background are measured beyond.
_BLOCK = np.ones((1, 5, 5), dtype=bool)
# Pixels along an image's longer side, to which it is enlarged before distances within strokes are measured.
_FINE = 84
# Smoothing in px of the direction in which an edge rises.
_NORMAL = 1.5


class Shapes:
    """The shapes of images, and what is around them.

    Attributes:
        lum: the luminance, `(N, H, W)`.
        amplitude: how far the smoothed luminance lies from that of the background.
        threshold: the amplitude at the edge of each shape, `(N,)`.
        noise: see `failscape.metrics.appearance.noise_level`.
        brightness: see `failscape.metrics.appearance.brightness`.
        contrast: how far the median luminance within the shape lies from that outside.
        found: which images have a shape.
        mask: where it is, `(N, H, W)`; nowhere in an image without.
        parts: of how many parts it consists.
        centre: its centre of mass from that of the image, in px downwards and to the right; NaN without a shape.
    """

    def __init__(self, lum: NDArray[np.float64]) -> None:
        self.lum = lum
        smooth = ndimage.gaussian_filter(lum, (0, _SMOOTHING, _SMOOTHING), mode="nearest")
        edge = np.ones(lum.shape[1:], dtype=bool)
        edge[1:-1, 1:-1] = False
        # The lower median is the value of some pixel, also where a border is half black and half white.
        background = np.quantile(smooth[:, edge], 0.5, axis=1, method="lower")
        self.amplitude = np.abs(smooth - background[:, None, None])
        self.threshold = _half_height(self.amplitude.reshape(len(lum), -1))
        shape, self.parts = _without_specks(self.amplitude > self.threshold[:, None, None])

        inside, outside = (_masked_median(lum, where) for where in (shape, ~shape))
        self.contrast = np.abs(inside - outside)
        self.noise = _noise(lum, shape)
        self.brightness = self._brightness(shape)
        # Of the smoothed image: medians of noise that black cuts off lie far apart.
        stands_out = _masked_mean(self.amplitude, shape) - _masked_mean(self.amplitude, ~shape)
        self.found = stands_out > np.fmax(_FAINTEST, _OVER_NOISE * self.noise)
        self.mask = shape & self.found[:, None, None]
        self.parts = self.parts * self.found
        height, width = lum.shape[1:]
        self.coordinates = (np.arange(height)[:, None] - (height - 1) / 2, np.arange(width) - (width - 1) / 2)
        self.centre = tuple(self._mean(each) for each in self.coordinates)

    def moment(self, first: int, second: int) -> NDArray[np.float64]:
        """Return a central second moment of each shape, pixels counted as squares; axis 0 is down, axis 1 right."""
        a, b = (self.coordinates[axis] - self.centre[axis][:, None, None] for axis in (first, second))
        return self._mean(a * b) + (1 / 12 if first == second else 0)

    def sharpness(self) -> NDArray[np.float64]:
        """See `failscape.metrics.appearance.sharpness`."""
        if min(self.lum.shape[1:]) < 2:
            return np.full(len(self.lum), np.nan)
        soft = ndimage.gaussian_filter(self.mask.astype(np.float64), (0, _NORMAL, _NORMAL), mode="nearest")
        normal, slope = (np.array(np.gradient(each, axis=(1, 2))) for each in (soft, self.lum))
        length = np.sqrt((normal**2).sum(axis=0))
        rise = (slope * normal).sum(axis=0) / np.where(length > 0, length, 1)
        cross = ndimage.generate_binary_structure(2, 1)[None]
        rim = ndimage.binary_dilation(self.mask, cross) & ~ndimage.binary_erosion(self.mask, cross, border_value=1)
        # Means and not medians, since noise that black and white cut off lowers the slope as it lowers these.
        step = _masked_mean(self.lum, self.mask) - _masked_mean(self.lum, ~self.mask)
        return np.abs(_masked_mean(rise, rim) / np.where(step == 0, np.nan, step))

    def stroke_width(self) -> NDArray[np.float64]:
        """See `failscape.metrics.appearance.stroke_width`."""
        factor = max(1, -(-_FINE // max(self.lum.shape[1:])))
        fine = ndimage.zoom(self.amplitude, (1, factor, factor), order=1, mode="nearest", grid_mode=True)
        near = ndimage.binary_dilation(self.mask, np.ones((1, 3, 3), dtype=bool))
        shapes = (fine > self.threshold[:, None, None]) & near.repeat(factor, axis=1).repeat(factor, axis=2)
        # Beyond the border of the image a shape goes on.
        padded = np.pad(shapes, ((0, 0), (1, 1), (1, 1)), mode="edge")
        widths = np.full(len(shapes), np.nan)
        for row in np.flatnonzero(shapes.any(axis=(1, 2)) & ~shapes.all(axis=(1, 2))):
            down, right = ndimage.find_objects(shapes[row].astype(np.int8))[0]
            box = padded[row, down.start : down.stop + 2, right.start : right.stop + 2]
            # Half a pixel lies between the edge and the centre of the pixel before it.
            distance = ndimage.distance_transform_edt(box)[1:-1, 1:-1] - 0.5
            widths[row] = 4 * distance[shapes[row, down, right]].mean() / factor
        return widths

    def _brightness(self, shape: NDArray[np.bool_]) -> NDArray[np.float64]:
        background = ~ndimage.binary_dilation(shape, _BLOCK)
        background |= ~background.any(axis=(1, 2), keepdims=True)
        return _masked_median(self.lum, background)

    def _mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return _masked_mean(np.broadcast_to(values, self.mask.shape), self.mask)


def _half_height(amplitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return of each row the half of what the strongest values above Otsu's threshold reach."""
    rows = np.arange(len(amplitude))
    low, high = amplitude.min(axis=1), amplitude.max(axis=1)
    span = np.where(high > low, high - low, 1)[:, None]
    bins = np.minimum((amplitude - low[:, None]) / span * _BINS, _BINS - 1).astype(np.int64)
    counts = np.bincount((bins + rows[:, None] * _BINS).ravel(), minlength=len(rows) * _BINS)
    counts = counts.reshape(len(rows), _BINS).astype(np.float64)
    below, sums = counts.cumsum(axis=1), (counts * np.arange(_BINS)).cumsum(axis=1)
    above = below[:, -1:] - below
    distance = sums / np.maximum(below, 1) - (sums[:, -1:] - sums) / np.maximum(above, 1)
    split = (below * above * distance**2).argmax(axis=1)
    strongest = (above[rows, split] * _STRONGEST).astype(np.int64)
    half: NDArray[np.float64] = -np.sort(-amplitude, axis=1)[rows, strongest] / 2
    return half


def _without_specks(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return the masks without their small pieces, and how many pieces are left of each."""
    # Joins neighbours within an image, also at corners, and never two images.
    within = np.zeros((3, 3, 3), dtype=bool)
    within[1] = True
    label, n = ndimage.label(mask, within)
    kept = np.bincount(label.ravel(), minlength=n + 1) >= max(1, _SPECK * mask[0].size)
    kept[0] = False
    image = np.zeros(n + 1, dtype=np.int64)
    image[label] = np.arange(len(mask))[:, None, None]
    return kept[label], np.bincount(image[kept], minlength=len(mask))


def _noise(lum: NDArray[np.float64], shape: NDArray[np.bool_]) -> NDArray[np.float64]:
    """See `failscape.metrics.appearance.noise_level`."""
    if min(lum.shape[1:]) < 3:
        return np.full(len(lum), np.nan)
    second = np.array([1.0, -2.0, 1.0])
    response = np.abs(ndimage.convolve1d(ndimage.convolve1d(lum, second, axis=1), second, axis=2))
    rim = ndimage.binary_dilation(shape, _BLOCK) & ~ndimage.binary_erosion(shape, _BLOCK, border_value=1)
    # The mask does not fit at the border.
    response, flat = response[:, 1:-1, 1:-1], ~rim[:, 1:-1, 1:-1]
    flat |= ~flat.any(axis=(1, 2), keepdims=True)
    return float(np.sqrt(np.pi / 2) / 6) * _masked_mean(response, flat)


def _masked_mean(values: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean of each image's values within its mask, NaN where that is empty."""
    count = mask.sum(axis=(1, 2))
    mean: NDArray[np.float64] = np.where(count > 0, (values * mask).sum(axis=(1, 2)) / np.maximum(count, 1), np.nan)
    return mean


def _masked_median(values: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the median of each image's values within its mask, NaN where that is empty."""
    masked = torch.from_numpy(np.where(mask, values, np.nan)).flatten(1)
    median: NDArray[np.float64] = masked.nanquantile(0.5, dim=1).numpy()
    return median
