import math
from typing import Any

import pytest
import torch
from torch import Tensor

from failscape.classifiers import SCORES
from failscape.errors import GeneratorError
from failscape.generators import Condition, ConditionSpace
from failscape.generators.condition import VECTOR, ConditionEncoding

PROBS = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])


def asked(y: list[int], score: list[float], probs: Tensor | None = None) -> Condition:
    return Condition(y=torch.tensor(y), score=torch.tensor(score), probs=probs)


def encode(condition: Condition, **options: Any) -> Tensor:
    encoding = ConditionEncoding(ConditionSpace(**({"num_classes": 3} | options)))
    features = encoding(condition)
    assert features.shape == (len(condition), encoding.width)
    assert features.dtype == torch.float32
    return features


# What is asked.


@pytest.mark.parametrize("score", [0.0, -0.1, 1.0001, math.nan, math.inf])
def test_a_confidence_beyond_its_range_is_refused(score: float) -> None:
    with pytest.raises(GeneratorError, match=rf"a score in \(0, 1\], but got {score:g}\. Ask for a probability"):
        asked([0, 1], [0.5, score])
    with pytest.raises(GeneratorError, match=r"a score in \(0, 1\]"):
        Condition.of(0, score, n=3)


def test_a_certain_and_a_nearly_impossible_one_are_accepted() -> None:
    assert asked([0, 1], [1.0, 1e-6]).score.tolist() == pytest.approx([1.0, 1e-6])


@pytest.mark.usefixtures("as_installed")
def test_other_lengths_are_refused() -> None:
    with pytest.raises(GeneratorError, match=r"one class and one score an image, but got \(2,\) and \(3,\)"):
        asked([0, 1], [0.5, 0.5, 0.5])
    with pytest.raises(GeneratorError, match=r"one class and one score an image, but got \(1, 2\)"):
        Condition(y=torch.tensor([[0, 1]]), score=torch.tensor([[0.5, 0.5]]))
    for probs in (PROBS[:1], PROBS[0]):
        with pytest.raises(GeneratorError, match=r"one distribution an image, shape \(2, K\), but got"):
            asked([0, 1], [0.5, 0.5], probs)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.5, 0.2, 0.1], r"sums from 0.8 to 1\. Divide each row"),
        ([1.5, -0.5, 0.0], r"values from -0.5 and"),
        ([math.nan, 0.5, 0.5], r"sums from nan"),
    ],
)
def test_a_distribution_must_be_one(row: list[float], message: str) -> None:
    with pytest.raises(GeneratorError, match=f"rows of probabilities that sum to 1, but got .*{message}"):
        asked([0, 1], [0.5, 0.5], torch.stack([torch.tensor(row), PROBS[1]]))


def test_rows_can_be_taken_and_repeated() -> None:
    condition = asked([0, 2], [0.7, 0.8], PROBS)
    for rows in (slice(1, 2), torch.tensor([1]), torch.tensor([False, True])):
        part = condition[rows]
        assert (part.y.tolist(), part.score.tolist()) == ([2], pytest.approx([0.8]))
        assert part.probs is not None
        assert torch.equal(part.probs, PROBS[1:])
    twice = condition.twice()
    assert twice.y.tolist() == [0, 2, 0, 2]
    assert torch.equal(twice.score, condition.score.repeat(2))
    assert twice.probs is not None
    assert torch.equal(twice.probs, torch.cat([PROBS, PROBS]))
    assert Condition.of(1, 0.9, n=2).twice().probs is None
    assert len(condition[:0]) == 0
    assert torch.equal(condition.to("cpu").score, condition.score)


