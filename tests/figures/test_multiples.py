import numpy as np
import torch

from failscape.figures import small_multiples


def test_each_curve_has_a_panel_with_its_band_and_all_others_behind_it() -> None:
    x = torch.linspace(0, 1, 5)
    curves = {str(k): x * k / 7 for k in range(7)}
    drawing = small_multiples(
        x, curves, bands={"3": (x - 0.1, x + 0.1)}, notes=[f"n{k}" for k in range(7)], x_label="x", y_label="y"
    )
    shown = [ax for ax in drawing.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in shown] == [f"{k}   n{k}" for k in range(7)]
    assert len(drawing.axes) == 10
    for k, ax in enumerate(shown):
        assert len(ax.lines) == 7
        assert np.allclose(ax.lines[-1].get_ydata(), curves[str(k)].numpy())
        assert len({line.get_color() for line in ax.lines[:-1]}) == 1
        assert len(ax.collections) == (k == 3)
    band = shown[3].collections[0].get_paths()[0].get_extents()
    assert np.allclose([band.y0, band.y1], [-0.1, 1.1])
    assert all(ax.get_ylim() == shown[0].get_ylim() for ax in shown)


def test_one_curve_is_one_panel() -> None:
    x = torch.linspace(0, 1, 3)
    assert len(small_multiples(x, {"a": x}, bands={}, x_label="x", y_label="y").axes) == 1
