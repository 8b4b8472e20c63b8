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


def test_no_row_depends_on_another():
    starts = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    wanted = torch.tensor([0.6, 0.4, 0.0])
    whole = reach_target(linear, starts, wanted)
    parts = reach_target(linear, starts, wanted, batch_size=7)
    torch.testing.assert_close(whole.point, parts.point)
