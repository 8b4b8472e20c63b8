import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from failscape.training.adversarial import (
    AdaptiveAugmentation,
    clip_images,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def discriminator() -> nn.Module:
    """Judges each image by itself: no minibatch deviation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.SiLU(), nn.Linear(16, 1), nn.Flatten(0))
    return network.double()


class TestLosses:
    def test_logistic_is_the_cross_entropy_of_telling_real_from_generated(self) -> None:
        real, fake = torch.randn(2, 50, generator=seeded()).double()
        entropy = F.binary_cross_entropy_with_logits(
            torch.cat([real, fake]), torch.cat([torch.ones(50), torch.zeros(50)]).double(), reduction="sum"
        )
        torch.testing.assert_close(discriminator_loss(real, fake, relativistic=False), entropy / 50)

    def test_relativistic_sees_differences_of_pairs_alone(self) -> None:
        real, fake = torch.randn(2, 50, generator=seeded()).double()
        loss = discriminator_loss(real, fake, relativistic=True)
        torch.testing.assert_close(loss, discriminator_loss(real + 7, fake + 7, relativistic=True))
        torch.testing.assert_close(loss, torch.log1p((fake - real).exp()).mean())

    @pytest.mark.parametrize("relativistic", [False, True])
    def test_of_the_generator_leads_in_the_fakes_against_that_of_the_discriminator(
        self, discriminator: nn.Module, relativistic: bool
    ) -> None:
        x, fake = torch.rand(2, 9, 3, 2, 2, generator=seeded()).double()
        fake.requires_grad_()
        real, generated = discriminator(x), discriminator(fake)
        (own,) = torch.autograd.grad(
            generator_loss(generated, real, relativistic=relativistic), fake, retain_graph=True
        )
        (other,) = torch.autograd.grad(discriminator_loss(real, generated, relativistic=relativistic), fake)

        # Both losses see a fake through its score alone, so by one factor each: σ(-s) / σ(s) = exp(-s), of a lead s.
        lead = (generated - real if relativistic else generated).detach()
        torch.testing.assert_close(own, -torch.exp(-lead)[:, None, None, None] * other)

    @pytest.mark.parametrize("relativistic", [False, True])
    def test_of_the_generator_does_not_saturate(self, relativistic: bool) -> None:
        fake = torch.tensor([-300.0]).requires_grad_()
        generator_loss(fake, torch.tensor([300.0]), relativistic=relativistic).backward()
        assert fake.grad.tolist() == [-1]

    def test_of_a_draw_is_the_logarithm_of_two(self) -> None:
        same = torch.full((5,), 0.7)
        for loss in (generator_loss(same, same, relativistic=True), discriminator_loss(same, same, relativistic=True)):
            assert float(loss) == pytest.approx(math.log(2))
        assert float(generator_loss(torch.zeros(5), same, relativistic=False)) == pytest.approx(math.log(2))


class TestGradientPenalty:
    def test_of_a_linear_discriminator_is_half_the_square_of_its_weights(self) -> None:
        weight = torch.randn(3, 4, 5, generator=seeded())
        penalty = gradient_penalty(lambda x: (x * weight).sum(dim=(1, 2, 3)) + 3, torch.rand(7, 3, 4, 5))
        assert float(penalty) == pytest.approx(0.5 * float(weight.square().sum()), rel=1e-6)

    def test_is_the_mean_over_images_and_leads_back_to_the_weights(self) -> None:
        # D(x) = a |x|² / 2 has the gradient a x, so the penalty is a² E|x|² / 2, and its slope a E|x|².
        a = torch.tensor(3.0, requires_grad=True)
        x = torch.rand(8, 1, 2, 2, generator=seeded())
        penalty = gradient_penalty(lambda each: a * each.square().sum(dim=(1, 2, 3)) / 2, x)
        squares = float(x.square().sum(dim=(1, 2, 3)).mean())
        assert float(penalty.detach()) == pytest.approx(4.5 * squares, rel=1e-6)
        penalty.backward()
        assert float(a.grad) == pytest.approx(3 * squares, rel=1e-6)
        assert not x.requires_grad


class TestClipping:
    def test_lets_a_gradient_through_that_leads_back_into_the_range(self) -> None:
        x = torch.tensor([-0.5, -0.5, 0.5, 0.5, 1.5, 1.5, 0.0, 1.0]).reshape(1, 1, 2, 4).requires_grad_()
        gradient = torch.tensor([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0]).reshape(1, 1, 2, 4)

        y = clip_images(x)
        y.backward(gradient)

        assert torch.equal(y.detach(), x.detach().clamp(0, 1))
        # A step goes against the gradient: upwards from below and downwards from above.
        assert x.grad.flatten().tolist() == [-1, 0, -1, 1, 0, 1, 1, -1]

    def test_descent_brings_a_pixel_back_that_clamping_would_lose(self) -> None:
        x = torch.full((1, 1, 1, 1), 1.4).requires_grad_()
        for _ in range(50):
            (gradient,) = torch.autograd.grad((clip_images(x) - 0.3).square().sum(), x)
            x = (x - 0.1 * gradient).detach().requires_grad_()
        assert float(x.detach()) == pytest.approx(0.3, abs=0.01)


class TestAdaptiveAugmentation:
    def x(self, n: int = 400) -> Tensor:
        return torch.rand(n, 1, 8, 8, generator=seeded())

    def test_leaves_images_alone_at_probability_zero(self) -> None:
        assert torch.equal(AdaptiveAugmentation()(self.x(), rng=seeded()), self.x())

    def test_changes_as_many_images_as_the_probability_says(self) -> None:
        augmentation, x = AdaptiveAugmentation(), self.x()
        augmentation.probability = 0.25
        changed = (augmentation(x, rng=seeded()) != x).flatten(1).any(dim=1)
        # Binomial: 100 ± 8.7; five deviations.
        assert abs(int(changed.sum()) - 100) < 43
        augmentation.probability = 1.0
        assert (augmentation(x, rng=seeded()) != x).flatten(1).any(dim=1).all()

    def test_lets_the_gradient_through(self) -> None:
        augmentation, x = AdaptiveAugmentation(), self.x(20).requires_grad_()
        augmentation.probability = 0.5
        augmentation(x, rng=seeded()).sum().backward()
        assert (x.grad.flatten(1).abs().sum(dim=1) > 0).all()

    def test_goes_up_above_the_target_and_down_below_within_0_and_1(self) -> None:
        augmentation = AdaptiveAugmentation()
        augmentation.adapt(0.1, 64)
        assert augmentation.probability == 0
        for _ in range(100):
            augmentation.adapt(0.9, 1000)
        assert augmentation.probability == pytest.approx(0.2)
        augmentation.adapt(0.59, 50_000)
        assert augmentation.probability == pytest.approx(0.1)
        for sign, end in ((1.0, 1.0), (-1.0, 0.0)):
            augmentation.adapt(sign, 10**7)
            assert augmentation.probability == end

    def test_a_measure_that_is_not_a_number_does_no_lasting_harm(self) -> None:
        augmentation = AdaptiveAugmentation()
        augmentation.adapt(math.nan, 64)
        assert 0 <= augmentation.probability <= 1
