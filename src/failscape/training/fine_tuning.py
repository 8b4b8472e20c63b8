"""Further training of a classifier, on its own data and on labelled images beside them."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from failscape.classifiers import Classifier, save_with_weights
from failscape.data import ImageSet
from failscape.data.joined import joined
from failscape.errors import DataError, UnsupportedClassifier
from failscape.storage import fill_network, read_tensors, write_tensors
from failscape.training.augmentation import jitter
from failscape.training.ema import update_average
from failscape.training.loop import train
from failscape.training.sampler import MixedSampler, Order
from failscape.training.schedule import set_learning_rate, warmup_cosine
from failscape.training.settings import FineTuningSettings
from failscape.training.task import Task

WEIGHTS = "classifier.safetensors"
_EVALUATION_BATCH = 500


def fine_tune(
    classifier: Classifier,
    data: ImageSet,
    labelled: ImageSet | None,
    folder: Path,
    settings: FineTuningSettings,
    *,
    spec: str,
) -> Classifier:
    """Return a copy of a classifier that was trained further, with the temperature that it had.

    At the end its weights are `settings.kept` times the old ones and for the rest the new ones: between the two a
    network keeps more of what it knew than at the end of the training, and has nearly all that it has learnt.

    A training that was cut off in `folder` goes on; one that is complete is not run again.

    Args:
        classifier: what to start from; it is not changed. Its layers stay in evaluation mode: statistics of batches
            are kept as they are, and nothing is dropped out.
        data: its own training data.
        labelled: images beside them, with the labels that they are to have; None for its own data alone.
        folder: of this training alone; comes to hold its `classifier.safetensors` too, with its `classifier.json`
            where failscape knows the architecture.
        settings: of the training.
        spec: which classifier this is, as `load_classifier` takes it.

    Raises:
        UnsupportedClassifier: if the classifier is no `nn.Module`, or has no weights.
        DataError: if there are no images, or the two sets are of different shapes or classes.
        FailscapeError: what `train` raises.

    References:
        Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, for the mean of old and new weights.
    """
    if not isinstance(classifier.network, nn.Module) or not list(classifier.network.parameters()):
        raise UnsupportedClassifier(
            f"Expected a classifier with weights to train further, but {classifier.name} is a function without any. "
            "Give the PyTorch network itself."
        )
    task = FineTuningTask(classifier, settings, spec=spec, labelled=0 if labelled is None else len(labelled))
    if task.is_exported(folder):
        fill_network(task.averaged["classifier"], read_tensors(folder / WEIGHTS), f"the classifier in {folder}")
        return task.trained
    learnt = data if labelled is None else joined([data, labelled], name=f"{data.name} and {labelled.name}")
    train(task, learnt, folder, settings, resume=True)
    task.keep_old_weights()
    task.export(folder, {"from": spec, "settings": settings.model_dump(mode="json")})
    return task.trained


@final
class FineTuningTask(Task):
    """Fits a trained network to more labels.

    Args:
        classifier: what to start from.
        settings: of the training.
        spec: which classifier this is.
        labelled: so many images at the end of those learnt from are the labelled ones.
    """

    def __init__(self, classifier: Classifier, settings: FineTuningSettings, *, spec: str, labelled: int) -> None:
        self._classifier = classifier
        self._settings = settings
        self._spec = spec
        self._labelled = labelled
        network = copy.deepcopy(classifier.network)
        assert isinstance(network, nn.Module)
        learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if not learning:
            learning = list(network.requires_grad_().parameters())
        self.networks = nn.ModuleDict({"classifier": network})
        self.averaged = nn.ModuleDict({"classifier": copy.deepcopy(network).requires_grad_(False)})
        optimizer = torch.optim.AdamW(learning, weight_decay=settings.weight_decay, fused=True)
        self.optimizers = {"classifier": optimizer}
        self._learner = self._with(network)

    @property
    def trained(self) -> Classifier:
        """The classifier of the averaged weights."""
        average = copy.deepcopy(self.averaged["classifier"])
        assert isinstance(average, nn.Module)
        return self._with(average, temperature=self._classifier.temperature)

    def sampler(self, images: ImageSet, seed: int) -> Order:
        """Return an order in which every batch has its share of labelled images."""
        own = len(images) - self._labelled
        if own <= 0:
            raise DataError(
                f"Expected the classifier's own data beside {self._labelled} labelled images, but got none. Name them, "
                "so that it does not forget what it knew."
            )
        return MixedSampler(own, self._labelled, share=self._settings.share if self._labelled else 0.0, seed=seed)

    def step(
        self, x: Float[Tensor, "N C H W"], y: Int[Tensor, " N"], *, progress: float, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Update the network once by cross-entropy; the loss is in nats."""
        settings, optimizer = self._settings, self.optimizers["classifier"]
        factor = warmup_cosine(progress, warmup=min(1.0, settings.warmup / settings.images))
        set_learning_rate(optimizer, settings.learning_rate * factor)
        if settings.augment:
            x = jitter(x, rng=rng)
        loss = F.cross_entropy(self._learner(x.contiguous(memory_format=torch.channels_last)), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    def evaluate(self, images: ImageSet) -> dict[str, float]:
        """Return the accuracy of the averaged network, and the image count."""
        trained = self.trained
        right = sum(int((trained.predict(batch.x) == batch.y).sum()) for batch in images.batches(_EVALUATION_BATCH))
        return {"accuracy": right / len(images), "n": float(len(images))}

    def export(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """Save the averaged network, as `load_classifier` takes it where failscape knows its architecture."""
        state = self.averaged["classifier"].state_dict()
        if self._spec.startswith("python:"):
            write_tensors(folder / WEIGHTS, state)
        else:
            save_with_weights(self._spec, folder, state=state, record=provenance)

    def keep_old_weights(self) -> None:
        """Move the averaged weights toward those at the beginning by the part that is to be kept."""
        old = self._classifier.network
        assert isinstance(old, nn.Module)
        update_average(self.averaged["classifier"], old, 1 - self._settings.kept)

    def is_exported(self, folder: Path) -> bool:
        """Return whether `export` was done with a folder; the description comes after the weights."""
        last = WEIGHTS if self._spec.startswith("python:") else "classifier.json"
        return (folder / last).is_file()

    def _with(self, network: nn.Module, *, temperature: float = 1.0) -> Classifier:
        like = self._classifier
        return Classifier(
            network,
            class_names=like.class_names,
            image_shape=like.image_shape,
            temperature=temperature,
            outputs=like.outputs,
            name=f"{like.name}, retrained",
        )
