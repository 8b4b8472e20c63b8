import torch
from torch import Tensor, nn

from failscape.classifiers import Classifier, classifier_features
from failscape.data import ImageSet
from failscape.generators import Condition, ConditionSpace
from failscape.training.feature_matching import FeatureMatching

SPACE = ConditionSpace(num_classes=2)


def linear(images: ImageSet, features: int = 3, seed: int = 0) -> Classifier:
    """A classifier whose features are linear in the pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Flatten(), nn.Linear(images.x[0].numel(), features), nn.Linear(features, 2))
    return Classifier(network, class_names=images.class_names, image_shape=images.image_shape)


def features_of(classifier: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return classifier_features(classifier, x)[0]


def test_the_distance_is_that_of_the_means_of_each_class(images: ImageSet) -> None:
    classifier = linear(images)
    matching = FeatureMatching([classifier], images, SPACE)
    condition = Condition(y=images.y, score=torch.full((len(images),), 0.8))
    fake = (images.x + 0.1 * images.y[:, None, None, None]).clamp(0, 1)
    for _ in range(200):
        distance, _ = matching(fake, images.x, condition)

    differences = features_of(classifier, fake) - features_of(classifier, images.x)
    variance = features_of(classifier, images.x).var(dim=0).sum()
    expected = sum(
        # The shares of the space are even, those of the images nearly.
        (images.y == label).float().mean() ** 2 / 0.5 * differences[images.y == label].mean(dim=0).square().sum()
        for label in range(2)
    )
    torch.testing.assert_close(distance, expected / variance, rtol=0.01, atol=0)


def test_following_the_gradient_brings_the_means_together_and_leaves_the_spread(images: ImageSet) -> None:
    matching = FeatureMatching([linear(images), linear(images, seed=1)], images, SPACE)
    condition = Condition(y=images.y, score=torch.full((len(images),), 0.8))
    fake = 0.5 * images.x + 0.3
    first = None
    for turn in range(300):
        distance, gradient = matching(fake, images.x, condition)
        if turn == 60:
            first = distance
        if turn >= 60:
            fake = fake - 100 * gradient
    assert first is not None
    assert distance < 0.1 * first
    # All images of a class are moved alike, where features are linear in the pixels.
    moved = (fake - 0.5 * images.x - 0.3)[images.y == 0]
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), rtol=0, atol=1e-4)
