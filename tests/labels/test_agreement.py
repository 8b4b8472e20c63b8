import math
from datetime import UTC, datetime

import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from failscape.errors import LabelError
from failscape.labels import Event, cohen_kappa, consensus, fleiss_kappa, measure_agreement

# Fleiss 1971, table 1: 30 patients, 6 psychiatrists, 5 diagnoses.
DIAGNOSES = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""


def labels(answers: dict[str, dict[str, int]]) -> list[Event]:
    """Make labels of `{labeller: {image: answer}}`."""
    given = [(who, image, answer) for who, images in answers.items() for image, answer in images.items()]
    return [
        Event(
            id=number,
            client_id=str(number),
            image_id=image,
            labeller=who,
            label=answer,
            undoes=None,
            time=datetime(2025, 1, 1, tzinfo=UTC),
            seconds=None,
        )
        for number, (who, image, answer) in enumerate(given)
    ]


def test_fleiss_of_the_paper() -> None:
    counts = torch.tensor([[int(digit) for digit in row] for row in DIAGNOSES.split()])
    # The paper's totals, so that the table is the paper's.
    assert counts.sum(dim=0).tolist() == [26, 26, 30, 55, 43]
    assert (counts.sum(dim=1) == 6).all()
    assert fleiss_kappa(counts) == pytest.approx(0.430, abs=5e-4)


def test_fleiss_of_two_equals_scotts_pi_by_hand() -> None:
    # Agree on 3 of 4; answers 5 and 3 of 8: expected (5/8)^2 + (3/8)^2 = 34/64.
    counts = torch.tensor([[2, 0], [2, 0], [0, 2], [1, 1]])
    assert fleiss_kappa(counts) == pytest.approx((3 / 4 - 34 / 64) / (1 - 34 / 64))


@pytest.mark.parametrize("seed", range(5))
def test_cohen_equals_that_of_scikit_learn(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    first = torch.randint(-1, 4, (50,), generator=rng)
    second = torch.where(torch.rand(50, generator=rng) < 0.6, first, torch.randint(-1, 4, (50,), generator=rng))
    assert cohen_kappa(first, second) == pytest.approx(cohen_kappa_score(first.numpy(), second.numpy()), abs=1e-12)


def test_kappa_is_not_known_where_chance_always_agrees() -> None:
    assert math.isnan(cohen_kappa(torch.ones(5).long(), torch.ones(5).long()))
    assert math.isnan(fleiss_kappa(torch.tensor([[3, 0], [3, 0]])))


def test_what_has_no_agreement_is_refused() -> None:
    with pytest.raises(LabelError, match="at least two labels each"):
        fleiss_kappa(torch.tensor([[2, 0], [1, 0]]))
    with pytest.raises(LabelError, match="but got 0 and 0"):
        cohen_kappa(torch.empty(0).long(), torch.empty(0).long())
    with pytest.raises(LabelError, match="one label that holds"):
        measure_agreement(labels({"Ada": {"a": 1}}) + labels({"Ada": {"a": 2}}))


def test_two_labellers_on_the_images_they_share() -> None:
    ada = dict(zip("abcdefgh", [0, 0, 1, 1, 2, 2, 0, 1], strict=True))
    bo = dict(zip("abcdefxy", [0, 0, 1, 2, 2, 2, 0, 0], strict=True))
    found = measure_agreement(labels({"Ada": ada, "Bo": bo}))
    assert (found.labellers, found.images, found.coefficient) == (("Ada", "Bo"), 6, "cohen")
    assert found.percent.value == pytest.approx(5 / 6)
    assert found.kappa.value == pytest.approx(cohen_kappa_score([0, 0, 1, 1, 2, 2], [0, 0, 1, 2, 2, 2]))
    assert found.kappa.low < found.kappa.value <= found.kappa.high <= 1
    (pair,) = found.pairs
    assert (pair.images, pair.percent, pair.kappa) == (6, found.percent.value, found.kappa.value)


def test_three_labellers_with_images_of_two_and_of_three_labels() -> None:
    found = measure_agreement(
        labels({"Ada": {"a": 0, "b": 1, "c": 1}, "Bo": {"a": 0, "b": 1}, "Cy": {"a": 1, "c": 1, "z": 0}})
    )
    assert found.coefficient == "fleiss"
    assert found.images == 3
    # Pairs that agree: 1 of 3, 1 of 1, 1 of 1; answers 2 and 5 of 7.
    assert found.percent.value == pytest.approx((1 / 3 + 1 + 1) / 3)
    chance = (4 + 25) / 49
    assert found.kappa.value == pytest.approx(((1 / 3 + 2) / 3 - chance) / (1 - chance))
    assert [(pair.labellers, pair.images) for pair in found.pairs] == [
        (("Ada", "Bo"), 2),
        (("Ada", "Cy"), 2),
        (("Bo", "Cy"), 1),
    ]


def test_nobody_shares_an_image() -> None:
    found = measure_agreement(labels({"Ada": {"a": 0}, "Bo": {"b": 1}}))
    assert (found.coefficient, found.images, found.pairs) == (None, 0, ())
    assert math.isnan(found.kappa.value)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    # Two labellers who agree on purpose with probability 1/2, else by chance among 4: kappa is 1/2.
    rng = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(30):
        first = torch.randint(4, (80,), generator=rng)
        other = torch.randint(4, (80,), generator=rng)
        second = torch.where(torch.rand(80, generator=rng) < 0.5, first, other)
        names = [str(i) for i in range(80)]
        answers = {who: dict(zip(names, y.tolist(), strict=True)) for who, y in (("A", first), ("B", second))}
        kappa = measure_agreement(labels(answers)).kappa
        held += kappa.low <= 0.5 <= kappa.high
    assert held >= 25


def test_what_was_never_seen_to_differ_may_still_differ() -> None:
    # Three images agreed on: Wilson's interval for 3 of 3 by hand is 1 / (1 + z^2 / 3) to 1.
    found = measure_agreement(labels({"Ada": {"a": 0, "b": 1, "c": 1}, "Bo": {"a": 0, "b": 1, "c": 1}}))
    z = 1.959964
    assert (found.percent.value, found.percent.high) == (1, 1)
    assert found.percent.low == pytest.approx(1 / (1 + z**2 / 3))
    assert found.kappa.value == 1
    assert math.isnan(found.kappa.low)
    assert math.isnan(found.kappa.high)


def test_consensus_is_what_is_said_most_often_and_a_tie_is_none() -> None:
    assert consensus([2]) == 2
    assert consensus([1, 2, 2]) == 2
    assert consensus([-1, -1, 0]) == -1
    # The most frequent answer, though not that of more than half.
    assert consensus([0, 0, 1, 2, 3]) == 0
    assert consensus([0, 1]) is None
    assert consensus([0, 0, 1, 1, 2]) is None
    assert consensus([]) is None
    assert consensus([1, 1], least=3) is None
    assert consensus([1, 1, 0], least=3) == 1
