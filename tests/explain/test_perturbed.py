import pytest
import torch
from planted import PLANE, Linear, brighter_than, classes_by, grey_images
from torch import Tensor

from failscape.data import ImageSet
from failscape.explain import to_8_bits
from failscape.explain.perturbed import LatentBank, PerturbedImages, log_odds, logit_margin

LOGITS = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 5.0]])
WANTED = torch.tensor([0, 1])


def some(n: int = 5) -> PerturbedImages:
    """Return random images that the decoder cannot draw, so that the residual matters."""
    x = 0.3 + 0.4 * torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return PerturbedImages(brighter_than(0.5), Linear(PLANE), x, torch.zeros(n, dtype=torch.long))


def moves(n: int = 5) -> Tensor:
    return 0.5 * torch.randn(n, 2, generator=torch.Generator().manual_seed(1))


def test_no_perturbation_gives_the_image_itself() -> None:
    x = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    perturbed = PerturbedImages(brighter_than(0.5), Linear(PLANE), x, torch.zeros(5, dtype=torch.long))
    assert (perturbed.reconstructions - x).abs().max() > 0.1
    assert torch.allclose(perturbed.images(perturbed.origin, torch.arange(5)), x, atol=1e-6)


def test_of_a_linear_decoder_the_images_move_along_its_patterns() -> None:
    perturbed, rows, epsilon = some(), torch.tensor([3, 0, 3]), moves(3)
    start = perturbed.images(perturbed.origin, torch.arange(5))[rows]
    step = (0.1 * epsilon @ PLANE.flatten(1)).view(3, 1, 4, 4)
    assert torch.allclose(perturbed.images(epsilon, rows), start + step, atol=1e-6)


def test_images_stay_within_bounds() -> None:
    # Drawn black and white, with residuals of both signs.
    images = some().images(torch.tensor([[-99.0, 0.0], [99.0, 0.0]]), torch.arange(2))
    assert images.min() == 0
    assert images.max() == 1


def test_the_classifier_is_asked_about_8_bit_images() -> None:
    perturbed, rows = some(), torch.arange(5)
    images = perturbed.images(moves(), rows)
    logits = perturbed.logits(moves(), rows)
    assert torch.allclose(logits, perturbed.classifier(to_8_bits(images)), atol=1e-5)
    assert not torch.allclose(logits, perturbed.classifier(images), atol=1e-3)
    assert torch.allclose(perturbed.probs(moves(), rows), logits.softmax(dim=1), atol=1e-6)
    # The baseline alone is asked before any rounding.
    loss, done = perturbed.stopped_loss(moves(), rows)
    log_probs = perturbed.classifier(images).log_softmax(dim=1)
    assert torch.allclose(loss, -log_probs[:, 0], atol=1e-6)
    assert torch.equal(done, log_probs.argmax(dim=1) == 0)


def test_the_gradient_passes_through_the_rounding() -> None:
    perturbed, epsilon = some(), moves().requires_grad_()
    logit = perturbed.logits(epsilon, torch.arange(5))[:, 1]
    (gradient,) = torch.autograd.grad(logit.sum(), epsilon)
    # The mean grey value rises by 0.1 with the first latent and not with the second; the slope is 20.
    assert torch.allclose(gradient, torch.tensor([2.0, 0.0]).expand(5, 2), atol=1e-5)


def test_what_is_drawn_once_serves_every_row() -> None:
    perturbed, points = some(), moves(7)
    for row in range(5):
        direct = perturbed.saved(points - perturbed.z[row], torch.full((7,), row))
        again = perturbed.saved_from(perturbed.draw(points), row)
        # The same but for a value that lies half-way between two grey levels.
        assert (again - direct).abs().max() <= 1.01 / 255
        assert ((again - direct).abs() > 1e-6).float().mean() < 0.02


def test_rows_of_the_same_image_are_grouped() -> None:
    one, two = grey_images(1), grey_images(1) / 2
    x = torch.cat([one, two, one, two, one])
    perturbed = PerturbedImages(brighter_than(0.5), Linear(PLANE), x, torch.arange(5) % 3)
    groups = perturbed.same_images(torch.tensor([1, 2, 3, 4]))
    assert sorted((row, places.tolist()) for row, places in groups) == [(1, [0, 2]), (2, [1, 3])]


def test_the_box_holds_the_prior_and_every_latent() -> None:
    x = torch.cat([grey_images(1), torch.ones(1, 1, 4, 4)])
    perturbed = PerturbedImages(brighter_than(0.5), Linear(PLANE, scale=0.05), x, torch.zeros(2, dtype=torch.long))
    low, high = perturbed.box()
    # The white image lies at (1 - 128 / 255) / 0.05 along the first latent.
    assert low.tolist() == [-4, -4]
    assert high.tolist() == pytest.approx([9.96, 4], abs=0.01)


def test_margin_and_log_odds() -> None:
    assert logit_margin(LOGITS, WANTED).tolist() == [2, -3]
    probs = LOGITS.softmax(dim=1).gather(1, WANTED[:, None])[:, 0]
    assert torch.allclose(log_odds(LOGITS, WANTED), (probs / (1 - probs)).log(), atol=1e-5)


class TestBank:
    BANK = LatentBank(
        z=torch.tensor([[0.0, 1.0], [0.0, 3.0], [5.0, 0.0], [0.5, 0.0]]), labels=torch.tensor([0, 0, 0, 1])
    )

    def test_the_nearest_of_the_class_come_first(self) -> None:
        z = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
        ways = self.BANK.candidates(z, torch.tensor([0, 0]), 2)
        assert ways.tolist() == [[[0, 1], [0, 3]], [[1, 0], [-4, 1]]]

    def test_others_fill_up_a_small_class(self) -> None:
        ways = self.BANK.candidates(torch.zeros(1, 2), torch.tensor([1]), 3)
        assert ways.tolist() == [[[0.5, 0], [0, 1], [0, 3]]]
        assert self.BANK.candidates(torch.zeros(1, 2), torch.tensor([1]), 99).shape == (1, 4, 2)

    def test_drawn_from_the_prior_it_knows_what_the_classifier_says(self) -> None:
        perturbed = some()
        bank = LatentBank.of_prior(perturbed, 200, rng=torch.Generator().manual_seed(3))
        # Only the first latent changes the mean; grey alone is just above a half.
        assert torch.equal(bank.labels, (128 / 255 + 0.1 * bank.z[:, 0] > 0.5).long())
        assert bank.labels.unique().tolist() == [0, 1]

    def test_of_images_it_holds_their_codes_and_labels(self) -> None:
        x, y = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2
        classifier = classes_by(lambda x: x[:, 0, 0], lambda x: x[:, 0, 1])
        perturbed = PerturbedImages(classifier, Linear(PLANE), x[:1], y[:1])
        bank = LatentBank.of_images(perturbed, ImageSet.from_tensors(x, y, ["a", "b"], name="some"))
        assert torch.allclose(bank.z, Linear(PLANE).encode(x), atol=1e-5)
        assert torch.equal(bank.labels, y)
