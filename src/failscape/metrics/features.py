"""What two sets of features must be to be compared."""

from torch import Tensor

from failscape.errors import MetricError


def check_features(real: Tensor, generated: Tensor, *, rows: int) -> None:
    """Refuse sets of features that cannot be compared.

    Args:
        real: features of real images, `(N, F)`.
        generated: features of generated images, `(M, F)`.
        rows: how many each set must have at least.

    Raises:
        MetricError: if a set is not a matrix, has too few rows or values that are not finite, or the widths differ.
    """
    for name, features in (("real", real), ("generated", generated)):
        if features.ndim != 2 or features.shape[1] == 0:
            raise MetricError(
                f"Expected `{name}` as features of shape (N, F), one row an image, but got {tuple(features.shape)}. "
                "Flatten what belongs to one image."
            )
        if len(features) < rows:
            raise MetricError(
                f"Expected at least {rows} rows of `{name}` features, but got {len(features)}. Give more images."
            )
        if not features.isfinite().all():
            raise MetricError(
                f"Expected finite `{name}` features, but got NaN or infinity in "
                f"{int((~features.isfinite().all(dim=1)).sum())} of {len(features)} rows. Check the images and the "
                "network that the features come from."
            )
    if real.shape[1] != generated.shape[1]:
        raise MetricError(
            f"Expected `real` and `generated` features of one width, but got {real.shape[1]} and "
            f"{generated.shape[1]}. Take both from the same network."
        )
