"""The classifier that is being explained: one network, its class names, its image shape, its temperature."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from failscape.errors import ClassifierError, UnsupportedClassifier

Network = nn.Module | Callable[[Tensor], Any]


@final
class Classifier:
    """Any image classifier, called on images in [0, 1].

    The network is any `nn.Module` or callable that takes `(N, C, H, W)` float32 images in [0, 1] and returns
    one row of class scores an image; a network that wants another range or size converts inside itself. A
    module is put into evaluation mode. A callable may return a NumPy array; it then has no gradients, and gets
    images that need none.

    Args:
        network: what is to be explained.
        class_names: one name a class, in the order of the network's outputs; by default "0", "1", ….
        image_shape: `(C, H, W)` of the images that the network takes.
        temperature: divides the logits; 1 leaves them alone.
        outputs: what the network returns, "logits" (or log-probabilities) or "probabilities".
        name: how reports call the classifier.

    Attributes:
        differentiable: whether gradients flow from the logits to the images; found by a trial call.
        device: where the network lies; images are moved there.

    Raises:
        ClassifierError: if the network fails on a trial image, returns another shape than `(N, K)`, another
            number of classes than there are names, values that are not finite, or "probabilities" outside [0, 1].

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
        >>> classifier = Classifier(network, image_shape=(1, 28, 28))
        >>> classifier(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        network: Network,
        *,
        class_names: Sequence[str] | None = None,
        image_shape: tuple[int, int, int] | Sequence[int],
        temperature: float = 1.0,
        outputs: Literal["logits", "probabilities"] = "logits",
        name: str = "classifier",
    ) -> None:
        if len(image_shape) != 3 or any(int(size) < 1 for size in image_shape):
            raise ClassifierError(f"Expected `image_shape` as (C, H, W), but got {tuple(image_shape)}.")
        _check_temperature(temperature)
        if outputs not in ("logits", "probabilities"):
            raise ClassifierError(f"Expected `outputs` to be 'logits' or 'probabilities', but got {outputs!r}.")
        self.network = network.eval() if isinstance(network, nn.Module) else network
        self.image_shape = (int(image_shape[0]), int(image_shape[1]), int(image_shape[2]))
        self.temperature = float(temperature)
        self.outputs = outputs
        self.name = name
        self.device = _device_of(network)
        self.class_names: tuple[str, ...] = ()
        self.differentiable = self._gives_gradients()
        logits = self._call(torch.full((2, *self.image_shape), 0.5))
        self.class_names = self._checked_names(class_names, logits.shape[1])

    @property
    def num_classes(self) -> int:
        """The number of classes, K."""
        return len(self.class_names)

    def __call__(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
        """Return the logits, divided by the temperature.

        Raises:
            ClassifierError: if the images have another shape than `image_shape`, or a logit is not finite.
        """
        if tuple(x.shape[1:]) != self.image_shape:
            raise ClassifierError(
                f"Expected images of shape {self.image_shape} (C, H, W) for {self.name}, but got "
                f"{tuple(x.shape[1:])}. Resize the images, or wrap the network so that it resizes."
            )
        return self._call(x)

    def predict(self, x: Float[Tensor, "N C H W"], *, batch_size: int = 1000) -> Int[Tensor, " N"]:
        """Return the most probable class of each image."""
        return self.probs(x, batch_size=batch_size).argmax(dim=1)

    @torch.no_grad()
    def probs(self, x: Float[Tensor, "N C H W"], *, batch_size: int = 1000) -> Float[Tensor, "N K"]:
        """Return the class probabilities, computed batch by batch, without gradients."""
        if len(x) == 0:
            return torch.empty(0, self.num_classes)
        return torch.cat([self(batch).softmax(dim=1).cpu() for batch in x.split(batch_size)])

    def with_temperature(self, temperature: float) -> "Classifier":
        """Return the same classifier with another temperature; the two share the network, which is not called.

        Args:
            temperature: divides the network's logits, in place of the one that this classifier has.

        Raises:
            ClassifierError: if the temperature is not a positive number.

        Example:
            >>> logits = torch.cat([classifier(batch.x) for batch in images.batches(500)])
            >>> factor = fit_temperature(logits, images.y)
            >>> calibrated = classifier.with_temperature(classifier.temperature * factor)
        """
        _check_temperature(temperature)
        other = copy.copy(self)
        other.temperature = float(temperature)
        return other

    def to(self, device: torch.device | str) -> "Classifier":
        """Return the same classifier with a copy of its network on a device; itself if it is there, or no module."""
        device = torch.device(device)
        if not isinstance(self.network, nn.Module) or device == self.device:
            return self
        other = copy.copy(self)
        other.network, other.device = copy.deepcopy(self.network).to(device), device
        return other

    def require_gradients(self, method: str, alternative: str) -> None:
        """Refuse a classifier without gradients, naming what to use instead.

        Raises:
            UnsupportedClassifier: if the network gives no gradients.
        """
        if not self.differentiable:
            raise UnsupportedClassifier(
                f"Expected a classifier with gradients for {method}, but {self.name} has none. {alternative}"
            )

    def _gives_gradients(self) -> bool:
        """Try whether the images get a gradient; a network that takes none, such as a NumPy one, may raise."""
        self.differentiable = True
        images = torch.full((2, *self.image_shape), 0.5, requires_grad=True)
        try:
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(self._call(images).sum(), images, allow_unused=True)
        except (ClassifierError, RuntimeError):
            return False
        return gradient is not None

    def _call(self, x: Tensor) -> Tensor:
        x = x if self.differentiable else x.detach()
        try:
            returned = self.network(x.to(self.device))
        except Exception as error:
            raise ClassifierError(
                f"Expected {self.name} to accept images of shape {tuple(x.shape)}, but it raised "
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}. "
                "Check `image_shape` and what the network expects."
            ) from error
        scores = self._as_scores(returned)
        if scores.ndim != 2 or len(scores) != len(x):
            raise ClassifierError(
                f"Expected {self.name} to return scores of shape ({len(x)}, K), but got {tuple(scores.shape)}. "
                "Wrap the network so that it returns one row an image and one score a class."
            )
        if not scores.isfinite().all():
            broken = int((~scores.isfinite().all(dim=1)).sum())
            raise ClassifierError(
                f"Expected finite scores from {self.name}, but got NaN or infinity for {broken} of {len(x)} images. "
                "Check its weights and that it takes images in [0, 1]."
            )
        if self.outputs == "probabilities":
            scores = self._log_probabilities(scores)
        return scores / self.temperature

    def _as_scores(self, returned: Any) -> Tensor:
        try:
            # A copy, since a network may hand out a read-only array, or one that it writes to again.
            scores = returned if isinstance(returned, Tensor) else torch.tensor(np.asarray(returned))
            return scores.float()
        except (RuntimeError, ValueError, TypeError) as error:
            raise ClassifierError(
                f"Expected {self.name} to return a tensor or an array of scores, but got {type(returned).__name__}. "
                "Wrap the network so that it returns the scores alone."
            ) from error

    def _log_probabilities(self, probs: Tensor) -> Tensor:
        if probs.numel() and (probs.min() < 0 or probs.max() > 1.001):
            raise ClassifierError(
                f"Expected probabilities in [0, 1] from {self.name}, but got {probs.min():.3g} to {probs.max():.3g}. "
                "Pass outputs='logits' if that is what it returns."
            )
        return probs.clamp_min(torch.finfo(torch.float32).tiny).log()

    def _checked_names(self, names: Sequence[str] | None, outputs: int) -> tuple[str, ...]:
        if outputs < 2:
            raise ClassifierError(
                f"Expected {self.name} to have at least 2 outputs, but got {outputs}. Wrap a binary network so that "
                "it returns one score a class."
            )
        if names is None:
            return tuple(str(k) for k in range(outputs))
        labels = tuple(str(label) for label in names)
        if isinstance(names, str) or len(labels) != outputs or len(set(labels)) != len(labels):
            raise ClassifierError(
                f"Expected {outputs} different class names, one an output of {self.name}, but got {names!r}. "
                "Name every output once."
            )
        return labels


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < float("inf"):
        raise ClassifierError(f"Expected a positive `temperature`, but got {temperature}.")


def _device_of(network: Network) -> torch.device:
    if isinstance(network, nn.Module):
        for parameter in network.parameters():
            return parameter.device
    return torch.device("cpu")
