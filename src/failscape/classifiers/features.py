"""What a classifier sees in an image, before it decides: the features that its last linear layer takes."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from failscape.classifiers.classifier import Classifier


def classifier_features(
    classifier: Classifier, x: Float[Tensor, "N C H W"]
) -> tuple[Float[Tensor, "N F"], Float[Tensor, "N K"]]:
    """Return the input of the last linear layer that runs in the classifier's network, and the logits.

    Both are differentiable where the classifier is. A network whose last linear layer takes more than one row an
    image, one without a linear layer, and a callable that is no module have no such features; then the logits stand
    in for them.

    Args:
        classifier: whose features are wanted.
        x: images in [0, 1]; all go through the network at the same time.

    Returns:
        Features and logits, float32, one row an image, on the classifier's device.

    Raises:
        ClassifierError: if the images do not fit the classifier, or its scores are not finite.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
        >>> classifier = Classifier(network, image_shape=(1, 28, 28))
        >>> features, logits = classifier_features(classifier, torch.rand(5, 1, 28, 28))
        >>> features.shape, logits.shape
        (torch.Size([5, 32]), torch.Size([5, 10]))
    """
    network = classifier.network
    caught: list[Tensor] = []

    def catch(layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        # A copy, since a layer that follows may change the tensor in place.
        taken: Tensor = (*arguments, *named.values())[0]
        caught[:] = [taken.clone()]

    layers = [m for m in network.modules() if isinstance(m, nn.Linear)] if isinstance(network, nn.Module) else []
    hooks = [layer.register_forward_pre_hook(catch, with_kwargs=True) for layer in layers]
    try:
        logits = classifier(x)
    finally:
        for hook in hooks:
            hook.remove()
    fits = bool(caught) and len(caught[0]) == len(x)
    return (caught[0].flatten(1).float() if fits else logits), logits


@torch.no_grad()
def penultimate_features(
    classifier: Classifier, x: Float[Tensor, "N C H W"], *, batch_size: int = 500
) -> Float[Tensor, "N F"]:
    """Return the features of `classifier_features` for any number of images, batch after batch.

    Args:
        classifier: whose features are wanted.
        x: images in [0, 1].
        batch_size: images that go through the network at the same time; it does not change the features.

    Returns:
        The features, float32, without gradients, on the CPU.

    Raises:
        ClassifierError: if the images do not fit the classifier, or its scores are not finite.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
        >>> penultimate_features(Classifier(network, image_shape=(1, 28, 28)), torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 32])
    """
    if len(x) == 0:
        # One image is needed to learn how many features there are.
        return penultimate_features(classifier, torch.full((1, *classifier.image_shape), 0.5))[:0]
    return torch.cat([classifier_features(classifier, batch)[0].cpu() for batch in x.split(batch_size)])
