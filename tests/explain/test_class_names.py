import pytest

from failscape.errors import LabelError
from failscape.explain.class_names import class_numbers

NAMES = ("Coat", "Pullover", "Shirt")


def test_each_class_has_its_number_once_in_the_order_of_the_names() -> None:
    assert class_numbers(["Shirt", "Coat", "Shirt"], NAMES, setting="classes") == [2, 0]
    assert class_numbers([], NAMES, setting="classes") == []


@pytest.mark.parametrize(
    ("name", "hint"), [("Pulover", "Did you mean 'Pullover'?"), ("7", "Name classes of the classifier.")]
)
def test_an_unknown_one_is_named_with_what_to_do(name: str, hint: str) -> None:
    with pytest.raises(LabelError) as caught:
        class_numbers(["Coat", name], NAMES, setting="pairs")
    assert str(caught.value) == f"Expected `pairs` among Coat, Pullover, Shirt, but got {name}. {hint}"
