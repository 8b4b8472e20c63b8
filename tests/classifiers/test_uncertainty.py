import math

import numpy as np
import pytest
import torch
from torch import Tensor

from failscape.classifiers import SCORES, Score, class_logit, class_probability, entropy, margin

# Rows of every kind: mild, even, certain, certain and wrong, and a tie of two.
LOGITS = torch.tensor([[0.3, -1.0, 2.0], [1.0, 1.0, 1.0], [90.0, -90.0, 0.0], [-200.0, 300.0, 0.0], [5.0, 5.0, -5.0]])
Y = torch.tensor([2, 0, 0, 0, 1])
PREDICTED = torch.tensor([2, 0, 0, 1, 0])


def probs64() -> np.ndarray:
    """Softmax by hand in double precision."""
    z = LOGITS.double().numpy()
    exps = np.exp(z - z.max(axis=1, keepdims=True))
    shares: np.ndarray = exps / exps.sum(axis=1, keepdims=True)
    return shares


class TestValues:
    def test_class_probability(self) -> None:
        expected = probs64()[np.arange(5), Y.numpy()]
        assert class_probability(LOGITS, Y).numpy() == pytest.approx(expected, abs=1e-6)

    def test_entropy(self) -> None:
        p = probs64()
        logs = np.log(np.where(p > 0, p, 1))
        assert entropy(LOGITS, Y).numpy() == pytest.approx(-(p * logs).sum(axis=1) / math.log(3), abs=1e-6)
        assert entropy(LOGITS, Y)[1] == pytest.approx(1)
        assert entropy(LOGITS, Y)[2:4].tolist() == [pytest.approx(0, abs=1e-30), 0]
        assert torch.equal(entropy(LOGITS, Y), entropy(LOGITS, PREDICTED))

    def test_margin(self) -> None:
        p = probs64()
        others = np.where(np.arange(3) == Y.numpy()[:, None], -np.inf, p).max(axis=1)
        assert margin(LOGITS, Y).numpy() == pytest.approx(p[np.arange(5), Y.numpy()] - others, abs=1e-6)
        assert margin(LOGITS, Y)[[1, 4]].tolist() == [0, 0]
        assert margin(LOGITS, Y)[3] == -1

    def test_two_classes_are_those_of_a_sigmoid(self) -> None:
        z = torch.linspace(-20, 20, 41)
        logits, ones = torch.stack([torch.zeros(41), z], dim=1), torch.ones(41, dtype=torch.long)
        assert torch.allclose(class_probability(logits, ones), z.sigmoid())
        assert torch.equal(class_logit(logits, ones), z)
        assert torch.allclose(margin(logits, ones), (z / 2).tanh(), atol=1e-6)


class TestLogits:
    def test_of_the_class_probability_is_exact_where_the_probability_is_not(self) -> None:
        # log(e^-90 + e^0) = 0 in any precision, so the logits of the two certain rows are known by hand.
        assert class_probability(LOGITS, Y)[[2, 3]].tolist() == [1, 0]
        assert class_logit(LOGITS, Y)[[2, 3]].tolist() == [90, -500]
        p = probs64()[[0, 1, 4], Y[[0, 1, 4]].numpy()]
        assert class_logit(LOGITS, Y)[[0, 1, 4]].numpy() == pytest.approx(np.log(p / (1 - p)), abs=1e-5)

    @pytest.mark.parametrize("name", SCORES)
    def test_lead_back_to_the_value(self, name: str) -> None:
        y = SCORES[name].classes(LOGITS, Y)
        assert torch.allclose(SCORES[name].logit(LOGITS, y).sigmoid(), SCORES[name].value(LOGITS, y), atol=2e-6)

    @pytest.mark.parametrize("name", SCORES)
    def test_are_finite(self, name: str) -> None:
        assert SCORES[name].logit(LOGITS, SCORES[name].classes(LOGITS, Y)).isfinite().all()


class TestGradients:
    @pytest.mark.parametrize("name", SCORES)
    @pytest.mark.parametrize("part", ["value", "logit"])
    def test_agree_with_finite_differences(self, name: str, part: str) -> None:
        logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        y = SCORES[name].classes(logits, torch.arange(6) % 4)
        function = getattr(SCORES[name], part)
        assert torch.autograd.gradcheck(lambda z: function(z, y), logits)

    @pytest.mark.parametrize("name", SCORES)
    @pytest.mark.parametrize("part", ["value", "logit"])
    def test_are_finite_at_saturated_logits(self, name: str, part: str) -> None:
        logits = LOGITS.clone().requires_grad_()
        function = getattr(SCORES[name], part)
        (gradient,) = torch.autograd.grad(function(logits, SCORES[name].classes(logits, Y)).sum(), logits)
        assert gradient.isfinite().all()

    def test_of_the_class_logit_do_not_vanish_where_those_of_the_probability_do(self) -> None:
        logits = LOGITS.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(class_probability(logits, Y).sum(), logits)
        assert gradient[[2, 3]].abs().max() < 1e-30
        (gradient,) = torch.autograd.grad(class_logit(logits, Y).sum(), logits)
        assert gradient[3].tolist() == [1, -1, 0]


class TestRegistry:
    def test_each_score_is_taken_of_the_class_it_is_meant_for(self) -> None:
        refers = {name: score.refers_to for name, score in SCORES.items()}
        assert refers == {
            "confidence": "predicted",
            "true-class": "label",
            "entropy": "predicted",
            "margin": "predicted",
        }
        p = probs64()
        assert SCORES["confidence"].of(LOGITS, Y).numpy() == pytest.approx(p.max(axis=1), abs=1e-6)
        assert SCORES["true-class"].of(LOGITS, Y).numpy() == pytest.approx(p[np.arange(5), Y.numpy()], abs=1e-6)
        assert torch.equal(SCORES["margin"].classes(LOGITS, Y), PREDICTED)

    @pytest.mark.parametrize("score", SCORES.values())
    def test_every_score_is_a_share(self, score: Score) -> None:
        logits: Tensor = 10 * torch.randn(500, 7, generator=torch.Generator().manual_seed(0))
        values = score.of(logits, torch.arange(500) % 7)
        assert values.shape == (500,)
        assert ((values >= 0) & (values <= 1)).all()
