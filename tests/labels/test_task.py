import dataclasses
import math
from typing import Any

import pytest
import torch
from tests.labels.conftest import make_task
from torch import Tensor

from failscape import Classifier
from failscape.errors import ClassifierError, DataError, ImageError, LabelError
from failscape.labels import LabelTask, label_task, teaching_value


def two_sides(x: Tensor) -> Tensor:
    """Three classes by the mean grey value; so steep that rounding to 8 bits matters."""
    mean = x.mean(dim=(1, 2, 3))
    return torch.stack([3000 * (mean - 0.5), torch.zeros_like(mean), torch.full_like(mean, -50)], dim=1)


def classifier(names: tuple[str, ...] = ("light", "dark", "other")) -> Classifier:
    return Classifier(two_sides, class_names=names, image_shape=(1, 2, 2))


def test_what_is_claimed_is_claimed_of_the_8_bit_image() -> None:
    # Just above one half before rounding; 127.5 / 255 rounds to 128, a clear "light".
    x = torch.full((1, 1, 2, 2), 0.50001)
    task = label_task(x, classifier(), names=["a"])
    assert task.images.unique().tolist() == [128]
    expected = torch.tensor([3000 * (128 / 255 - 0.5), 0.0, -50.0]).softmax(dim=0)
    assert torch.allclose(task.probs[0], expected, atol=1e-4)
    assert not torch.allclose(task.probs, classifier().probs(x), atol=0.1)


def test_a_task_knows_what_the_oracle_says() -> None:
    x = torch.tensor([0.2, 0.8])[:, None, None, None].expand(2, 1, 2, 2)
    oracle = Classifier(lambda x: -two_sides(x), class_names=("light", "dark", "other"), image_shape=(1, 2, 2))
    task = label_task(x, classifier(), oracle=oracle, names=["a", "b"], origin=["test", "frontier"])
    assert task.oracle_probs is not None
    assert task.origins == ("test", "frontier")
    assert torch.equal(task.priority, teaching_value(task.probs, task.oracle_probs))
    assert label_task(x, classifier(), names=["a", "b"], priority=torch.tensor([0.0, 5.0])).priority.tolist() == [0, 5]


def test_the_teaching_value_by_hand() -> None:
    probs = torch.tensor([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.9, 0.1, 0.0]])
    oracle = torch.tensor([[0.5, 0.5, 0.0], [0.8, 0.1, 0.1], [0.4, 0.6, 0.0], [0.1, 0.0, 0.9]])
    assert torch.allclose(teaching_value(probs), torch.tensor([1.0, 0.2, 0.8, 0.2]))
    # The last two are disagreements, and the surer the two are of different things the more is to be learnt.
    assert torch.allclose(teaching_value(probs, oracle), torch.tensor([1.0, 0.2, 1.2, 1.9]))


def test_one_class_has_no_frontier() -> None:
    assert teaching_value(torch.ones(2, 1)).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("images", torch.zeros(3, 2, 4, 4, dtype=torch.uint8), ImageError, "1 or 3 channels"),
        ("images", torch.zeros(3, 1, 4, 4), ImageError, "Expected uint8 images"),
        ("images", torch.zeros(0, 1, 4, 4, dtype=torch.uint8), ImageError, "Expected uint8 images"),
        ("class_names", ("a", "a", "b"), LabelError, "different class names"),
        ("class_names", ("a", "not any class", "b"), LabelError, "an answer of its own"),
        ("class_names", ("a", "b\x00", "c"), DataError, "control characters"),
        ("names", ("a", "b"), DataError, "3 different names"),
        ("names", ("a", "b", "b"), DataError, "3 different names"),
        ("names", ("a", "b", ""), DataError, "3 different names"),
        ("names", ("a", "b", "c\n"), DataError, "control characters"),
        ("probs", torch.full((3, 2), 0.5), ClassifierError, "of the classifier of shape"),
        ("probs", torch.full((3, 3), 0.5), ClassifierError, "add up to 1"),
        ("probs", torch.full((3, 3), math.nan), ClassifierError, "add up to 1"),
        ("oracle_probs", torch.full((3, 3), 0.5), ClassifierError, "of the oracle that"),
        ("origins", ("generated", "test", "elsewhere"), DataError, "with 'elsewhere'"),
        ("origins", ("generated",), DataError, "Expected 3 origins"),
        ("sources", ("a", ""), DataError, "Expected 3 sources"),
        ("sources", ("a", "", "c\n"), DataError, "control characters"),
        ("priority", torch.full((3,), math.inf), DataError, "finite priorities"),
        ("priority", torch.zeros(2), DataError, "finite priorities"),
    ],
)
@pytest.mark.usefixtures("as_installed")
def test_what_does_not_fit_is_refused(field: str, value: Any, error: type[Exception], message: str) -> None:
    task = make_task(3)
    values = {one.name: getattr(task, one.name) for one in dataclasses.fields(task)}
    with pytest.raises(error, match=message):
        LabelTask(**values | {field: value})


def test_images_are_checked_before_anything_is_claimed() -> None:
    with pytest.raises(ImageError, match="image bad"):
        label_task(torch.full((1, 1, 2, 2), 2.0), classifier(), names=["bad"])
    with pytest.raises(ClassifierError, match="oracle with the classes"):
        label_task(torch.zeros(1, 1, 2, 2), classifier(), oracle=classifier(("a", "b", "c")), names=["x"])
    with pytest.raises(DataError, match="1 names"):
        label_task(torch.zeros(1, 1, 2, 2), classifier(), names=[])
