import numpy as np
import pytest
import torch

from failscape.figures import curves_with_bands, histogram_pair, rate_bars


def test_curves_differ_in_line_style_and_marker_and_bands_enclose_what_was_given():
    x = torch.linspace(0, 1, 9)
    drawing = curves_with_bands(x, {"a": x, "b": 1 - x}, bands={"a": (x - 0.1, x + 0.1)}, x_label="x", y_label="y")
    (ax,) = drawing.axes
    assert len({(line.get_linestyle(), line.get_marker()) for line in ax.lines}) == 2
    assert np.allclose(ax.lines[1].get_ydata(), 1 - x.numpy())
    band = ax.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == pytest.approx((-0.1, 1.1))


def test_histograms_are_shares_on_common_bins_without_values_that_are_not_finite():
    first, second = torch.tensor([0.0, 1.0, 1.0, float("nan")]), torch.tensor([0.0, 4.0])
    (ax,) = histogram_pair(first, second, names=("a", "b"), x_label="norm", bins=4).axes
    shares = [step.get_data() for step in ax.patches]
    assert (shares[0].edges == shares[1].edges).all()
    assert [share.values.sum() for share in shares] == [1, 1]
    assert shares[0].values.tolist() == pytest.approx([1 / 3, 2 / 3, 0, 0])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a (n = 3)", "b (n = 2)"]


def test_rate_bars_have_their_height_and_interval():
    drawing = rate_bars(
        {"ours": [1.0, 0.5], "theirs": [0.2, float("nan")]},
        {"ours": [(0.9, 1.0), (0.4, 0.7)]},
        groups=["0", "1"],
        y_label="success",
    )
    ax = drawing.axes[0]
    assert [bar.get_height() for bar in ax.containers[0]] == [1.0, 0.5]
    segments = next(c for c in ax.collections if hasattr(c, "get_segments")).get_segments()
    assert [tuple(segment[:, 1]) for segment in segments] == [
        pytest.approx((0.9, 1.0)),
        pytest.approx((0.4, 0.7)),
    ]
    assert len({bar.get_hatch() for container in ax.containers[:3:2] for bar in container}) == 2


@pytest.mark.parametrize("names", [("before", "retrained", "control", "data alone"), ("a", "b")])
def test_the_legend_of_few_bars_lies_within_the_drawing(names):
    drawing = rate_bars({name: [0.5] for name in names}, groups=["by the labels"], y_label="rate")
    drawing.canvas.draw()
    box = drawing.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= drawing.bbox.x1
