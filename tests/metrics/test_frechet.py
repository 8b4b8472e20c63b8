import pytest
import torch
from torch import Tensor

from failscape.errors import MetricError
from failscape.metrics import frechet_distance


def whitened(n: int = 500, width: int = 5) -> Tensor:
    """Rows whose mean is exactly 0 and whose covariance is exactly the identity."""
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x -= x.mean(dim=0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T


def test_of_two_gaussians_is_that_of_their_moments() -> None:
    # Covariances S and R S' R^T do not commute, so the cross term is checked by the square root of a symmetric matrix.
    first = torch.tensor(
        [[2.0, 0.3, 0, 0, 0], [0, 1.0, 0.5, 0, 0], [0, 0, 0.7, 0, 0.2], [0, 0, 0, 3, 1], [0, 0, 0, 0, 1]]
    )
    second = torch.tensor([[1.0, 0, 0, 0, 0], [2.0, 1, 0, 0, 0], [0, 0, 4, 0, 0], [0.1, 0, 0, 1, 0], [0, 1, 0, 0, 0.5]])
    first, second = first.double(), second.double()
    real, generated = whitened() @ first.T, whitened(300) @ second.T + torch.arange(5)
    a, b = first @ first.T, second @ second.T
    values, vectors = torch.linalg.eigh(a)
    root = vectors @ values.sqrt().diag() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b @ root).clamp_min(0).sqrt().sum()
    expected = 30 + a.trace() + b.trace() - 2 * cross
    assert frechet_distance(real, generated) == pytest.approx(expected.item(), rel=1e-6)
    assert frechet_distance(generated, real) == pytest.approx(expected.item(), rel=1e-6)


def test_of_axis_aligned_gaussians_is_a_sum_over_the_axes() -> None:
    scale = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0], dtype=torch.float64)
    expected = 5 * 4 + (scale - 1).square().sum().item()
    assert frechet_distance(whitened(), whitened(200) * scale + 2) == pytest.approx(expected)


def test_of_a_set_to_itself_is_zero_and_rounding_does_not_make_it_negative() -> None:
    x = torch.randn(1000, 20, generator=torch.Generator().manual_seed(0))
    assert 0 <= frechet_distance(x, x) < 1e-9
    few = x[:5]  # singular covariances
    assert 0 <= frechet_distance(few, few) < 1e-4


def test_a_large_common_mean_costs_no_accuracy() -> None:
    assert frechet_distance(whitened() + 1e6, whitened() * 2 + 1e6) == pytest.approx(5.0)


def test_float32_features_are_measured_in_float64() -> None:
    real, generated = whitened().float(), (whitened(300) * 1.001).float()
    assert frechet_distance(real, generated) == frechet_distance(real.double(), generated.double())


@pytest.mark.parametrize(
    ("real", "generated", "message"),
    [
        (torch.zeros(1, 3), torch.zeros(5, 3), "at least 2 rows of `real` features, but got 1"),
        (torch.zeros(5, 3), torch.zeros(0, 3), "at least 2 rows of `generated` features, but got 0"),
        (torch.zeros(5, 3), torch.zeros(5, 4), "of one width, but got 3 and 4"),
        (torch.zeros(5), torch.zeros(5, 3), r"shape \(N, F\), one row an image, but got \(5,\)"),
        (torch.zeros(5, 3), torch.full((5, 3), torch.nan), "NaN or infinity in 5 of 5 rows"),
    ],
)
def test_refuses(real: Tensor, generated: Tensor, message: str, as_installed: None) -> None:
    with pytest.raises(MetricError, match=message):
        frechet_distance(real, generated)
