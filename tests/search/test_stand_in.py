import pytest
import torch
from torch import Tensor

from failscape.search import StandIn

WEIGHT = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [-2.0, -2.0, 0.0]])


def points_about(middle: float, n: int, seed: int) -> Tensor:
    return middle + torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def linear(points: Tensor) -> Tensor:
    """Log-probabilities of three classes whose log-odds are linear."""
    return (points @ WEIGHT.T).log_softmax(dim=1)


def curved(points: Tensor) -> Tensor:
    """Log-probabilities of two classes whose log-odds are the squared distance from the middle."""
    odds = points.square().sum(dim=1, keepdim=True)
    return torch.cat([odds, -odds], dim=1).mul(0.5).log_softmax(dim=1)


def learnt(log_probs: Tensor, points: Tensor, seed: int = 0) -> StandIn:
    return StandIn(points, log_probs, rng=torch.Generator().manual_seed(seed))


def error(stand_in: StandIn, points: Tensor, log_probs: Tensor) -> float:
    """Mean absolute error of the log-odds, in nats."""
    told, true = (each - each.mean(dim=1, keepdim=True) for each in (stand_in(points), log_probs))
    return float((told - true).abs().mean())


@pytest.fixture(scope="module")
def stand_in() -> StandIn:
    points = points_about(0, 1500, seed=1)
    return learnt(linear(points), points)


def test_says_of_new_points_what_examples_taught(stand_in: StandIn) -> None:
    points = points_about(0, 500, seed=2)
    assert error(stand_in, points, linear(points)) < 0.2
    torch.testing.assert_close(stand_in(points).exp().sum(dim=1), torch.ones(500))


def test_its_gradients_are_those_of_what_it_learnt(stand_in: StandIn) -> None:
    points = points_about(0, 200, seed=2).requires_grad_()
    told = stand_in(points)
    gradient = torch.autograd.grad((told[:, 0] - told[:, 1]).sum(), points)[0]
    expected = (WEIGHT[0] - WEIGHT[1]).expand(200, -1)
    assert torch.cosine_similarity(gradient, expected, dim=1).median() > 0.98


def test_learns_on_where_it_was_wrong() -> None:
    near, far, judged = (points_about(*each) for each in ((0, 500, 1), (2.0, 500, 3), (2.0, 500, 4)))
    stand_in = learnt(curved(near), near)
    before = error(stand_in, judged, curved(judged))
    stand_in.learn(far, curved(far), rng=torch.Generator().manual_seed(0))
    assert error(stand_in, judged, curved(judged)) < 0.5 * before


def test_a_seed_decides_everything() -> None:
    points = points_about(0, 100, seed=1)
    told = [learnt(linear(points), points, seed)(points) for seed in (0, 0, 1)]
    assert torch.equal(told[0], told[1])
    assert not torch.equal(told[0], told[2])


def test_the_impossible_is_no_more_than_next_to_impossible() -> None:
    points = points_about(0, 500, seed=1)
    log_probs = torch.cat([linear(points), torch.full((500, 1), -torch.inf)], dim=1)
    told = learnt(log_probs, points)(points)
    assert told.isfinite().all()
    assert told[:, 3].median() < -20
