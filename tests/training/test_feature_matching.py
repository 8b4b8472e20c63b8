import pytest
import torch
from torch import Tensor, nn

from failscape.classifiers import Classifier, classifier_features
from failscape.data import ImageSet
from failscape.generators import Condition
from failscape.training import feature_matching
from failscape.training.conditions import ConditionPool
from failscape.training.feature_matching import FeatureMatching


def linear(images: ImageSet, features: int = 3, seed: int = 0) -> Classifier:
    """A classifier whose features are linear in the pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Flatten(), nn.Linear(images.x[0].numel(), features), nn.Linear(features, 2))
    return Classifier(network, class_names=images.class_names, image_shape=images.image_shape)


def features_of(classifier: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return classifier_features(classifier, x)[0]


@pytest.fixture
def pool(images: ImageSet, stripes_classifier: Classifier) -> ConditionPool:
    return ConditionPool(images, stripes_classifier, batch=16, score="confidence", embedding="fourier")


def conditions(pool: ConditionPool) -> Condition:
    assert pool.conditions is not None
    return pool.conditions


def test_the_distance_is_that_of_the_means_of_each_class(images: ImageSet, pool: ConditionPool) -> None:
    classifier, condition = linear(images), conditions(pool)
    matching = FeatureMatching([classifier], pool)
    fake = (images.x + 0.1 * condition.y[:, None, None, None]).clamp(0, 1)
    for _ in range(400):
        terms, _ = matching(fake, condition, pace=1.0)

    differences = features_of(classifier, fake) - features_of(classifier, images.x)
    variance = features_of(classifier, images.x).var(dim=0).sum()
    expected = sum(
        (condition.y == label).float().mean() * differences[condition.y == label].mean(dim=0).square().sum()
        for label in range(2)
    )
    assert terms.keys() == {"matching"}
    torch.testing.assert_close(terms["matching"], expected / variance, rtol=0.01, atol=0)


def test_real_images_have_no_distance(images: ImageSet, pool: ConditionPool) -> None:
    matching = FeatureMatching([linear(images)], pool, spread=1.0)
    for _ in range(50):
        terms, gradient = matching(images.x, conditions(pool), pace=1.0)
    assert terms["matching"] < 1e-9
    assert terms["spread"].abs() < 1e-6
    assert gradient.abs().max() < 1e-6


def test_means_run_for_longer_the_slower_the_generator_moves(images: ImageSet, pool: ConditionPool) -> None:
    distances = {}
    for pace in (1.0, 0.5, 0.0):
        matching = FeatureMatching([linear(images)], pool)
        distances[pace] = float(matching(torch.zeros_like(images.x), conditions(pool), pace=pace)[0]["matching"])
    # One batch counts for 0.02, 0.01 and at least 0.004 of a difference, which is squared.
    assert distances[1.0] == pytest.approx(4 * distances[0.5], rel=1e-3)
    assert distances[1.0] == pytest.approx(25 * distances[0.0], rel=1e-3)


def test_some_real_images_of_each_class_serve(
    images: ImageSet, pool: ConditionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of so many that not all are looked at, even a class of a single image is."""
    monkeypatch.setattr(feature_matching, "_REAL", 40)
    condition = conditions(pool)
    condition.y[:] = 0
    condition.y[7] = 1
    classifier = linear(images)
    matching = FeatureMatching([classifier], pool)
    only = images.x[7:8].expand(4, -1, -1, -1)
    terms, _ = matching(only, Condition(y=torch.ones(4).long(), score=torch.full((4,), 0.8)), pace=1.0)
    assert terms["matching"] < 1e-9


