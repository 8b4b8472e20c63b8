import torch

from failscape.search import label_changes


def scan(points: int) -> torch.Tensor:
    return torch.linspace(0, 1, points, dtype=torch.float64)


def test_every_change_is_bracketed_where_it_is() -> None:
    edges = torch.tensor([[0.2, 0.55, 0.9], [1 / 3, 0.7, 2.0]], dtype=torch.float64)

    def labels(t: torch.Tensor, line: torch.Tensor) -> torch.Tensor:
        return (t[:, None] >= edges[line]).sum(dim=1)

    points = scan(9)
    scanned = torch.stack([labels(points, torch.full((9,), line)) for line in (0, 1)])
    found = label_changes(labels, points, scanned, tolerance=1e-7)
    assert found.line.tolist() == [0, 0, 0, 1, 1]
    truth = edges.flatten()[:5]
    assert (found.low < truth).all()
    assert (truth <= found.high).all()
    assert (found.high - found.low <= 1e-7).all()
    assert found.before.tolist() == [0, 1, 2, 0, 1]
    assert found.after.tolist() == [1, 2, 3, 1, 2]


def test_a_label_met_only_in_the_middle_makes_two_changes() -> None:
    found = label_changes(
        lambda t, line: torch.where((t > 0.45) & (t < 0.6), 7, (t > 0.5).long()),
        scan(2),
        torch.tensor([[0, 1]]),
        tolerance=1e-6,
    )
    assert found.before.tolist() == [0, 7]
    assert found.after.tolist() == [7, 1]
    assert torch.allclose(found.high, torch.tensor([0.45, 0.6], dtype=torch.float64), atol=1e-6)


def test_lines_without_a_change_have_no_brackets() -> None:
    found = label_changes(lambda t, line: 0 * line, scan(3), torch.zeros(4, 3, dtype=torch.long), tolerance=1e-3)
    assert len(found.line) == len(found.low) == len(found.after) == 0
