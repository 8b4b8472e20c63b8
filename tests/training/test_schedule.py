import math

import pytest
import torch

from failscape.training.schedule import constant_cosine, ramp, set_learning_rate, warmup_cosine


@pytest.mark.parametrize(
    ("progress", "factor"),
    [(0, 0), (0.05, 0.5), (0.1, 1), (0.55, 0.5), (0.325, (1 + math.cos(math.pi / 4)) / 2), (1, 0)],
)
def test_rises_linearly_and_falls_as_a_cosine(progress: float, factor: float) -> None:
    assert warmup_cosine(float(progress), warmup=0.1) == pytest.approx(factor, abs=1e-12)


def test_without_warmup_begins_at_the_peak() -> None:
    assert warmup_cosine(0.0, warmup=0.0) == 1


def test_warmup_longer_than_the_training_only_rises() -> None:
    assert warmup_cosine(1.0, warmup=4.0) == 0.25


@pytest.mark.parametrize(
    ("progress", "factor"),
    [(0, 1), (0.6, 1), (0.7, (1 + math.cos(math.pi / 4)) / 2), (0.8, 0.5), (1, 0)],
)
def test_stays_and_then_falls_as_a_cosine(progress: float, factor: float) -> None:
    assert constant_cosine(float(progress), decay_from=0.6) == pytest.approx(factor, abs=1e-12)


def test_a_decay_from_the_end_on_never_comes() -> None:
    assert constant_cosine(1.0, decay_from=1.0) == 1
    assert constant_cosine(0.0, decay_from=0.0) == 1


@pytest.mark.parametrize(("progress", "factor"), [(0, 0), (0.1, 0), (0.2, 0.25), (0.3, 0.5), (0.5, 1), (0.9, 1)])
def test_ramp_rises_evenly(progress: float, factor: float) -> None:
    assert ramp(float(progress), 0.1, 0.5) == pytest.approx(factor)


def test_a_ramp_of_no_length_is_a_step() -> None:
    assert [ramp(progress, 0.3, 0.3) for progress in (0.2999, 0.3, 0.4)] == [0, 1, 1]
    assert ramp(0.0, 0.0, 0.0) == 1


def test_all_groups_get_the_rate() -> None:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in (1.0, 2.0)]
    optimizer = torch.optim.SGD(groups)

    set_learning_rate(optimizer, 0.25)

    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
