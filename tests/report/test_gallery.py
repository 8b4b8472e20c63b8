import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from toy import toy_result

from failscape.figures import Case, Gallery, Panel
from failscape.report.gallery import MAX_CASES, view_gallery


def gallery(cases, names=("a", "b", "c")):
    return Gallery(name="g", title="", caption="", class_names=names, cases=cases)


def pixels_of(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_panels_hold_the_very_pixels():
    result = toy_result(2)
    (_, cases) = result.figures
    panel = view_gallery(cases, "f").cases[1].panels[0]
    assert (pixels_of(panel.uri) == (result.originals[1, 0] * 255).round().numpy()).all()


def test_signed_panels_of_a_case_share_one_scale_that_is_stated():
    panels = [Panel(label=n, pixels=torch.full((1, 2, 2), v), signed=True) for n, v in (("p", 0.1), ("q", -0.4))]
    (case,) = view_gallery(gallery([Case(id="0", heading="", verdict="", good=True, panels=panels)]), "f").cases
    assert case.scale == "0.4"
    shown = [int(pixels_of(panel.uri)[0, 0, 1]) for panel in case.panels]
    assert 128 < shown[0] < 160
    assert shown[1] < 50
    assert case.panels[1].alt.endswith("at most 0.40 removed and 0.00 added")


def test_bars_keep_what_matters_and_add_up_to_one():
    probs = torch.tensor([0.001, 0.7, 0.004, 0.295])
    case = Case(id="0", heading="", verdict="", good=True, panels=(), probabilities={"before": probs})
    (view,) = view_gallery(gallery([case], ("a", "b", "c", "d")), "f").cases
    assert [name for name, _ in view.bars] == ["b", "d", "all others"]
    assert [cells[0][1] for _, cells in view.bars] == ["70.0 %", "29.5 %", "0.5 %"]
    assert sum(cells[0][0] for _, cells in view.bars) == pytest.approx(1)


def test_numbers_can_be_sorted_by_their_value():
    texts = ["1.5 px", "−2", "n/a", "1,200", "3e-2"]
    cases = [Case(id=t, heading="", verdict="", good=True, panels=(), numbers={"n": t}) for t in texts]
    assert [case.sort for case in view_gallery(gallery(cases), "f").cases] == [[1.5], [-2], [None], [1200], [0.03]]


def test_of_too_many_cases_the_failures_are_kept_in_their_order():
    cases = [Case(id=str(i), heading="", verdict="", good=i % 100 != 99, panels=()) for i in range(MAX_CASES + 300)]
    view = view_gallery(gallery(cases), "f")
    ids = [int(case.id) for case in view.cases]
    assert len(ids) == MAX_CASES
    assert ids == sorted(ids)
    assert [i for i in ids if i % 100 == 99] == [99, 199, 299, 399, 499]
    assert (view.left_out, view.good, view.bad) == (300, MAX_CASES + 295, 5)


def test_kinds_are_offered_only_when_they_group_cases():
    def kinds(*headings):
        cases = [Case(id=h, heading=h, verdict="", good=True, panels=()) for h in headings]
        return view_gallery(gallery(cases), "f").kinds

    assert kinds("x", "y", "x") == [("x", 2), ("y", 1)]
    assert kinds("x", "y") == kinds("x", "x") == []


def test_a_signed_panel_stands_under_the_picture_whose_label_it_bears():
    def panel(label, value=0.5, signed=False):
        return Panel(label=label, pixels=torch.full((1, 2, 2), value), signed=signed)

    panels = [
        panel("real"),
        panel("1.00"),
        panel("0.90"),
        panel("0.90", -0.2, signed=True),
        panel("0.90"),
        panel("change", 0.1, signed=True),
        panel("change", 0.1, signed=True),
    ]
    (view,) = view_gallery(gallery([Case(id="0", heading="", verdict="", good=True, panels=panels)]), "f").cases
    assert [each.term.text for each in view.panels] == ["real", "1.00", "0.90", "0.90", "change", "change"]
    below = [each.below for each in view.panels]
    assert [each is not None for each in below] == [False, False, True, False, False, False]
    assert below[2] is not None
    assert below[2].alt == "0.90 of image 0: at most 0.20 removed and 0.00 added"


@pytest.mark.parametrize(
    ("count", "wide", "across"),
    [
        (0, False, (0, 0)),
        (4, False, (4, 4)),
        (6, False, (6, 6)),
        (7, True, (7, 4)),
        (10, True, (10, 5)),
        (11, True, (11, 6)),
        (13, True, (7, 5)),
        (25, True, (9, 5)),
    ],
)
def test_many_pictures_are_set_in_rows_of_about_the_same_length(count, wide, across):
    panels = [Panel(label=str(i), pixels=torch.zeros(1, 2, 2)) for i in range(count)]
    view = view_gallery(gallery([Case(id="0", heading="", verdict="", good=True, panels=panels)]), "f")
    assert (view.cases[0].wide, view.cases[0].across) == (wide, across)
    assert view.wide == wide
    assert view.order == [str(i) for i in range(count)]
