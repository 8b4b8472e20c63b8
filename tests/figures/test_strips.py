import numpy as np
import torch

from failscape.figures import strips


def test_each_group_has_a_line_with_its_values_open_or_not() -> None:
    values = {"a": torch.tensor([0.5, 0.75, 1.0]), "b": torch.tensor([0.25])}
    opened = {"a": torch.tensor([False, True, False]), "b": torch.tensor([True])}
    (ax,) = strips(values, opened=opened, x_label="x", y_label="y", x_limits=(0.0, 1.0)).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    drawn = [(np.asarray(line.get_xdata()).tolist(), line.get_marker(), line.get_ydata()) for line in ax.lines]
    assert [(x, marker) for x, marker, _ in drawn] == [([0.5, 1.0], "|"), ([0.75], "o"), ([], "|"), ([0.25], "o")]
    assert drawn[1][2] == [1]
    assert drawn[3][2] == [0]
    assert ax.get_xlim() == (0, 1)
