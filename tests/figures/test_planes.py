import numpy as np
import pytest
import torch

from failscape.figures import LatentPlane, latent_plane
from failscape.figures.planes import area_labels

NAMES = tuple("abc")


def halves(classes=None, **changes):
    """Class 0 left of zero, class 2 right of it, unless given otherwise; the loss rises to the left."""
    across = torch.linspace(-2, 2, 41).expand(41, 41)
    settings = {
        "classes": torch.where(across < 0, 0, 2) if classes is None else classes,
        "loss": 2 - across if classes is None else torch.zeros(classes.shape),
        "extent": (-2.0, 2.0, -1.0, 1.0),
        "path": torch.tensor([[-1.0, 0.5], [0.5, 0.5], [1.0, -0.5]]),
        "target": 2,
        "first_success": 1,
    }
    return LatentPlane(**settings | changes)


def test_names_stand_inside_their_own_areas_and_off_the_path():
    plane = halves()
    places = area_labels(plane)
    assert {label for label, _, _ in places} == {0, 2}
    for label, row, column in places:
        assert plane.classes[row, column] == label
        point = torch.tensor([-2 + 4 * column / 40, -1 + 2 * row / 40])
        assert (plane.path - point).norm(dim=1).min() > 0.2


def test_a_class_without_room_gets_no_name():
    classes = torch.zeros(40, 40, dtype=torch.long)
    classes[20, 20] = 1
    assert {label for label, _, _ in area_labels(halves(classes=classes))} == {0}


def test_two_areas_of_one_class_far_apart_both_get_its_name():
    classes = torch.zeros(60, 60, dtype=torch.long)
    classes[:, 20:40] = 1
    labelled = [label for label, _, _ in area_labels(halves(classes=classes))]
    assert labelled.count(0) >= 2


def test_path_markers_stand_where_the_search_was():
    drawing = latent_plane(halves(), NAMES, more_paths={"baseline": torch.zeros(2, 2)}, path_name="ours")
    marks = {}
    for line in drawing.axes[0].lines:
        marks.setdefault(line.get_marker(), []).append([float(v) for v in line.get_xydata()[0]])
    assert marks["^"] == [[-1.0, 0.5], [0.0, 0.0]]
    assert marks["o"] == [[0.5, 0.5]], "only the plane's own path has a first success"
    assert marks["*"] == [[1.0, -0.5], [0.0, 0.0]]
    assert [text.get_text() for text in drawing.legends[0].get_texts()] == ["ours", "baseline"]


def test_contours_lie_where_the_loss_has_their_value():
    drawing = latent_plane(halves(), NAMES)
    contours = [c for c in drawing.axes[0].collections if len(getattr(c, "levels", ())) > 1]
    assert len(contours) == 1
    for level, path in zip(contours[0].levels, contours[0].get_paths(), strict=True):
        assert np.allclose(path.vertices[:, 0], 2 - level, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 5)])
def test_a_plane_of_a_single_row_is_drawn_without_contours(size):
    plane = halves(classes=torch.zeros(size, dtype=torch.long))
    texts = [text.get_text() for text in latent_plane(plane, NAMES).axes[0].texts]
    assert texts == []
