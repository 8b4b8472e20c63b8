import torch
from torch import Tensor

from failscape.search import grid_points, search_grid

CENTRES = torch.tensor([[2.0, -1.0], [-3.0, 0.5], [30.0, 0.0]])
RADIUS = 0.5


def objective(epsilon: Tensor, rows: Tensor) -> Tensor:
    return RADIUS - (epsilon - CENTRES[rows]).norm(dim=1)


def test_nearest_valid_point_within_one_cell() -> None:
    low, high = torch.full((3, 2), -4.0), torch.full((3, 2), 5.0)
    found = search_grid(objective, low, high, torch.arange(3), resolution=150)
    assert found.reachable.tolist() == [True, True, False]
    assert found.epsilon[2].isnan().all()
    cell = 2**0.5 * 9 / 149
    nearest = CENTRES.norm(dim=1) - RADIUS
    norm = found.epsilon.norm(dim=1)
    assert (objective(found.epsilon[:2], torch.arange(2)) >= 0).all()
    assert (norm[:2] >= nearest[:2] - 1e-5).all()
    assert (norm[:2] <= nearest[:2] + cell).all()


def test_every_row_has_its_box() -> None:
    # Two rows of the problem in another order; the second's region lies outside its box.
    low = torch.tensor([[-4.0, -1.0], [2.6, -2.0]])
    high = torch.tensor([[-2.0, 1.0], [4.0, 2.0]])
    found = search_grid(objective, low, high, torch.tensor([1, 0]), resolution=60)
    assert found.reachable.tolist() == [True, False]


def test_points_cover_the_box_the_first_coordinate_fastest() -> None:
    points = grid_points(torch.tensor([0.0, 10.0]), torch.tensor([1.0, 12.0]), 3)
    assert points.tolist() == [[a, b] for b in (10.0, 11.0, 12.0) for a in (0.0, 0.5, 1.0)]
