import pytest
import torch

from failscape.classifiers import Classifier
from failscape.errors import ClassifierError
from failscape.explain.comparison import require_same_task, told_apart


def flat(size: int = 4, names: tuple[str, ...] = ("a", "b"), name: str = "flat") -> Classifier:
    return Classifier(
        lambda x: torch.zeros(len(x), len(names)), image_shape=(1, size, size), class_names=names, name=name
    )


def test_classifiers_of_one_task_can_be_compared() -> None:
    require_same_task(flat(), (flat(), flat()))
    require_same_task(flat(), ())


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (flat(5, name="large"), r"large takes \(1, 5, 5\)"),
        (flat(names=("b", "a"), name="turned"), r"turned takes \(1, 4, 4\) and has \('b', 'a'\)"),
        (flat(names=("a", "b", "c")), "'c'"),
    ],
)
def test_others_are_refused_by_name(other: Classifier, words: str) -> None:
    with pytest.raises(ClassifierError, match=words):
        require_same_task(flat(), (flat(), other))


def test_names_that_occur_again_are_numbered() -> None:
    assert told_apart(["a", "b", "a", "a"]) == ("a", "b", "a (2)", "a (3)")
