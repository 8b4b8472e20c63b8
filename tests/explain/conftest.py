from dataclasses import dataclass

import pytest
import torch

from failscape import load_classifier, load_generator, load_images
from failscape.classifiers import Classifier
from failscape.data import ImageSet
from failscape.explain import SympatheticExamples, SympatheticResult
from failscape.generators import Autoencoder, require_autoencoder


@dataclass(frozen=True)
class World:
    """What the package holds: digits, classifiers, autoencoders."""

    images: ImageSet
    classifier: Classifier
    oracle: Classifier
    ten: Autoencoder
    two: Autoencoder
    mistakes: ImageSet


@pytest.fixture(scope="session")
def world() -> World:
    images, classifier = load_images("embedded:mnist-test"), load_classifier("embedded:mnist-clean")
    return World(
        images=images,
        classifier=classifier,
        oracle=load_classifier("embedded:mnist-oracle-clean"),
        ten=require_autoencoder(load_generator("embedded:mnist-vae-10d"), "tests"),
        two=require_autoencoder(load_generator("embedded:mnist-vae-2d"), "tests"),
        mistakes=images.select(classifier.predict(images.x) != images.y),
    )


def explain(world: World, method: SympatheticExamples, n: int | None = None, ten: bool = True) -> SympatheticResult:
    """Explain the first `n` mistakes, or all."""
    x, y = world.mistakes.x[:n], world.mistakes.y[:n]
    rng = torch.Generator().manual_seed(0)
    generator = world.ten if ten else world.two
    return method(world.classifier, generator, x, y, rng=rng, oracle=world.oracle, ids=world.mistakes.ids[:n])


@pytest.fixture(scope="session")
def boundary(world: World) -> SympatheticResult:
    """All mistakes, in ten dimensions."""
    return explain(world, SympatheticExamples())


@pytest.fixture(scope="session")
def confident(world: World) -> SympatheticResult:
    return explain(world, SympatheticExamples(mode="confident", confidence=0.9))


@pytest.fixture(scope="session")
def baseline(world: World) -> SympatheticResult:
    return explain(world, SympatheticExamples(mode="fixed-step"))


@pytest.fixture(scope="session")
def plane(world: World) -> SympatheticResult:
    """All mistakes, in two dimensions, without maps."""
    return explain(world, SympatheticExamples(plane=0, grid=100), ten=False)
