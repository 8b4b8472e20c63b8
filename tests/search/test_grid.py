import torch
from torch import Tensor

from failscape.search import grid_points, search_grid

# Row n is valid within a disc of the plane; the last lies outside every box used here.
MIDDLES = torch.tensor([[2.0, -1.0], [-3.0, 0.5], [30.0, 0.0]])
CENTRES = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
RADIUS = 0.5
LOW, HIGH = torch.tensor([-4.0, -4.0]), torch.tensor([5.0, 5.0])


def scores(points: Tensor) -> Tensor:
    return RADIUS - torch.cdist(MIDDLES, points)


def test_nearest_valid_point_within_one_cell() -> None:
    found = search_grid(scores, CENTRES, LOW, HIGH, resolution=150)
    assert found.reachable.tolist() == [True, True, False]
    assert found.epsilon[2].isnan().all()
    ends = (CENTRES + found.epsilon)[:2]
    assert ((ends - MIDDLES[:2]).norm(dim=1) <= RADIUS).all()
    nearest = (MIDDLES - CENTRES).norm(dim=1)[:2] - RADIUS
    norm, cell = found.epsilon.norm(dim=1)[:2], 2**0.5 * 9 / 149
    assert (norm >= nearest - 1e-5).all()
    assert (norm <= nearest + cell).all()


def test_of_all_points_tried_one_by_one_the_nearest() -> None:
    # 40 x 40 points are more than go into one call.
    points = grid_points(LOW, HIGH, 40)
    found = search_grid(scores, CENTRES, LOW, HIGH, resolution=40)
    for row in (0, 1):
        valid = points[(points - MIDDLES[row]).norm(dim=1) <= RADIUS]
        assert len(valid) > 1
        norms = (valid - CENTRES[row]).norm(dim=1)
        assert torch.isclose(found.epsilon[row].norm(), norms.min())


def test_what_lies_outside_the_box_is_not_found() -> None:
    found = search_grid(scores, CENTRES, torch.tensor([-4.0, -1.0]), torch.tensor([-2.0, 1.0]), resolution=60)
    assert found.reachable.tolist() == [False, True, False]


def test_a_point_is_asked_about_once_for_all_rows() -> None:
    asked = []

    def watched(points: Tensor) -> Tensor:
        asked.append(points)
        return scores(points)

    search_grid(watched, CENTRES, LOW, HIGH, resolution=40)
    assert torch.equal(torch.cat(asked), grid_points(LOW, HIGH, 40))


def test_points_cover_the_box_the_first_coordinate_fastest() -> None:
    points = grid_points(torch.tensor([0.0, 10.0]), torch.tensor([1.0, 12.0]), 3)
    assert points.tolist() == [[a, b] for b in (10.0, 11.0, 12.0) for a in (0.0, 0.5, 1.0)]
