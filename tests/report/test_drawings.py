import base64
import io
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from failscape.figures import LatentPlane, Line
from failscape.figures.colours import class_tint
from failscape.report.drawings import LINE_HEIGHT, LINE_WIDTH, PLANE_WIDTH, draw_line, draw_plane

NAMES = ("a", "b")


def plane(**changes):
    """Class 1 in the upper half; the loss falls to the right; the window is twice as wide as high."""
    up = torch.linspace(1, 3, 21)[:, None].expand(21, 41)
    settings = {
        "classes": (up > 2).long(),
        "loss": (5 - torch.linspace(0, 4, 41)).expand(21, 41),
        "extent": (0.0, 4.0, 1.0, 3.0),
        "path": torch.tensor([[1.0, 1.5], [3.0, 2.5]]),
        "target": 1,
    }
    return LatentPlane(**settings | changes)


def test_path_points_land_at_their_coordinates_with_the_second_axis_upwards():
    drawing = draw_plane(plane(first_success=1), NAMES)
    assert drawing.height == PLANE_WIDTH / 2
    assert drawing.path == "80.0,120.0 240.0,40.0"
    assert (drawing.start, drawing.success, drawing.end) == ((80, 120), (240, 40), (240, 40))
    assert "starts in the area of class a and ends in that of class b" in drawing.described


def test_area_picture_has_the_classes_where_the_path_sees_them():
    drawing = draw_plane(plane(), NAMES)
    x0, y0, width, height = drawing.areas_box
    picture = Image.open(io.BytesIO(base64.b64decode(drawing.areas.partition(",")[2]))).convert("RGB")
    pixels = np.asarray(picture)

    def colour_at(x, y):
        column, row = (x - x0) / width * pixels.shape[1], (y - y0) / height * pixels.shape[0]
        return pixels[int(row), int(column)].tolist()

    tints = [[round(255 * part) for part in to_rgb(class_tint(label))] for label in (0, 1)]
    assert colour_at(*drawing.start) == tints[0]
    assert colour_at(*drawing.end) == tints[1]
    assert {name: colour_at(x, y) for name, x, y in drawing.names} == dict(zip(NAMES, tints, strict=True))


def test_grid_points_are_the_middles_of_the_area_pictures_cells():
    x0, y0, width, height = draw_plane(plane(), NAMES).areas_box
    assert (x0 + width / 41 / 2, x0 + width - width / 41 / 2) == pytest.approx((0, PLANE_WIDTH))
    assert (y0 + height / 21 / 2, y0 + height - height / 21 / 2) == pytest.approx((0, PLANE_WIDTH / 2))


def test_contours_lie_where_the_loss_has_their_value():
    drawing = draw_plane(plane(), NAMES)
    exact = {"2.3": 2.303, "4.6": 4.605}
    assert {level for level, *_ in drawing.contours} == set(exact)
    for level, path, *_ in drawing.contours:
        across = [float(x) for x in re.findall(r"([\d.]+),", path)]
        assert across == pytest.approx([(5 - exact[level]) / 4 * PLANE_WIDTH] * len(across), abs=0.1)


def test_curves_run_from_edge_to_edge_with_one_at_the_top():
    x = torch.linspace(2, 4, 3)
    line = Line(x=x, curves={"up": torch.tensor([0.0, 0.5, 1.0]), "flat": torch.zeros(3)}, x_label="way")
    drawing = draw_line(line)
    assert drawing.curves[0][:2] == (
        "up",
        f"0.0,{LINE_HEIGHT} {LINE_WIDTH / 2},{LINE_HEIGHT / 2} {LINE_WIDTH},0.0",
    )
    assert drawing.curves[1][0] == "", "a curve that never matters is not named"
    assert drawing.ends == ("2", "4")
    assert drawing.described == "Curves over way: up from 0.00 to 1.00."


def test_names_of_curves_that_end_together_do_not_overlap():
    curves = {str(k): torch.tensor([1.0, 0.01 * k]) for k in range(6)}
    drawing = draw_line(Line(x=torch.tensor([0.0, 1.0]), curves=curves, x_label="way"))
    heights = sorted(height for _, _, height in drawing.curves)
    assert all(b - a >= 13 - 0.1 for a, b in pairwise(heights))
    assert heights[-1] <= LINE_HEIGHT


def test_the_longest_name_has_room_beside_its_curve():
    def room(*names):
        curves = {name: torch.tensor([0.0, 1.0]) for name in names}
        return draw_line(Line(x=torch.tensor([0.0, 1.0]), curves=curves, x_label="way")).room

    assert room("a", "b") == room("a") < room("a", "a rather long name") < room("a rather long name, and longer")
    unnamed = {"a rather long name": torch.tensor([0.0, 0.01])}
    assert draw_line(Line(x=torch.tensor([0.0, 1.0]), curves=unnamed, x_label="way")).room == room("a")