def test_following_the_gradient_brings_the_means_together_and_leaves_the_spread(
    images: ImageSet, pool: ConditionPool
) -> None:
    condition = conditions(pool)
    matching = FeatureMatching([linear(images), linear(images, seed=1)], pool)
    fake = 0.5 * images.x + 0.3
    first = None
    for turn in range(300):
        terms, gradient = matching(fake, condition, pace=1.0)
        if turn == 60:
            first = terms["matching"]
        if turn >= 60:
            fake = fake - 100 * gradient
    assert first is not None
    assert terms["matching"] < 0.1 * first
    # All images of a class are moved alike, where features are linear in the pixels.
    moved = (fake - 0.5 * images.x - 0.3)[condition.y == 0]
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), rtol=0, atol=1e-4)


def excess(classifier: Classifier, x: Tensor, real: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the covariances of each class of images and of real ones, both about the mean of the real ones, ridged."""
    scale = features_of(classifier, real).double().var(dim=0, correction=0).sum().sqrt()
    pairs = []
    for label in range(2):
        known = features_of(classifier, real)[y == label].double() / scale
        seen = classifier_features(classifier, x)[0][y == label].double() / scale - known.mean(dim=0)
        covariance = known.T.cov(correction=0)
        ridge = 0.05 * covariance.diagonal().mean() * torch.eye(len(covariance))
        pairs.append((seen.T @ seen / len(seen) + ridge, covariance + ridge))
    return pairs


def bures(first: Tensor, second: Tensor) -> Tensor:
    """The squared distance of covariances, by the square roots of the eigenvalues of their product."""
    roots = torch.linalg.eigvals(first @ second).real.clamp_min(0).sqrt().sum()
    return first.trace() + second.trace() - 2 * roots


def test_the_spread_is_the_distance_of_the_covariances_of_each_class_and_has_its_gradient(
    images: ImageSet, pool: ConditionPool
) -> None:
    classifier, condition = linear(images), conditions(pool)
    rng = torch.Generator().manual_seed(0)
    fake = (0.6 * images.x + 0.2 * torch.rand(images.x.shape, generator=rng)).clamp(0, 1)
    gradients = {}
    for spread in (0.0, 3.0):
        matching = FeatureMatching([classifier], pool, spread=spread)
        for _ in range(501):
            terms, gradients[spread] = matching(fake, condition, pace=1.0)

    def distance(x: Tensor) -> Tensor:
        shares = condition.y.bincount() / len(condition.y)
        pairs = excess(classifier, x, images.x, condition.y)
        return torch.stack([share * bures(*pair) for share, pair in zip(shares, pairs, strict=True)]).sum()

    torch.testing.assert_close(terms["spread"].double(), distance(fake).detach(), rtol=1e-3, atol=0)
    pixels = fake.clone().requires_grad_()
    (expected,) = torch.autograd.grad(distance(pixels), pixels)
    torch.testing.assert_close((gradients[3.0] - gradients[0.0]) / 3, expected, rtol=0.01, atol=1e-6)


def test_following_the_gradient_brings_the_covariances_together(images: ImageSet, pool: ConditionPool) -> None:
    classifier, condition = linear(images), conditions(pool)
    matching = FeatureMatching([classifier], pool, spread=1.0)
    # Of the right means, but half as wide.
    means = torch.stack([images.x[condition.y == label].mean(dim=0) for label in range(2)])[condition.y]
    fake, distances = 0.5 * images.x + 0.5 * means, []
    for turn in range(560):
        terms, gradient = matching(fake, condition, pace=1.0)
        distances.append(float(terms["spread"]))
        if turn >= 60:
            fake = fake - gradient
    assert distances[-1] < 0.2 * distances[60]


def test_what_runs_is_part_of_the_state(images: ImageSet, pool: ConditionPool) -> None:
    """A training that was cut off goes on as if it had not been: in the midst of the turns between two ways, too."""
    condition, fake = conditions(pool), 0.5 * images.x
    one, other = (FeatureMatching([linear(images)], pool, spread=1.0) for _ in range(2))
    for _ in range(13):
        one(fake, condition, pace=1.0)
    other.load_state_dict(one.state_dict())
    for _ in range(9):
        (told, gradient), (again, same) = (matching(fake, condition, pace=0.5) for matching in (one, other))
        assert torch.equal(gradient, same)
        assert told == again
