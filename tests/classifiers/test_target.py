import pytest
import torch

from failscape.classifiers import target_distribution
from failscape.errors import SpecError

NAMES = ("T-shirt, plain", "a=b", "cat", "dog")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("cat", [0, 0, 1, 0]),
        ("a=b", [0, 1, 0, 0]),
        ("T-shirt, plain", [1, 0, 0, 0]),
        ("cat,dog", [0, 0, 0.5, 0.5]),
        ("cat = 0.7, dog=0.3", [0, 0, 0.7, 0.3]),
        ("a=b=0.25,dog=0.75", [0, 0.25, 0, 0.75]),
        ("uniform", [0.25] * 4),
        ({"T-shirt, plain": 0.5, "a=b": 0.5}, [0.5, 0.5, 0, 0]),
    ],
)
def test_means_what_a_person_means(target, expected):
    torch.testing.assert_close(target_distribution(target, NAMES), torch.tensor(expected, dtype=torch.float32))


def test_takes_three_thirds_written_with_few_digits():
    shares = target_distribution({"cat": 0.333, "dog": 0.333, "a=b": 0.333}, NAMES)
    assert float(shares.sum()) == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("cow", "Expected classes among .* but got 'cow'"),
        ("cat=0.7,dog=0.4", "sum to 1.1. Divide each by the sum"),
        ({"cat": 1.5, "dog": -0.5}, "got -0.5 for 'dog'. Leave out"),
        ({}, "but got none, which sum to 0. Give one, such as {'T-shirt, plain': 1.0}"),
        ({"cat": 0.0}, "sum to 0. Give one"),
        ({"cat": float("inf")}, "sum to inf. Give one"),
        ("cat=much", "as a number"),
        ("cat=nan", "got nan for 'cat'"),
        ("cat=0.7,dog", "a share for each class .* or for none, but got 'cat=0.7' and 'dog' .* Write dog=SHARE"),
        ("cat=0.5,cat=0.5", "'cat' twice"),
    ],
)
def test_refuses_what_is_no_distribution(target, words):
    with pytest.raises(SpecError, match=words):
        target_distribution(target, NAMES)
