import pytest
import torch
from torch import Tensor

from failscape.classifiers import SCORES
from failscape.generators import Condition
from failscape.training.guidance import condition_loss, guarded


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def asked_for(logits: Tensor, y: Tensor, score: str) -> Condition:
    """The condition that the logits meet exactly."""
    return Condition(y=y, score=SCORES[score].value(logits.double(), y).clamp(1e-6, 1), probs=logits.softmax(dim=1))


def gradient_of(logits: Tensor, condition: Condition, score: str) -> Tensor:
    logits = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(condition_loss(logits, condition, score=score).sum(), logits)
    return gradient


@pytest.mark.parametrize("score", [*SCORES, "vector"])
def test_is_zero_where_the_condition_is_met(score: str) -> None:
    logits = 2 * torch.randn(200, 5, generator=seeded())
    leads = logits.topk(2, dim=1).values
    logits = logits[leads[:, 0] - leads[:, 1] > 0.3]
    y = logits.argmax(dim=1)

    loss = condition_loss(logits, asked_for(logits, y, "confidence" if score == "vector" else score), score=score)

    torch.testing.assert_close(loss, torch.zeros(len(logits)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("asked", "sign"), [(0.95, -1), (0.6, 1)])
def test_descent_moves_the_confidence_toward_what_was_asked(asked: float, sign: int) -> None:
    # The class asked for has the probability 0.84.
    gradient = gradient_of(torch.tensor([[2.0, 0.0, -1.0]]), Condition.of(0, asked, n=1), "confidence")

    assert gradient[0, 0].sign() == sign
    assert gradient[0, 1].sign() == -sign


def test_a_class_that_does_not_lead_is_pushed_forward_whatever_its_probability() -> None:
    # Class 1 has exactly the probability asked for, but class 0 leads.
    logits = torch.tensor([[1.0, 0.0, -3.0]])
    met = Condition(y=torch.tensor([1]), score=logits.double().softmax(dim=1)[:, 1])

    gradient = gradient_of(logits, met, "confidence")

    torch.testing.assert_close(condition_loss(logits, met, score="confidence"), torch.tensor([4.8]))
    torch.testing.assert_close(gradient, torch.tensor([[4.0, -4.0, 0.0]]), atol=1e-5, rtol=0)


def test_the_true_class_need_not_lead() -> None:
    logits = torch.tensor([[1.0, 0.0, -3.0]])
    met = Condition(y=torch.tensor([1]), score=logits.double().softmax(dim=1)[:, 1])

    torch.testing.assert_close(condition_loss(logits, met, score="true-class"), torch.zeros(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("asked", "logit"), [(1.0, 9.0), (0.999, 6.0), (1e-6, -9.0)])
def test_beyond_certainty_any_more_of_it_is_right(asked: float, logit: float) -> None:
    logits = torch.tensor([[logit, 0.0]])

    loss = condition_loss(logits, Condition.of(0, asked, n=1), score="true-class")

    assert loss.item() == 0
    # And less of it is not.
    assert condition_loss(logits / 9, Condition.of(0, asked, n=1), score="true-class").item() > 0.5


def test_is_quadratic_near_and_linear_far() -> None:
    condition = Condition.of(0, 0.5, n=3)
    logits = torch.tensor([[1.2, 0.0], [2.0, 0.0], [3.0, 0.0]])

    near, far, farther = condition_loss(logits, condition, score="true-class").tolist()

    assert near == pytest.approx(1.2**2 / 2, rel=1e-4)
    assert farther - far == pytest.approx(1.5, rel=1e-4)


def test_a_whole_distribution_is_missed_by_its_divergence() -> None:
    logits = torch.randn(20, 4, generator=seeded()).double()
    probs = torch.randn(20, 4, generator=seeded(1)).double().softmax(dim=1)
    condition = Condition(y=probs.argmax(dim=1), score=probs.amax(dim=1), probs=probs)

    loss = condition_loss(logits, condition, score="vector")

    torch.testing.assert_close(loss, (probs * (probs.log() - logits.log_softmax(dim=1))).sum(dim=1))
    # The gradient of the divergence in the logits is known.
    torch.testing.assert_close(gradient_of(logits, condition, "vector"), logits.softmax(dim=1) - probs)


@pytest.mark.parametrize("score", [*SCORES, "vector"])
def test_what_was_disturbed_is_to_miss_its_condition_as_real_images_do(score: str) -> None:
    real = 2 * torch.randn(64, 5, generator=seeded())
    asked = real + torch.randn(64, 5, generator=seeded(1))
    condition = asked_for(asked, asked.argmax(dim=1), "confidence" if score == "vector" else score)

    alone, beside = (condition_loss(real, condition, score=score, real=other) for other in (None, real))

    assert alone.mean() > 0.2
    torch.testing.assert_close(beside, torch.zeros(64), atol=1e-5, rtol=0)


def test_of_four_neighbours_each_has_the_real_one_of_its_rank_before_it() -> None:
    logits = torch.tensor([[0.4, 0.0], [0.1, 0.0], [0.2, 0.0], [0.3, 0.0]]).requires_grad_()
    real = torch.tensor([[0.1, 0.0], [0.2, 0.0], [0.3, 0.0], [0.9, 0.0]])

    loss = condition_loss(logits, Condition.of(0, 0.5, n=4), score="true-class", real=real)

    torch.testing.assert_close(loss, torch.tensor([0.5**2 / 2, 0.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(gradient[:, 0], torch.tensor([-0.5, 0.0, 0.0, 0.0]), atol=1e-6, rtol=0)


def test_every_second_image_is_guarded_and_the_others_stay() -> None:
    x = torch.rand(8, 1, 8, 8, generator=seeded())

    y = guarded(x, rng=seeded(1))

    assert [torch.equal(row, before) for row, before in zip(y, x, strict=True)] == [False, True] * 4


def test_guarding_lets_the_gradient_through() -> None:
    x = torch.rand(8, 1, 8, 8, generator=seeded()).requires_grad_()

    guarded(x, rng=seeded(1)).sum().backward()

    assert (x.grad.flatten(1).abs().sum(dim=1) > 1).all()