# What can be asked for.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "certainty"}, r"a score among confidence, .*vector, but got 'certainty'"),
        ({"embedding": "polynomial"}, r"embedding 'fourier' or 'scalar', but got 'polynomial'"),
        ({"num_classes": 1}, r"at least 2 classes .*but got 1 classes and 1 ranges"),
        ({"supported": [[0.2, 1.0]]}, r"but got 3 classes and 1 ranges"),
        ({"supported": [[0.2, 1.0, 0.5]] * 3}, r"a \(low, high\) of each"),
    ],
)
@pytest.mark.usefixtures("as_installed")
def test_a_space_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GeneratorError, match=message):
        ConditionSpace(**({"num_classes": 3} | options))


def test_a_space_is_built_again_from_its_config() -> None:
    space = ConditionSpace(num_classes=2, score="entropy", embedding="scalar", supported=((0.1, 0.9), (0.0, 1.0)))
    assert ConditionSpace(**space.config).config == space.config
    assert space.config["supported"] == [[0.1, 0.9], [0.0, 1.0]]


def test_what_the_space_does_not_hold_is_refused() -> None:
    space = ConditionSpace(num_classes=3)
    space.check(asked([0, 2], [0.5, 1.0]), 2)
    with pytest.raises(GeneratorError, match=r"one condition a latent, 4 in all, but got 2"):
        space.check(asked([0, 2], [0.5, 1.0]), 4)
    for y in (-1, 3):
        with pytest.raises(GeneratorError, match=r"Expected classes from 0 to 2, but got .*one of the classifier's"):
            space.check(asked([0, y], [0.5, 0.5]), 2)
    vector = ConditionSpace(num_classes=3, score=VECTOR)
    vector.check(asked([0, 2], [0.7, 0.8], PROBS), 2)
    with pytest.raises(GeneratorError, match=r"a distribution over 3 classes, .*but got none\. Set `probs`"):
        vector.check(asked([0, 2], [0.7, 0.8]), 2)
    with pytest.raises(GeneratorError, match=r"but got one over 2"):
        vector.check(asked([0, 1], [0.5, 0.5], torch.full((2, 2), 0.5)), 2)


def test_a_request_beyond_the_supported_range_is_refused_with_the_range() -> None:
    space = ConditionSpace(num_classes=3, supported=[[0.31, 0.9], [0.4, 0.9999], [1.0, 0.0]])
    space.require_supported(0, 0.31)
    space.require_supported(0, 0.9)
    space.require_supported(1, 1.0)
    for score in (0.3, 0.95):
        with pytest.raises(GeneratorError, match=rf"between 0.310 and 0.900 for class 'cat', .*but got {score}"):
            space.require_supported(0, score, "cat")
    with pytest.raises(GeneratorError, match=r"a class from 0 to 2, but got 3"):
        space.require_supported(3, 0.5)
    with pytest.raises(GeneratorError, match=r"no training image was taken for '2'"):
        space.require_supported(2, 0.5)


# How it enters a network.


def test_widths() -> None:
    condition = asked([0, 2], [0.7, 0.8], PROBS)
    assert encode(condition).shape[1] == 3 + 2 + 2 * 4
    assert encode(condition, embedding="scalar").shape[1] == 3 + 1
    assert encode(condition, score=VECTOR).shape[1] == 3 + 3
    assert all(encode(condition, score=score).shape[1] == 13 for score in SCORES)


@pytest.mark.parametrize("options", [{}, {"embedding": "scalar"}, {"score": VECTOR}])
def test_equal_conditions_are_encoded_equally_and_others_not(options: dict[str, Any]) -> None:
    mixed = torch.stack([PROBS[0], PROBS[0], PROBS[0].flip(0), PROBS[1]])
    rows = encode(asked([0, 0, 1, 0], [0.7, 0.7, 0.7, 0.8], mixed), **options)
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    assert not torch.equal(rows[0], rows[3])


