import math

import torch
from torch import Tensor

from failscape.training.augmentation import jitter


def centre(x: Tensor) -> Tensor:
    """The centre of mass, (N, 2), in pixels across and down from the middle."""
    height, width = x.shape[2:]
    mass = x.sum(dim=(1, 2, 3))
    across = (x.sum(dim=(1, 2)) * (torch.arange(width) - (width - 1) / 2)).sum(dim=1) / mass
    down = (x.sum(dim=(1, 3)) * (torch.arange(height) - (height - 1) / 2)).sum(dim=1) / mass
    return torch.stack([across, down], dim=1)


def blob(n: int, *, across: float = 0, down: float = 0, height: int = 40, width: int = 24) -> Tensor:
    rows = torch.arange(height)[:, None] - (height - 1) / 2 - down
    columns = torch.arange(width)[None] - (width - 1) / 2 - across
    return torch.exp(-(rows**2 + columns**2) / 8).expand(n, 1, height, width)


def test_without_amounts_changes_nothing() -> None:
    x = torch.rand(3, 2, 9, 6, generator=torch.Generator().manual_seed(0))

    same = jitter(x, rng=torch.Generator(), max_shift=0.0, max_angle=0.0, max_scale=0.0)

    torch.testing.assert_close(same, x)


def test_shifts_fill_their_range_in_pixels() -> None:
    moved = jitter(blob(500), rng=torch.Generator().manual_seed(0), max_angle=0.0, max_scale=0.0)

    offsets = centre(moved)
    assert offsets.abs().max() <= 2.01
    assert (offsets.amin(dim=0) < -1.9).all()
    assert (offsets.amax(dim=0) > 1.9).all()


def test_rotation_keeps_distances_on_images_that_are_not_square() -> None:
    x = blob(500, down=8)

    offsets = centre(jitter(x, rng=torch.Generator().manual_seed(0), max_shift=0.0, max_scale=0.0))

    torch.testing.assert_close(offsets.norm(dim=1), torch.full((500,), 8.0), atol=0.05, rtol=0)
    angles = torch.atan2(offsets[:, 0], offsets[:, 1]) * 180 / math.pi
    assert 9.5 < angles.abs().max() < 10.1


def test_scale_moves_points_outwards_and_inwards_in_proportion() -> None:
    offsets = centre(jitter(blob(500, down=8), rng=torch.Generator().manual_seed(0), max_shift=0.0, max_angle=0.0))

    assert 7.1 < offsets[:, 1].min() < 7.3
    assert 8.7 < offsets[:, 1].max() < 8.9


def test_the_generator_decides_alone() -> None:
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    first, again, other = (jitter(x, rng=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
