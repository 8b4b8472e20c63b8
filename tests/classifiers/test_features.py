import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from failscape.classifiers import (
    NETWORKS,
    Classifier,
    build_network,
    classifier_features,
    load_classifier,
    penultimate_features,
)
from failscape.errors import ClassifierError

SHAPE = (1, 8, 8)


def images(n: int = 7) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0))


def last_linear(classifier: Classifier) -> nn.Linear:
    assert isinstance(classifier.network, nn.Module)
    return [module for module in classifier.network.modules() if isinstance(module, nn.Linear)][-1]


class Backwards(nn.Module):
    """Its layers run in another order than they are declared, and the input of the last is passed by name."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)
        self.body = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x.flatten(1))
        logits: Tensor = self.head(input=features).clone()
        features.zero_()
        return logits


@pytest.mark.parametrize("architecture", NETWORKS)
def test_the_last_layer_makes_the_logits_of_them(architecture: str) -> None:
    network = build_network(architecture, seed=0, image_shape=SHAPE, num_classes=3, width=8)
    classifier = Classifier(network, image_shape=SHAPE, temperature=2.0)
    features = penultimate_features(classifier, images(), batch_size=3)
    assert torch.allclose(last_linear(classifier)(features) / 2, classifier(images()), atol=1e-6)
    assert (features.dtype, features.requires_grad) == (torch.float32, False)


def test_of_an_embedded_classifier_make_its_predictions() -> None:
    classifier = load_classifier("embedded:mnist-oracle-clean")
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    features = penultimate_features(classifier, x)
    assert features.shape == (4, 96)
    assert torch.allclose(last_linear(classifier)(features), classifier(x), atol=1e-5)


def test_the_layer_that_runs_last_counts_and_later_changes_do_not_reach_the_features() -> None:
    network = Backwards()
    features = penultimate_features(Classifier(network, image_shape=SHAPE), images())
    assert torch.allclose(features, network.body(images().flatten(1)), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    network = build_network("residual-cnn", seed=0, image_shape=SHAPE, num_classes=3, width=8)
    classifier = Classifier(network, image_shape=SHAPE)
    expected = penultimate_features(classifier, images())
    assert torch.allclose(penultimate_features(classifier, images(), batch_size=batch_size), expected, atol=1e-6)


def test_without_a_linear_layer_the_logits_stand_in() -> None:
    weights = torch.linspace(-1, 1, 3 * 64).view(3, 64)
    function = Classifier(lambda x: x.flatten(1) @ weights.T, image_shape=SHAPE, temperature=2.0)
    convolution = Classifier(nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), image_shape=SHAPE)
    arrays = Classifier(lambda x: x.flatten(1).numpy() @ weights.T.numpy(), image_shape=SHAPE)
    for classifier in (function, convolution, arrays):
        with torch.no_grad():
            assert torch.allclose(penultimate_features(classifier, images()), classifier(images()), atol=1e-6)


def test_a_layer_that_takes_several_rows_an_image_is_none() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            patches = F.unfold(x, 4, stride=4).transpose(1, 2).flatten(0, 1)
            scores: Tensor = self.layer(patches)
            return scores.unflatten(0, (len(x), 4)).mean(dim=1)

    classifier = Classifier(Patches(), image_shape=SHAPE)
    with torch.no_grad():
        assert torch.allclose(penultimate_features(classifier, images()), classifier(images()), atol=1e-6)


def test_no_images_have_features_of_the_right_width() -> None:
    assert penultimate_features(Classifier(Backwards(), image_shape=SHAPE), images(0)).shape == (0, 5)


def test_the_network_is_left_as_it_was_even_after_an_error() -> None:
    network = build_network("plain-cnn", seed=0, image_shape=SHAPE, num_classes=3, width=8)
    classifier = Classifier(network, image_shape=SHAPE)
    penultimate_features(classifier, images())
    with pytest.raises(ClassifierError, match="Expected images of shape"):
        penultimate_features(classifier, torch.zeros(2, 1, 9, 9))
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("architecture", NETWORKS)
def test_features_and_logits_of_one_call_have_gradients(architecture: str) -> None:
    network = build_network(architecture, seed=0, image_shape=SHAPE, num_classes=3, width=8)
    classifier = Classifier(network, image_shape=SHAPE, temperature=2.0)
    x = images().requires_grad_()
    features, logits = classifier_features(classifier, x)
    assert torch.allclose(features, penultimate_features(classifier, x), atol=1e-6)
    assert torch.allclose(logits, classifier(x), atol=1e-6)

    # The gradient of the logits is that of the features, sent through the last layer.
    head = last_linear(classifier).weight[1].expand(len(x), -1) / 2
    (through,) = torch.autograd.grad(features, x, head, retain_graph=True)
    (straight,) = torch.autograd.grad(logits[:, 1].sum(), x)
    assert straight.abs().max() > 0
    assert torch.allclose(through, straight, atol=1e-6)


def test_the_logits_that_stand_in_have_gradients() -> None:
    classifier = Classifier(nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), image_shape=SHAPE)
    x = images().requires_grad_()
    features, logits = classifier_features(classifier, x)
    assert torch.equal(features, logits)
    assert torch.autograd.grad(features.sum(), x)[0].abs().max() > 0
