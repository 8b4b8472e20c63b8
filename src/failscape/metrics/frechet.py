"""How far two sets of features lie apart, if each is taken for a Gaussian."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from failscape.metrics.features import check_features


class _Features(nn.Module):
    """Stands where torchmetrics expects the network that makes features of images: they are made already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Float[Tensor, "N F"], generated: Float[Tensor, "M F2"]) -> float:
    r"""Return the Fréchet distance of two sets of features, computed in float64 by torchmetrics.

    $$\lVert\mu_r - \mu_g\rVert^2 + \operatorname{tr}\left(\Sigma_r + \Sigma_g - 2 (\Sigma_r \Sigma_g)^{1/2}\right)$$

    This is the squared distance, as is usual. It depends on the numbers of rows, so compare values of the same
    numbers only; with fewer rows than features the covariances are singular and the value is much too large.

    Args:
        real: features of real images, one row an image.
        generated: features of generated images, as many columns.

    Raises:
        MetricError: if a set has fewer than 2 rows or values that are not finite, or the widths differ.

    Example:
        >>> x = torch.randn(1000, 8)
        >>> round(frechet_distance(x, x + 1), 6)
        8.0

    References:
        Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
        NeurIPS 2017, eq. 6.
    """
    check_features(real, generated, rows=2)
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Features(real.shape[1]), sync_on_compute=False).set_dtype(torch.float64)
    # The distance is that of the shifted sets too; a mean of zero keeps the covariance, which torchmetrics makes
    # of sums of squares, exact.
    shift = real.double().mean(dim=0)
    metric.update(real.double() - shift, real=True)
    metric.update(generated.double() - shift, real=False)
    return max(0.0, float(metric.compute()))
