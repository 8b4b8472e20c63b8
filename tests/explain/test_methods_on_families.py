"""Every method that needs latents of images, on every family: what it says is true of its images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.explain import CentroidPath, ClassConvergence, EdgeCases, Frontier, SympatheticExamples
from failscape.explain.latent_space import LatentSpace
from failscape.generators import VAE, VAEGAN, WGAN, Autoencoder, IntroVAE, Progressive

SHAPE = (1, 8, 8)
CONVOLUTIONAL: dict[str, Any] = {"image_shape": SHAPE, "channels": (8, 4), "latent_dim": 3}
FAMILIES: dict[str, Callable[[], Autoencoder]] = {
    "vae": lambda: VAE(image_shape=SHAPE, latent_dim=3, hidden=(16,)),
    "vae-gan": lambda: VAEGAN(**CONVOLUTIONAL),
    "intro-vae": lambda: IntroVAE(**CONVOLUTIONAL),
    "wgan": lambda: WGAN(**CONVOLUTIONAL),
    "progressive": lambda: Progressive(**CONVOLUTIONAL),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=FAMILIES)
def generator(request: pytest.FixtureRequest) -> Autoencoder:
    """Networks of random weights, whose samples differ in brightness."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return FAMILIES[request.param]().eval()


@pytest.fixture(scope="module")
def samples(generator: Autoencoder) -> Tensor:
    return generator.sample(200, rng=seeded(1))


@pytest.fixture(scope="module")
def classifier(samples: Tensor) -> Classifier:
    """Class 1 is what is brighter than the sample in the middle; half the samples are of each."""
    means = samples.mean(dim=(1, 2, 3))
    middle, spread = means.median(), means.std()
    assert spread > 1e-3

    def logits(x: Tensor) -> Tensor:
        score = 3 * (x.mean(dim=(1, 2, 3)) - middle) / spread
        return torch.stack([-score, score], dim=1)

    return Classifier(logits, image_shape=SHAPE, name="brightness")


def test_frontier(generator: Autoencoder, classifier: Classifier, samples: Tensor) -> None:
    y = classifier.predict(samples)
    result = Frontier(per_target=8, samples=200, opinions=0)(classifier, generator, samples, y, rng=seeded())
    assert result.success.float().mean() > 0.8
    found = classifier.probs(result.images)[result.success]
    assert (found - 0.5).abs().max() <= 0.05
    assert (result.way > 0).all()


def test_class_convergence(generator: Autoencoder, classifier: Classifier, samples: Tensor) -> None:
    y = classifier.predict(samples)
    result = ClassConvergence(samples=8, candidates=20, steps=20)(classifier, generator, samples, y, rng=seeded())
    assert result.accepted.float().mean() > 0.8
    assert torch.equal(classifier.predict(result.images) == result.asked, result.accepted)


def test_sympathetic_examples_and_edge_cases(generator: Autoencoder, classifier: Classifier, samples: Tensor) -> None:
    x = samples[:6]
    y = 1 - classifier.predict(x)
    result = SympatheticExamples()(classifier, generator, x, y, rng=seeded())
    assert result.success.any()
    assert torch.equal(classifier.predict(result.images) == y, result.success)
    pairs = EdgeCases()(classifier, generator, x, y, rng=seeded())
    assert len(pairs.ids) > 0
    verdicts = classifier.predict(pairs.images).view(-1, 2)
    assert torch.equal(verdicts[:, 1], pairs.target)
    assert (verdicts[:, 0] != pairs.target).all()


def test_centroid_path(generator: Autoencoder, classifier: Classifier, samples: Tensor) -> None:
    y = classifier.predict(samples)
    result = CentroidPath(points=9, samples=1)(classifier, generator, samples, y, rng=seeded())
    torch.testing.assert_close(classifier.probs(result.images), result.verification.probs, atol=1e-5, rtol=0)


def test_latents_of_the_prior_draw_the_same_images(generator: Autoencoder) -> None:
    """Of a progressive generator only directions count: away from the sphere a distance is of nothing that is seen."""
    space = LatentSpace(generator, rng=seeded())
    points = 2.5 * torch.randn(16, 3, generator=seeded(2))
    there = space.on_prior(points)
    torch.testing.assert_close(space.draw(there), space.draw(points))
    if isinstance(generator, Progressive):
        torch.testing.assert_close(there.square().sum(dim=1), torch.full((16,), 3.0))
    else:
        assert torch.equal(there, points)
