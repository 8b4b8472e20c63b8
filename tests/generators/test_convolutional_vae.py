from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from failscape.errors import GeneratorError
from failscape.generators import VAEGAN, Condition, IntroVAE, load_generator, save_generator
from failscape.generators.vae import divergence, draw_latents
from failscape.testing import check_generator

SIZES = {28: (12, 8, 4), 30: (12, 8, 4), 64: (8, 8, 4, 4), 100: (8, 8, 4, 4), 128: (8, 8, 4, 4, 4)}
Family = type[VAEGAN] | type[IntroVAE]
families = pytest.mark.parametrize("family", [VAEGAN, IntroVAE])


def build(family: Family, **options: Any) -> VAEGAN | IntroVAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return family(**({"image_shape": (1, 28, 28), "channels": (8, 4, 4), "latent_dim": 3} | options)).eval()


def rows(n: int, width: int) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(0))


@families
@pytest.mark.parametrize("side", SIZES)
@pytest.mark.parametrize("colours", [1, 3])
def test_draws_scores_and_encodes_images_of_any_size(family: Family, side: int, colours: int) -> None:
    generator = build(family, image_shape=(colours, side, side), channels=SIZES[side], latent_dim=5)
    x = generator.sample(3, rng=torch.Generator().manual_seed(0))
    assert x.shape == (3, colours, side, side)
    assert 0 <= x.min() < x.max() <= 1
    assert generator.realism(x).shape == (3,)
    mean, log_variance = generator.posterior(x)
    assert mean.shape == log_variance.shape == (3, 5)
    assert torch.equal(generator.encode(x), mean)


@families
def test_keeps_the_promises_of_a_generator(family: Family) -> None:
    check_generator(build(family, image_shape=(3, 28, 30)))


@families
def test_comes_back_from_disk_whole(family: Family, tmp_path: Path) -> None:
    generator = build(family)
    save_generator(generator, tmp_path)
    loaded = load_generator(tmp_path)
    x = generator(rows(2, 3))
    assert isinstance(loaded, family)
    # Weights are laid out otherwise once they are loaded, so sums come in another order.
    torch.testing.assert_close(loaded(rows(2, 3)), x)
    torch.testing.assert_close(loaded.realism(x), generator.realism(x))
    for known, again in zip(generator.posterior(x), loaded.posterior(x), strict=True):
        torch.testing.assert_close(known, again)


@families
def test_a_score_does_not_depend_on_the_batch(family: Family) -> None:
    generator = build(family)
    x = generator(rows(4, 3))
    torch.testing.assert_close(generator.realism(x)[2:3], generator.realism(x[2:3]), rtol=1e-4, atol=1e-5)


def test_an_introspective_score_is_the_encoders_own() -> None:
    generator = build(IntroVAE)
    x = generator(rows(4, 3))
    mean, log_variance = generator.posterior(x)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(generator.realism(x), -expected)


def test_the_divergence_is_that_of_torch() -> None:
    mean, log_variance = rows(6, 8).chunk(2, dim=1)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(divergence(mean, log_variance), expected)


def test_latents_follow_the_posterior_and_lead_gradients_back() -> None:
    mean = torch.tensor([[2.0, -1.0]]).requires_grad_()
    log_variance = torch.tensor([[0.0, -2.0]]).requires_grad_()
    z = draw_latents(mean.expand(20_000, 2), log_variance.expand(20_000, 2), rng=torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(dim=0), mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(z.std(dim=0), (0.5 * log_variance[0]).exp(), atol=0.02, rtol=0)
    # d/d log σ² of E[z²] is σ².
    (moved,) = torch.autograd.grad(z.square().mean(dim=0).sum(), log_variance)
    torch.testing.assert_close(moved[0], log_variance[0].exp(), atol=0.05, rtol=0)


def test_the_critics_look_is_its_score_with_the_maps_that_led_to_it() -> None:
    generator = build(VAEGAN)
    assert isinstance(generator, VAEGAN)
    x = generator(rows(4, 3))
    scores, maps = generator.critic.look(x)
    torch.testing.assert_close(scores, generator.critic(x))
    assert [each.shape[1:] for each in maps] == [(4, 14, 14), (8, 7, 7), (8, 4, 4)]


@families
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_shape": (1, 28)}, "Expected a \\(C, H, W\\)"),
        ({"channels": ()}, "one positive number of `channels`"),
        ({"channels": (8,) * 5}, "at least 32 pixels for 5 resolutions"),
        ({"latent_dim": 0}, "positive `latent_dim`"),
    ],
)
def test_refuses_sizes_that_do_not_fit(family: Family, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(GeneratorError, match=words):
        build(family, **settings)


@families
def test_refuses_what_it_does_not_take(family: Family) -> None:
    generator = build(family)
    with pytest.raises(GeneratorError, match="Expected no condition"):
        generator(torch.zeros(1, 3), Condition.of(0, 0.5, n=1))
    with pytest.raises(GeneratorError, match=r"\(N, 3\)"):
        generator(torch.zeros(1, 4))
    for asked in (generator.encode, generator.posterior, generator.realism):
        with pytest.raises(GeneratorError, match=r"images of shape \(1, 28, 28\)"):
            asked(torch.zeros(1, 1, 28, 29))
