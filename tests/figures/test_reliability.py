import numpy as np
import torch

from failscape.figures import reliability_diagram

NAN = float("nan")
CONFIDENCE = {"before": torch.tensor([NAN, 0.4, 0.9]), "after": torch.tensor([0.2, 0.5, 0.8])}
ACCURACY = {"before": torch.tensor([NAN, 0.5, 0.7]), "after": torch.tensor([0.0, 0.5, 0.9])}
INTERVALS = {name: (values - 0.1, values + 0.05) for name, values in ACCURACY.items()}
COUNTS = {"before": torch.tensor([0, 10, 90]), "after": torch.tensor([5, 15, 80])}


def test_points_lie_where_confidence_and_accuracy_say_and_empty_bins_are_left_out() -> None:
    upper, lower = reliability_diagram(CONFIDENCE, ACCURACY, INTERVALS, COUNTS).axes
    before, after = upper.containers
    assert np.allclose(before[0].get_xydata(), [[0.4, 0.5], [0.9, 0.7]])
    assert np.allclose(after[0].get_xydata(), [[0.2, 0.0], [0.5, 0.5], [0.8, 0.9]])
    segments = before[2][0].get_segments()
    assert np.allclose([segment[:, 1] for segment in segments], [[0.4, 0.55], [0.6, 0.75]], atol=1e-6)
    assert (upper.lines[0].get_xydata() == [[0, 0], [1, 1]]).all()
    assert [[bar.get_height() for bar in bars] for bars in lower.containers] == [[0, 10, 90], [5, 15, 80]]


def test_bars_stand_side_by_side_within_their_bin() -> None:
    _, lower = reliability_diagram(CONFIDENCE, ACCURACY, INTERVALS, COUNTS).axes
    for bars in zip(*lower.containers, strict=True):
        edges = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]
        assert edges[0][1] <= edges[1][0] + 1e-9
        assert np.floor(3 * edges[0][0]) == np.floor(3 * edges[1][1])


def test_series_are_told_apart_without_colour() -> None:
    upper, lower = reliability_diagram(CONFIDENCE, ACCURACY, INTERVALS, COUNTS).axes
    assert len({(points[0].get_marker(), points[0].get_linestyle()) for points in upper.containers}) == 2
    assert len({bars[0].get_hatch() for bars in lower.containers}) == 2
