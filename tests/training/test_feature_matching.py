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
    matching = FeatureMatching([classifier], images, SPACE, even_share=0.0)
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
    matching = FeatureMatching([linear(images), linear(images, seed=1)], images, SPACE, even_share=0.0)
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
    # All images of a class are moved alike.
    moved = (fake - 0.5 * images.x - 0.3)[images.y == 0]
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), rtol=0, atol=1e-4)


def test_images_drawn_evenly_weigh_as_few_as_there_are(images: ImageSet) -> None:
    """Half of a batch is drawn evenly over the score; of real images nearly all are sure."""
    quantiles = [[0.0, 0.9, 0.95, 0.98, 1.0]] * 2
    space = ConditionSpace(num_classes=2, quantiles=quantiles, shares=[0.5, 0.5])
    rng, n = torch.Generator().manual_seed(0), 20_000
    marks = torch.tensor(quantiles[0])
    place = 4 * torch.rand(n, generator=rng)
    below = place.long()
    score = torch.lerp(marks[below], marks[below + 1], place - below)
    usual = torch.lerp(marks[below], marks[below + 1], place - below)[n // 2 :].clone()
    score[: n // 2] = torch.rand(n // 2, generator=rng)
    y = torch.randint(2, (n,), generator=rng)
    classifier = linear(images)
    matching = FeatureMatching([classifier], images, space, even_share=0.5)

    # Generated images differ from real ones by what depends on the score.
    x = torch.zeros(n, *images.image_shape)
    fake = x + (1 - score)[:, None, None, None]
    for _ in range(300):
        matching(fake, x, Condition(y=y, score=score.clamp_min(1e-3)))

    scale = features_of(classifier, images.x).var(dim=0).sum().sqrt()
    unit = (features_of(classifier, x[:1] + 1) - features_of(classifier, x[:1]))[0]
    expected = 0.5 * (1 - usual).mean() * unit / scale
    torch.testing.assert_close(matching.gaps[0][0].data, expected, rtol=0.1, atol=0)
