from typing import Any

import torch

from failscape.explain.passed_over import PASSED_OVER, PassedOver


def passed(lowest: list[float], **changes: Any) -> PassedOver:
    """Return dimensions 0, 1, … of class "a", moved from a probability of 0.9."""
    n = len(lowest)
    values: dict[str, Any] = {
        "y": torch.zeros(n, dtype=torch.long),
        "dimension": torch.arange(n),
        "layers": ("layer 1",) * n,
        "before": torch.full((n,), 0.9),
        "lowest": torch.tensor(lowest),
        "class_names": ("a", "b"),
    }
    return PassedOver(**(values | changes))


def test_without_effect_is_what_nowhere_lowers_the_probability_by_a_hundredth() -> None:
    dimensions = passed([0.895, 0.6, 0.95])
    assert dimensions.without_effect.tolist() == [True, False, True]
    rows = dimensions.table.to_pylist()
    assert [row["outcome"] for row in rows] == ["without effect", "lowered, but not to 0.50", "without effect"]
    assert dimensions.table.schema == PASSED_OVER
    assert passed([]).table.schema == PASSED_OVER


def test_the_caption_names_those_without_effect_by_class_as_far_as_a_reader_follows() -> None:
    assert "None of them is without effect." in passed([0.6]).figure.caption
    caption = passed([0.9, 0.6, 0.9], y=torch.tensor([1, 0, 0])).figure.caption
    assert caption.endswith("Without effect for a: s2; for b: s0.")
    assert passed([0.9] * 40).figure.caption.endswith("s10, s11 and 28 more.")


def test_the_drawing_has_a_line_for_each_class_that_has_any() -> None:
    (ax,) = passed([0.9, 0.6, 0.9], y=torch.tensor([1, 0, 0])).figure.draw().axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [len(line.get_xdata()) for line in ax.lines] == [1, 1, 0, 1]
