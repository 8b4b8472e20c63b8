"""Two moons: points of the plane in two interleaving half circles, the smallest data with a hard region."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from failscape.data.images import ImageSet
from failscape.data.published import Split
from failscape.errors import ImageError

NOISE = 0.3
"""Standard deviation of the points about their half circle, that of Le Coz et al. 2023."""

WINDOW = ((-2.5, 3.5), (-2.0, 2.5))
"""Lower and upper end of each coordinate. The half circles lie in [-1, 2] × [-0.5, 1], five deviations further in, so
that about one point in three million is moved to the edge: none of those in the splits."""

_SPLITS: dict[Split, tuple[int, int]] = {"train": (20_000, 1), "test": (5_000, 2)}  # points and seed
_CLASS_NAMES = ("upper", "lower")


def read_moons(split: Split) -> ImageSet:
    """Return the two moons of noise 0.3, each point an image of shape `(2, 1, 1)`; the same points every time.

    There are 20,000 points to train on and 5,000 to test on, as many of each class.

    References:
        Pedregosa et al., "Scikit-learn: Machine Learning in Python", JMLR 2011.
    """
    # It takes two seconds to import.
    from sklearn.datasets import make_moons

    n, seed = _SPLITS[split]
    points, labels = make_moons(n, noise=NOISE, random_state=seed)
    images = points_to_images(torch.from_numpy(points).float())
    return ImageSet.from_tensors(images, labels.astype(np.int64), _CLASS_NAMES, name=f"moons-{split}")


def points_to_images(points: Float[Tensor, "N 2"]) -> Float[Tensor, "N 2 1 1"]:
    """Scale points from `WINDOW` to [0, 1]; what lies beyond it is moved to its edge.

    Raises:
        ImageError: if these are no points of the plane.

    Example:
        >>> points_to_images(torch.tensor([[0.5, 0.25]])).flatten()
        tensor([0.5000, 0.5000])
    """
    if points.ndim != 2 or points.shape[1] != 2:
        raise ImageError(
            f"Expected points of the plane, shape (N, 2), but got {tuple(points.shape)}. Give one row a point."
        )
    low, high = _window(points)
    x: Tensor = ((points - low) / (high - low)).clamp(0, 1)
    return x[:, :, None, None]


def images_to_points(x: Float[Tensor, "N 2 1 1"]) -> Float[Tensor, "N 2"]:
    """Return the points that `points_to_images` made images of.

    Raises:
        ImageError: if the images are no points of the plane.
    """
    if tuple(x.shape[1:]) != (2, 1, 1):
        raise ImageError(
            f"Expected points of the plane as images of shape (N, 2, 1, 1), but got {tuple(x.shape)}. Only moons are "
            "points."
        )
    low, high = _window(x)
    points: Tensor = low + x.flatten(1) * (high - low)
    return points


def _window(like: Tensor) -> Tensor:
    """Return the lower ends and the upper ends, each of shape `(2,)`."""
    return torch.tensor(WINDOW, dtype=like.dtype, device=like.device).T
