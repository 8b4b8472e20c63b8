import math
import re

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from failscape.errors import GeneratorError
from failscape.generators import VAE

SHAPE = (2, 3, 4)


def build(**options: object) -> VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VAE(**({"image_shape": SHAPE, "latent_dim": 3, "hidden": (8, 5)} | options))  # type: ignore[arg-type]


def images(n: int = 4) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_draws_images_in_the_unit_interval_and_encodes_them() -> None:
    vae = build()
    z = 10 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    x = vae(z)
    assert x.shape == (6, *SHAPE)
    assert 0 <= x.min() < x.max() <= 1
    mean, log_variance = vae.posterior(x)
    assert mean.shape == log_variance.shape == vae.encode(x).shape == (6, 3)
    assert torch.equal(vae.encode(x), mean)
    assert torch.equal(vae.decode_logits(z).sigmoid(), x)


def test_images_do_not_depend_on_their_batch() -> None:
    vae, z = build(), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(torch.cat([vae(row[None]) for row in z]), vae(z), atol=1e-6)
    assert torch.allclose(torch.cat([vae.encode(x[None]) for x in images()]), vae.encode(images()), atol=1e-6)


def test_samples_are_reproducible_and_of_the_prior() -> None:
    vae = build()
    seeded = [vae.sample(3, rng=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(seeded[0], seeded[1])
    assert not torch.equal(seeded[0], seeded[2])
    assert seeded[0].shape == (3, *SHAPE)
    assert not seeded[0].requires_grad
    before = torch.random.get_rng_state()
    z = vae.sample_latents(20_000, rng=torch.Generator().manual_seed(0))
    assert torch.equal(torch.random.get_rng_state(), before)
    # Five standard errors.
    assert z.mean(dim=0).abs().max() < 5 / math.sqrt(20_000)
    assert (z.T.cov() - torch.eye(3)).abs().max() < 5 * math.sqrt(2 / 20_000)


def test_an_image_unlike_all_others_has_a_bounded_variance() -> None:
    torch.manual_seed(0)
    vae = VAE(image_shape=(1, 4, 4), latent_dim=3, hidden=(8,))
    with torch.no_grad():
        vae.encoder[-1].bias[3:] = torch.tensor([50.0, -50.0, 1.0])
        _, log_variance = vae.posterior(torch.rand(2, 1, 4, 4))
        assert (vae.negative_elbo(torch.rand(2, 1, 4, 4), rng=torch.Generator())[1] < 100).all()
    assert log_variance[:, 0].tolist() == [4, 4]
    assert log_variance[:, 1].tolist() == [-12, -12]
    assert ((log_variance[:, 2] - 1).abs() < 1).all()


def test_divergence_is_that_of_torch_distributions() -> None:
    vae = build().double()
    mean, log_variance = vae.posterior(images().double())
    _, divergence = vae.negative_elbo(images().double(), rng=torch.Generator().manual_seed(0))
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), prior).sum(dim=1)
    assert torch.allclose(divergence, expected, rtol=1e-12)
    assert divergence.min() > 0


def test_reconstruction_is_the_bernoulli_likelihood_of_one_sample() -> None:
    vae, x = build(), images()
    reconstruction, _ = vae.negative_elbo(x, rng=torch.Generator().manual_seed(3))
    mean, log_variance = vae.posterior(x)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(3))
    z = mean + (0.5 * log_variance).exp() * noise
    likelihood = Bernoulli(logits=vae.decode_logits(z), validate_args=False).log_prob(x)
    assert torch.allclose(reconstruction, -likelihood.flatten(1).sum(dim=1), rtol=1e-5)


def test_gradient_of_the_bound_agrees_with_finite_differences() -> None:
    vae, x = build().double(), images().double()

    def bound() -> Tensor:
        return sum(term.sum() for term in vae.negative_elbo(x, rng=torch.Generator().manual_seed(0)))  # type: ignore[return-value]

    parameters = list(vae.parameters())
    gradients = torch.autograd.grad(bound(), parameters)
    rng, step = torch.Generator().manual_seed(1), 1e-5
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
        with torch.no_grad():
            parameter += step * direction
            above = bound()
            parameter -= 2 * step * direction
            below = bound()
            parameter += step * direction
        expected = (gradient * direction).sum()
        assert torch.allclose((above - below) / (2 * step), expected, rtol=1e-6, atol=1e-7)


def test_gradient_of_an_image_with_respect_to_its_latent() -> None:
    z = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(build().double(), z)


@pytest.mark.parametrize("shape", [(2, 2), (2, 4), (1, 30)])
def test_refuses_latents_of_another_length(shape: tuple[int, int]) -> None:
    with pytest.raises(GeneratorError, match=re.escape(f"latents of shape (N, 3), but got {shape}")):
        build()(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3)])
def test_refuses_latents_of_another_rank(shape: tuple[int, ...], as_installed: None) -> None:
    with pytest.raises(GeneratorError, match=re.escape(f"latents of shape (N, 3), but got {shape}")):
        build()(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 1, 3, 4), (1, 2, 4, 3), (1, 24, 1, 1)])
def test_refuses_images_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeneratorError, match=re.escape(f"images of shape {SHAPE} (C, H, W), but got {shape[1:]}")):
        build().encode(torch.zeros(shape))


@pytest.mark.parametrize(
    "options",
    [{"latent_dim": 0}, {"hidden": ()}, {"hidden": (8, 0)}, {"image_shape": (4, 4)}, {"image_shape": (1, 0, 4)}],
)
def test_refuses_sizes(options: dict[str, object]) -> None:
    with pytest.raises(GeneratorError, match=r"Expected a .* `image_shape`"):
        build(**options)
