import pytest
import torch

from failscape.data import ImageSet
from failscape.data.joined import joined
from failscape.errors import DataError


def numbered(n: int, start: int, classes: tuple[str, ...] = ("a", "b"), name: str = "set") -> ImageSet:
    x = (start + torch.arange(n)).float()[:, None, None, None].expand(n, 1, 2, 2) / 255
    return ImageSet.from_tensors(x, torch.arange(n) % 2, classes, name=name)


def test_images_lie_one_set_after_the_other() -> None:
    whole = joined([numbered(3, 0, name="p"), numbered(2, 10, name="q")], name="whole")
    assert len(whole) == 5
    assert whole.name == "whole"
    assert (255 * whole.x[:, 0, 0, 0]).round().tolist() == [0, 1, 2, 10, 11]
    assert whole.y.tolist() == [0, 1, 0, 0, 1]
    assert whole.ids == ("p-00000", "p-00001", "p-00002", "q-00000", "q-00001")
    # In any order, with repetitions, and across the border.
    assert (255 * whole.read(torch.tensor([4, 0, 4, 2]))[:, 0, 0, 0]).round().tolist() == [11, 0, 11, 2]


def test_sets_of_other_classes_are_refused() -> None:
    with pytest.raises(DataError, match="Join sets of one task"):
        joined([numbered(3, 0), numbered(3, 0, classes=("a", "c"))], name="whole")
