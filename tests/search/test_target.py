from typing import Any

import pytest
import torch

from failscape.search import reach_target, total_variation

WEIGHT = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [-2.0, -2.0, 0.0]])


def linear(z: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of three classes, linear in the first two of three latents."""
    return (z @ WEIGHT.T).log_softmax(dim=1)[None]


@pytest.mark.parametrize("target", [(0.5, 0.5, 0.0), (0.7, 0.3, 0.0), (1 / 3, 1 / 3, 1 / 3), (0.2, 0.3, 0.5)])
def test_arrives_at_the_target(target):
    wanted = torch.tensor(target)
    starts = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))

    found = reach_target(linear, starts, wanted, tolerance=0.02)

    assert found.arrived.all()
    probs = linear(found.point, torch.arange(200))[0].exp()
    torch.testing.assert_close(total_variation(probs, wanted.expand(200, -1)), found.total_variation)
    assert found.total_variation.max() <= 0.02
    # What changes no probability is left as it was.
    torch.testing.assert_close(found.point[:, 2], starts[:, 2], atol=1e-4, rtol=0)


def test_goes_the_shortest_way_where_log_odds_are_linear():
    """Between two classes of equal share the frontier is the plane of equal logits."""
    starts = torch.tensor([[3.0, 1.0, 0.0], [4.0, 3.9, 0.0]])

    found = reach_target(linear, starts, torch.tensor([0.5, 0.5, 0.0]), tolerance=0.001, radius=9.0)

    # The foot of the perpendicular: both latents their mean.
    torch.testing.assert_close(
        found.point[:, :2], starts[:, :2].mean(dim=1, keepdim=True).expand(-1, 2), atol=0.02, rtol=0
    )


def test_begins_again_where_a_start_leads_nowhere():
    """Beyond 5 everything is flat: from there no gradient leads back."""

    def flat(z: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.where((z[:, :1] > 5), 0 * z @ WEIGHT.T + torch.tensor([9.0, 0, 0]), z @ WEIGHT.T).log_softmax(
            dim=1
        )[None]

    starts, wanted = torch.tensor([[6.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([0.5, 0.5, 0.0])
    alone = reach_target(flat, starts, wanted, steps=20)
    again = reach_target(flat, starts, wanted, steps=20, restart=lambda rows: torch.ones(len(rows), 3))

    assert alone.arrived.tolist() == [False, True]
    assert again.arrived.tolist() == [True, True]
    assert again.restarts.tolist() == [1, 0]
    assert again.steps[0] > 20


def test_what_is_missing_in_another_view_is_missing():
    """The first view has the target where the first two latents are equal, the second where the last two are."""

    def views(z: torch.Tensor, rows: torch.Tensor) -> list[torch.Tensor]:
        return [z[:, :2].log_softmax(dim=1), z[:, 1:].log_softmax(dim=1)]

    starts = torch.tensor([[2.0, -1.0, 5.0], [-3.0, 2.0, 0.0]])

    found = reach_target(views, starts, torch.tensor([0.5, 0.5]), tolerance=1e-3, radius=9.0)

    assert found.arrived.all()
    # The nearest point at which all are equal.
    torch.testing.assert_close(found.point, starts.mean(dim=1, keepdim=True).expand(-1, 3), atol=0.02, rtol=0)


def test_another_view_leads_until_it_agrees_and_no_farther():
    """The first view has the target where the first two latents are equal, the second where the last two are."""

    def views(z: torch.Tensor, rows: torch.Tensor) -> list[torch.Tensor]:
        return [z[:, :2].log_softmax(dim=1), z[:, 1:].log_softmax(dim=1)]

    starts = torch.tensor([[2.0, -1.0, 5.0], [1.0, 0.0, 0.4]])

    found = reach_target(views, starts, torch.tensor([0.5, 0.5]), tolerance=1e-3, agreement=0.2, radius=9.0)

    assert found.arrived.all()
    even = torch.full((2, 2), 0.5)
    first, second = (total_variation(each.exp(), even) for each in views(found.point, torch.arange(2)))
    assert first.max() <= 1e-3
    assert second.max() <= 0.2
    # The second row's agreed from the start, so the way is that of the first view alone.
    torch.testing.assert_close(found.point[1], torch.tensor([0.5, 0.5, 0.4]), atol=0.01, rtol=0)


def test_what_another_view_contradicts_does_not_arrive():
    """The second view says the same of every point."""

    def views(z: torch.Tensor, rows: torch.Tensor) -> list[torch.Tensor]:
        return [
            z[:, :2].log_softmax(dim=1),
            torch.tensor([9.0, 0.0]).log_softmax(dim=0).expand(len(z), -1) + 0 * z[:, :2],
        ]

    found = reach_target(views, torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0.5, 0.5]), agreement=0.2, steps=5)

    assert not found.arrived.any()
    assert found.total_variation.min() > 1


def test_two_views_that_contradict_are_no_nearer_than_the_worse_of_them():
    even, tilted = torch.zeros(2), torch.tensor([1.0, 0.0])

    def saying(*others: torch.Tensor) -> Any:
        return lambda z, rows: (
            [z[:, :2].log_softmax(dim=1)]
            + [other.log_softmax(dim=0).expand(len(z), -1) + 0 * z[:, :2] for other in others]
        )

    one, two, none = (
        reach_target(saying(*others), torch.zeros(1, 3), even.softmax(dim=0), agreement=0.1, steps=2).total_variation
        for others in ((9 * tilted,), (9 * tilted, tilted), (even, even))
    )

    assert torch.equal(one, two)
    assert none < 0.05 < 1 < one


def test_no_row_depends_on_another():
    starts = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    wanted = torch.tensor([0.6, 0.4, 0.0])
    whole = reach_target(linear, starts, wanted)
    parts = reach_target(linear, starts, wanted, batch_size=7)
    torch.testing.assert_close(whole.point, parts.point)
