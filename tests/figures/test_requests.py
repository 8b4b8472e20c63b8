import numpy as np
import pytest
import torch
from torch import Tensor

from failscape.figures import requested_against_obtained
from failscape.metrics import QuantileBands, quantile_bands

REQUESTED = torch.linspace(0.5, 1, 5001)


def panel(spread: float) -> tuple[Tensor, Tensor, QuantileBands]:
    noise = torch.randn(len(REQUESTED), generator=torch.Generator().manual_seed(0))
    obtained = (REQUESTED + spread * noise).clamp(0.4, 1)
    return REQUESTED, obtained, quantile_bands(REQUESTED, obtained)


def test_dots_bands_and_median_are_what_was_given() -> None:
    requested, obtained, bands = panel(0.05)
    (ax,) = requested_against_obtained({"alone": (requested, obtained, bands)}, x_label="in", y_label="out").axes
    diagonal, dots, median = ax.lines
    assert (diagonal.get_xydata() == [[0, 0], [1, 1]]).all()
    # Every second of 5,001 dots, so that no more than 3,000 are drawn.
    assert np.allclose(dots.get_xydata(), torch.stack([requested, obtained], dim=1)[::2])
    # Requests are spread evenly, so the median one is the middle of its bin.
    assert np.allclose(median.get_xydata(), torch.stack([bands.centre, bands.quantiles[:, 2]], dim=1), atol=1e-4)
    for band, (low, high) in zip(ax.collections, ((0, 4), (1, 3)), strict=True):
        extents = band.get_paths()[0].get_extents()
        assert extents.y0 == pytest.approx(float(bands.quantiles[:, low].min()))
        assert extents.y1 == pytest.approx(float(bands.quantiles[:, high].max()))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("in", "out")


def test_panels_share_axes_that_hold_all_dots_and_one_legend() -> None:
    panels = {"generator alone": panel(0.1), "refined": panel(0.01)}
    drawing = requested_against_obtained(panels, x_label="in", y_label="out")
    first, second = drawing.axes
    assert [ax.get_title(loc="left") for ax in (first, second)] == list(panels)
    assert first.get_xlim() == first.get_ylim() == second.get_xlim() == second.get_ylim()
    assert first.get_xlim()[0] < 0.4
    assert (first.get_ylabel(), second.get_ylabel()) == ("out", "")
    (legend,) = drawing.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["obtained = requested", "5 to 95 %", "25 to 75 %", "median"]


def test_what_is_obtained_as_requested_lies_on_the_diagonal_however_requests_crowd() -> None:
    requested = torch.cat([torch.full((20,), 0.5), torch.linspace(0.91, 0.94, 20), torch.full((5,), 1.0)])
    bands = quantile_bands(requested, requested)
    (ax,) = requested_against_obtained({"": (requested, requested, bands)}, x_label="in", y_label="out").axes
    # Bins without requests are passed over.
    assert np.allclose(ax.lines[2].get_xydata(), [[0.5, 0.5], [0.925, 0.925], [1, 1]], atol=2e-3)
