import pytest
import torch
from torch import nn

from failscape.training.ema import ema_decay, update_average


def test_half_of_a_weight_is_forgotten_in_a_half_life() -> None:
    average, network = nn.Linear(3, 2), nn.Linear(3, 2)
    start, end = average.weight.detach().clone(), network.weight.detach().clone()

    for _ in range(5):
        update_average(average, network, ema_decay(20, 10**9, half_life=100))

    torch.testing.assert_close(average.weight.detach(), (start + end) / 2)


def test_follows_the_closed_form_of_a_moving_target() -> None:
    decay, target, average = 0.9, nn.Linear(1, 1, bias=False).double(), nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(average.weight, 2.0)

    for step in range(1, 31):
        nn.init.constant_(target.weight, float(step))
        update_average(average, target, decay)

    expected = decay**30 * 2 + sum(0.1 * decay ** (30 - step) * step for step in range(1, 31))
    assert average.weight.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("seen", "decay"), [(0, 0.0), (1000, 0.5 ** (64 / 50)), (20_000, 0.5 ** (64 / 1000)), (10**8, 0.5**0.064)]
)
def test_memory_ramps_up_with_the_images_seen(seen: int, decay: float) -> None:
    assert ema_decay(64, seen, half_life=1000) == pytest.approx(decay, rel=1e-12)


def test_no_half_life_is_no_average() -> None:
    average, network = nn.Linear(3, 2), nn.Linear(3, 2)

    update_average(average, network, ema_decay(64, 10**6, half_life=0))

    assert torch.equal(average.weight, network.weight)


def test_buffers_are_copied() -> None:
    average, network = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    network(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)) + 5)

    update_average(average, network, 0.99)

    assert torch.equal(average.running_mean, network.running_mean)
    assert int(average.num_batches_tracked) == 1


def test_buffers_that_are_not_saved_are_copied_too() -> None:
    average, network = nn.Module(), nn.Module()
    for module, value in ((average, 1.0), (network, 5.0)):
        module.weight = nn.Parameter(torch.full((2,), value))
        module.register_buffer("mean", torch.full((2,), value))
        module.register_buffer("noise", torch.full((2,), value), persistent=False)

    update_average(average, network, 0.75)

    assert average.weight.tolist() == [2, 2]
    assert average.mean.tolist() == average.noise.tolist() == [5, 5]
    # A copy, not the same memory: the network goes on.
    network.mean += 1
    assert average.mean.tolist() == [5, 5]