@pytest.mark.parametrize("embedding", ["fourier", "scalar"])
def test_scores_are_encoded_continuously_and_told_apart(embedding: str) -> None:
    # Up to the largest logit, beyond which scores are one.
    logits = torch.linspace(-8.9, 8.9, 4000, dtype=torch.float64)
    rows = encode(Condition(y=torch.zeros(4000, dtype=torch.int64), score=logits.sigmoid()), embedding=embedding)
    steps = (rows[1:] - rows[:-1]).norm(dim=1)
    assert steps.max() < 0.05
    if embedding == "fourier":
        # Everywhere a step of the logit is seen; the bare scalar hardly sees one from 0.998 to 0.999.
        assert steps.min() > 0.003
        assert rows.square().mean().sqrt() < 1.5


def test_certainty_is_finite() -> None:
    rows = encode(asked([0, 0, 0], [1.0, 1 - 1e-7, 1e-9]))
    assert rows.isfinite().all()
    assert torch.allclose(rows[0], rows[1])
    one_hot = torch.eye(3)
    assert encode(asked([0, 1, 2], [1.0] * 3, one_hot), score=VECTOR).isfinite().all()


def test_the_class_weighs_as_much_as_the_score() -> None:
    rows = encode(asked([0, 1, 2], [0.6, 0.9, 0.99]))
    assert torch.allclose(rows[:, :3].square().mean(dim=1), torch.ones(3))
    assert rows[:, :3].argmax(dim=1).tolist() == [0, 1, 2]


class TestSampling:
    def test_follows_shares_and_quantiles(self) -> None:
        space = ConditionSpace(
            num_classes=3, shares=[0.2, 0.8, 0.0], quantiles=[[0.1, 0.2, 0.9], [0.6, 0.7, 0.8], [1.0, 0.0]]
        )
        drawn = space.sample(20_000, rng=torch.Generator().manual_seed(0))
        assert set(drawn.y.tolist()) == {0, 1}
        assert float((drawn.y == 1).double().mean()) == pytest.approx(0.8, abs=0.01)
        first = drawn.score[drawn.y == 0]
        assert float((first < 0.2).double().mean()) == pytest.approx(0.5, abs=0.03)
        assert first.min() >= 0.1
        assert first.max() <= 0.9

    def test_keeps_the_classes_that_are_given(self) -> None:
        y = torch.tensor([2, 0, 2])
        space = ConditionSpace(num_classes=3)
        assert torch.equal(space.sample(3, rng=torch.Generator().manual_seed(0), y=y).y, y)

    def test_scores_near_one_keep_their_logits(self) -> None:
        space = ConditionSpace(num_classes=2, quantiles=[[0.99, 0.9999]] * 2)
        logits = torch.logit(space.sample(4000, rng=torch.Generator().manual_seed(0)).score)
        # Evenly between the logits of 0.99 and 0.9999.
        assert float(logits.mean()) == pytest.approx((4.595 + 9.21) / 2, abs=0.06)

    def test_survives_saving(self) -> None:
        space = ConditionSpace(num_classes=2, shares=[0.3, 0.7], quantiles=[[0.1, 0.2], [0.3, 0.4]])
        assert ConditionSpace(**space.config).config == space.config

    def test_whole_distributions_are_refused(self) -> None:
        with pytest.raises(GeneratorError, match=r"takes whole distributions\. Give conditions"):
            ConditionSpace(num_classes=2, score="vector").sample(1, rng=torch.Generator())

    def test_wrong_lengths_are_refused(self) -> None:
        with pytest.raises(GeneratorError, match="each of the 3 classes, but got 2 shares and 3 rows"):
            ConditionSpace(num_classes=3, shares=[0.5, 0.5])


def test_of_a_class_that_is_never_sure_no_more_is_asked_than_it_supports() -> None:
    space = ConditionSpace(num_classes=2, supported=[[0.1, 0.4], [0.1, 0.9]])
    rng = torch.Generator().manual_seed(0)

    never, sometimes = (space.even_scores(torch.full((99,), label), rng=rng) for label in (0, 1))

    torch.testing.assert_close(never, torch.full((99,), 0.4))
    assert 0.5 <= sometimes.min() < sometimes.max() <= 0.9
