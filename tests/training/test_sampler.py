import torch
from hypothesis import given
from hypothesis import strategies as st

from failscape.training.sampler import Sampler


@given(length=st.integers(1, 50), seed=st.integers(0, 2**32), epoch=st.integers(0, 5))
def test_every_image_comes_once_an_epoch(length: int, seed: int, epoch: int) -> None:
    order = Sampler(length, seed=seed).indices(epoch * length, length)

    assert sorted(order.tolist()) == list(range(length))


@given(length=st.integers(1, 20), position=st.integers(0, 100), size=st.integers(1, 60))
def test_any_position_can_be_resumed(length: int, position: int, size: int) -> None:
    whole = Sampler(length, seed=3).indices(0, 160)

    assert torch.equal(Sampler(length, seed=3).indices(position, size), whole[position : position + size])


def test_no_images_are_no_indices() -> None:
    assert Sampler(5, seed=0).indices(3, 0).tolist() == []


def test_orders_differ_by_epoch_and_by_seed() -> None:
    sampler = Sampler(100, seed=0)
    orders = [sampler.indices(0, 100), sampler.indices(100, 100), Sampler(100, seed=1).indices(0, 100)]

    assert len({tuple(order.tolist()) for order in orders}) == 3


def test_orders_are_uniform() -> None:
    first = torch.cat([Sampler(4, seed=seed).indices(0, 1) for seed in range(2000)]).bincount()

    # Each count is binomial, 500 ± 19; five deviations.
    assert ((first - 500).abs() < 97).all()
