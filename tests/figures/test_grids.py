import numpy as np
import torch

from failscape.figures import difference_map, image_grid


def test_grid_shows_each_image_in_its_place_with_labels():
    images = torch.rand(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    drawing = image_grid(images, row_labels=["r0", "r1"], column_labels=["a", "b", "c"])
    axes = np.array(drawing.axes).reshape(2, 3)
    for row in range(2):
        for column in range(3):
            shown = axes[row, column].images[0]
            assert (shown.get_array() == images[row, column, 0].numpy()).all()
            assert shown.get_clim() == (0, 1)
            assert shown.get_interpolation() == "nearest"
    assert [ax.get_title() for ax in axes[0]] == ["a", "b", "c"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["r0", "r1"]


def test_signed_columns_share_one_scale_centred_on_zero():
    images = torch.zeros(2, 2, 1, 3, 3)
    images[0, 1, 0, 0, 0], images[1, 1, 0, 0, 0] = 0.25, -0.75
    drawing = image_grid(images, signed_columns=[1])
    axes = np.array(drawing.axes[:4]).reshape(2, 2)
    assert [ax.images[0].get_clim() for ax in axes[:, 1]] == [(-0.75, 0.75)] * 2
    assert [ax.images[0].get_clim() for ax in axes[:, 0]] == [(0, 1)] * 2
    assert len(drawing.axes) == 5, "the colour bar states the scale"


def test_colour_images_show_their_pixels_and_signed_ones_lie_about_middle_grey():
    images = torch.zeros(1, 2, 3, 2, 2)
    images[0, 0, 0] = 1.0
    images[0, 1, 2, 0, 0] = -0.5
    plain, signed = (ax.images[0].get_array() for ax in image_grid(images, signed_columns=[1]).axes)
    assert plain[0, 0].tolist() == [1, 0, 0]
    assert signed[1, 1].tolist() == [0.5] * 3
    assert signed[0, 0].tolist() == [0.5, 0.5, 0.0]


def test_difference_map_is_symmetrical_about_zero():
    drawing = difference_map(torch.tensor([[0.1, -0.3], [0.0, 0.2]]), label="mean difference")
    low, high = drawing.axes[0].images[0].get_clim()
    assert -low == high == torch.tensor(0.3).item()
    assert drawing.axes[1].get_ylabel() == "mean difference"
