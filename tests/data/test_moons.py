import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons

from failscape.data import load_images
from failscape.data.moons import WINDOW, images_to_points, points_to_images
from failscape.errors import ImageError, SpecError


def test_the_points_are_those_of_scikit_learn_and_lose_nothing_as_images() -> None:
    images = load_images("moons:test")
    points, labels = make_moons(5000, noise=0.3, random_state=2)
    assert images.image_shape == (2, 1, 1)
    assert np.abs(images_to_points(images.x).numpy() - points).max() < 1e-6
    assert np.array_equal(images.y.numpy(), labels)
    # Neither kept in 8 bits nor moved to the edge of the window.
    assert len(images.x[:, 0].unique()) > 4990
    assert images.x.min() > 0
    assert images.x.max() < 1
    assert torch.equal(images.read(torch.arange(5)), images.x[:5])


def test_specs() -> None:
    assert load_images("moons").fingerprint() == load_images("moons:test").fingerprint()
    train = load_images("moons:train")
    assert (len(train), len(load_images("moons"))) == (20_000, 5_000)
    assert train.ids[0] == "moons-train-00000"
    assert train.class_names == ("upper", "lower")
    assert train.y.bincount().tolist() == [10_000, 10_000]
    test = {tuple(point) for point in load_images("moons").x.flatten(1).tolist()}
    assert not test & {tuple(point) for point in train.x.flatten(1).tolist()}, "a test point is among those to learn"
    with pytest.raises(SpecError, match="Did you mean moons"):
        load_images("mons")


def test_upper_and_lower_name_the_moon() -> None:
    images = load_images("moons:train")
    heights = [float(images_to_points(images.x[images.y == label])[:, 1].mean()) for label in (0, 1)]
    assert heights == pytest.approx([2 / np.pi, 0.5 - 2 / np.pi], abs=0.01)


def test_points_and_images_are_inverse_within_the_window_and_clipped_beyond() -> None:
    low, high = torch.tensor(WINDOW).T
    inside = low + torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) * (high - low)
    assert torch.allclose(images_to_points(points_to_images(inside)), inside, atol=1e-6)
    assert torch.equal(points_to_images(torch.stack([low, high])).flatten(1), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    beyond = images_to_points(points_to_images(torch.tensor([[-99.0, 99.0]])))
    assert torch.equal(beyond, torch.tensor([[WINDOW[0][0], WINDOW[1][1]]]))


@pytest.mark.usefixtures("as_installed")
def test_what_is_no_point_is_refused() -> None:
    with pytest.raises(ImageError, match=r"shape \(N, 2\), but got \(3, 3\)"):
        points_to_images(torch.zeros(3, 3))
    with pytest.raises(ImageError, match=r"\(N, 2, 1, 1\), but got \(3, 1, 28, 28\)"):
        images_to_points(torch.zeros(3, 1, 28, 28))
