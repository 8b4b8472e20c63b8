import pytest
import torch

from failscape.data.ids import NumberedIds, RepeatedIds, SelectedIds


def test_numbered() -> None:
    ids = NumberedIds("set", 3)
    assert list(ids) == ["set-00000", "set-00001", "set-00002"]
    assert ids[-1] == "set-00002"
    assert ids[1:] == ("set-00001", "set-00002")
    with pytest.raises(IndexError):
        ids[3]


def test_a_huge_set_costs_nothing_and_sorts_by_name() -> None:
    ids = NumberedIds("set", 10**9)
    assert len(ids) == 10**9
    assert ids[7] == "set-000000007"
    assert ids[999_999_999] == "set-999999999"


def test_selected_from_selected() -> None:
    ids = SelectedIds(SelectedIds(("a", "b", "c"), torch.tensor([2, 0])), torch.tensor([1, 0, 1]))
    assert list(ids) == ["a", "c", "a"]
    assert ids[-2] == "c"


def test_repeated() -> None:
    assert list(RepeatedIds(("a", "b"), 3)) == ["a", "b", "a-draw2", "b-draw2", "a-draw3", "b-draw3"]
    assert RepeatedIds(NumberedIds("set", 10**8), 100)[-1] == "set-99999999-draw100"
    assert list(RepeatedIds((), 3)) == []
