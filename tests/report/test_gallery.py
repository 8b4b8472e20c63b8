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
