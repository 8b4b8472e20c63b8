import pytest
import torch

from failscape.figures import heat_tables

RATES = torch.tensor([[0.975, 0.5], [0.0, float("nan")]])
LABELS = {"row_labels": ["noise", "blur"], "column_labels": ["1", "2"], "x_label": "severity"}


def test_every_number_stands_in_its_cell_legibly() -> None:
    drawing = heat_tables({"one": RATES}, **LABELS)
    (ax,) = drawing.axes
    shown = {text.get_position(): text for text in ax.texts}
    assert {place: text.get_text() for place, text in shown.items()} == {(0, 0): "97.5", (1, 0): "50.0", (0, 1): "0.0"}
    (picture,) = ax.images
    for (column, row), text in shown.items():
        red, green, blue, _ = picture.cmap(picture.norm(picture.get_array()[row, column]))
        light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        assert abs(light - (1.0 if text.get_color() == "white" else 0.0)) >= 0.5
    assert [label.get_text() for label in ax.get_yticklabels()] == ["noise", "blur"]


@pytest.mark.parametrize(("count", "beside"), [(1, 1), (2, 2), (3, 2), (4, 2)])
def test_tables_stand_two_in_a_row(count: int, beside: int) -> None:
    drawing = heat_tables({str(i): RATES for i in range(count)}, **LABELS)
    visible = [ax for ax in drawing.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in visible] == [str(i) for i in range(count)]
    assert visible[0].get_subplotspec().get_gridspec().ncols == beside
