import torch

from failscape.figures import Finding, Panel
from failscape.report.first_page import choose_findings, view_findings


def panel(value=0.5, signed=False):
    return Panel(label="after: 4", pixels=torch.full((1, 2, 2), value), signed=signed)


def chosen(*counts):
    """Return which finding of which step leads, steps having so many findings each."""
    findings = [[Finding(sentence=f"{'abcdef'[k]}{i}.") for i in range(count)] for k, count in enumerate(counts)]
    views = [view_findings(each, "s1", "Title") for each in findings]
    return [view.sentence for view in choose_findings(views)]


def test_each_step_speaks_once_before_any_speaks_twice():
    assert chosen(2, 0, 3, 1) == ["a0.", "c0.", "d0.", "a1.", "c1."]
    assert chosen(1, 1) == ["a0.", "b0."]
    assert chosen(9) == ["a0.", "a1.", "a2.", "a3.", "a4."]
    assert chosen(1, 1, 1, 1, 1, 1) == ["a0.", "b0.", "c0.", "d0.", "e0."]
    assert chosen() == chosen(0, 0) == []


def test_a_picture_says_its_place_what_it_shows_and_how_much_was_changed():
    panels = (panel(), panel(-0.25, signed=True))
    (view,) = view_findings([Finding(sentence="It fails.", panels=panels)], "s1", "Title")
    assert [each.alt for each in view.panels] == [
        "Picture 1 of 2, after: 4",
        "Picture 2 of 2, after: 4: at most 0.25 removed and 0.00 added",
    ]
    assert view.scale == "0.25"
    assert (view.step, view.title) == ("s1", "Title")


def test_pictures_stand_in_rows_of_about_the_same_length():
    def across(count):
        (view,) = view_findings([Finding(sentence=".", panels=[panel()] * count)], "s1", "Title")
        assert view.scale == ""
        return view.across

    assert [across(n) for n in (0, 1, 3, 4, 5, 6)] == [(0, 0), (1, 1), (3, 3), (4, 2), (3, 3), (3, 3)]


def test_the_first_sentence_leads_and_the_others_follow():
    said = "Blur hurts most: 0.92 of it. It is right in 99.2 % (n = 250). The rest is below."
    (view,) = view_findings([Finding(sentence=said)], "s1", "Title")
    assert view.sentence == "Blur hurts most: 0.92 of it."
    assert view.detail == "It is right in 99.2 % (n = 250). The rest is below."
    said = "One direction turns a sure St. Bernard into a 7. Others do not."
    (view,) = view_findings([Finding(sentence=said)], "s1", "Title")
    assert view.sentence == "One direction turns a sure St. Bernard into a 7."
    (alone,) = view_findings([Finding(sentence="It fails.")], "s1", "Title")
    assert (alone.sentence, alone.detail) == ("It fails.", "")
