import pytest
import torch
from torch import Tensor

from failscape.errors import MetricError
from failscape.metrics import precision_and_recall, rate_of, recall


def clusters(n: int, *centres: float, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.cat([centre + torch.randn(n, 2, generator=rng) for centre in centres])


def shares(real: Tensor, generated: Tensor, *, neighbours: int = 3) -> tuple[float, float]:
    precision, recall = precision_and_recall(real, generated, neighbours=neighbours)
    return precision.value, recall.value


def test_in_one_dimension_by_hand() -> None:
    # With k = 1 the balls about 0, 1, 3 reach 1, 1, 2; those about 0.5, 4, 9 reach 3.5, 3.5, 5.
    real, generated = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.5], [4.0], [9.0]])
    assert shares(real, generated, neighbours=1) == (2 / 3, 1)
    assert shares(generated, real, neighbours=1) == (1, 2 / 3)


def test_of_identical_sets_are_one() -> None:
    x = clusters(200, 0.0, 30.0, seed=0)
    assert shares(x, x.clone()) == (1, 1)


def test_of_distant_sets_are_zero() -> None:
    assert shares(clusters(100, 0.0, seed=0), clusters(100, 90.0, seed=1)) == (0, 0)


def test_of_a_half_covered_mixture_the_recall_is_one_half() -> None:
    result = precision_and_recall(clusters(500, 0.0, 50.0, seed=0), clusters(1000, 0.0, seed=1))
    assert result.recall.value == pytest.approx(0.5, abs=0.03)
    assert result.recall == rate_of(round(1000 * result.recall.value), 1000)
    assert result.precision.low > 0.95
    swapped = precision_and_recall(clusters(1000, 0.0, seed=1), clusters(500, 0.0, 50.0, seed=0))
    assert (swapped.precision, swapped.recall) == (result.recall, result.precision)


def test_are_those_of_all_distances_at_once_however_the_rows_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(0)
    real, generated = torch.randn(97, 6, generator=rng), torch.randn(61, 6, generator=rng) * 0.8 + 0.3
    reach = [
        torch.stack([(a - b).norm(dim=1) for b in a]).sort(dim=1).values[:, 4]
        for a in (real.double(), generated.double())
    ]
    apart = torch.stack([(real.double() - b).norm(dim=1) for b in generated.double()], dim=1)
    expected = (
        (apart <= reach[0][:, None]).any(dim=0).double().mean().item(),
        (apart <= reach[1]).any(dim=1).double().mean().item(),
    )
    assert 0 < expected[1] < 1
    assert shares(real, generated, neighbours=4) == expected
    monkeypatch.setattr(recall, "_CHUNK", 200)
    assert shares(real, generated, neighbours=4) == expected


@pytest.mark.parametrize(
    ("real", "generated", "neighbours", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(9, 2), 3, "at least 4 rows of `real` features, but got 3"),
        (torch.zeros(9, 2), torch.zeros(3, 2), 3, "at least 4 rows of `generated` features, but got 3"),
        (torch.zeros(9, 2), torch.zeros(9, 5), 3, "of one width, but got 2 and 5"),
        (torch.zeros(9, 2), torch.zeros(9, 2), 0, "`neighbours` to be at least 1, but got 0"),
        (torch.full((9, 2), torch.inf), torch.zeros(9, 2), 3, "NaN or infinity"),
    ],
)
def test_refuses(real: Tensor, generated: Tensor, neighbours: int, message: str, as_installed: None) -> None:
    with pytest.raises(MetricError, match=message):
        precision_and_recall(real, generated, neighbours=neighbours)
