import math

import pytest
import torch

from failscape.training.schedule import set_learning_rate, warmup_cosine


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


def test_all_groups_get_the_rate() -> None:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in (1.0, 2.0)]
    optimizer = torch.optim.SGD(groups)

    set_learning_rate(optimizer, 0.25)

    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
