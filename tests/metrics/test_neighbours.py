import math

import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from failscape.errors import MetricError
from failscape.metrics import nearest, neighbour_vote, standardized


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_neighbours_are_those_of_scikit_learn() -> None:
    x, others = torch.randn(1500, 5, generator=rng()), torch.randn(300, 5, generator=rng(1))
    expected = NearestNeighbors(n_neighbors=4).fit(others.numpy()).kneighbors(x.numpy(), return_distance=False)
    assert nearest(x, others, 4).tolist() == expected.tolist()
    expected = NearestNeighbors(n_neighbors=3).fit(x.numpy()).kneighbors(return_distance=False)
    assert nearest(x, x, 3, same=True).tolist() == expected.tolist()
    assert nearest(x[:0], others, 4).shape == (0, 4)


def test_standardized_is_that_of_scikit_learn_and_still_features_are_zero() -> None:
    x = torch.randn(50, 3, generator=rng()) * torch.tensor([1.0, 100.0, 0.01]) + 7
    assert torch.allclose(standardized(x), torch.from_numpy(StandardScaler().fit_transform(x.numpy())), atol=1e-3)
    still = torch.cat([x, torch.full((50, 1), 0.1)], dim=1)
    assert standardized(still)[:, 3].count_nonzero() == 0


def test_within_groups_a_group_is_no_place() -> None:
    groups = torch.arange(600) % 3
    # A third feature is nothing but the group, in numbers that single precision rounds.
    x = torch.cat([torch.randn(600, 2, generator=rng()) + 9.1 * groups[:, None], 0.1 * groups[:, None]], dim=1)
    within = standardized(x, within=groups)
    for group in range(3):
        assert within[groups == group].mean(dim=0).abs().max() < 1e-6
    assert within[:, 2].count_nonzero() == 0
    assert within[:, :2].square().mean(dim=0).tolist() == pytest.approx([1, 1])
    assert neighbour_vote(standardized(x), groups).accuracy.value == 1
    assert neighbour_vote(within, groups).accuracy.value == pytest.approx(1 / 3, abs=0.08)


def test_clusters_are_told_and_noise_is_not_whatever_the_sizes_of_the_groups() -> None:
    groups = (torch.arange(1000) % 10 == 0).long()
    apart = torch.randn(1000, 3, generator=rng()) + 20 * groups[:, None]
    assert neighbour_vote(apart, groups).accuracy.value == 1
    assert neighbour_vote(apart, groups).accuracy.low > 0.97
    values = [neighbour_vote(torch.randn(1000, 64, generator=rng(seed)), groups).accuracy for seed in range(20)]
    assert sum(each.value for each in values) / 20 == pytest.approx(0.5, abs=0.02)
    assert sum(each.low <= 0.5 <= each.high for each in values) >= 17


def test_the_accuracy_is_the_mean_over_the_groups() -> None:
    # On a line: the lone one among others is lost, and its own neighbour votes for itself.
    x = torch.tensor([[0.0], [1.0], [2.0], [2.4], [10.0], [11.0]])
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    found = neighbour_vote(x, groups, neighbours=1)
    assert found.vote.tolist() == [0, 0, 1, 0, 1, 1]
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert found.accuracy.n == 6


def test_one_group_has_no_accuracy_and_one_sample_is_refused() -> None:
    assert math.isnan(neighbour_vote(torch.randn(5, 2, generator=rng()), torch.zeros(5).long()).accuracy.value)
    with pytest.raises(MetricError, match="Expected at least two samples"):
        neighbour_vote(torch.zeros(1, 2), torch.zeros(1).long())


def test_standardizing_leaves_what_it_is_given_as_it_was() -> None:
    features = torch.randn(20, 3, dtype=torch.float64, generator=rng())
    before = features.clone()

    standardized(features, torch.arange(20) % 2)

    assert torch.equal(features, before)
