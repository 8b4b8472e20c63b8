"""Training of a reference classifier by cross-entropy."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from failscape.classifiers import build_network, save_classifier
from failscape.data import ImageSet
from failscape.errors import DataError
from failscape.training.augmentation import jitter
from failscape.training.precision import autocast
from failscape.training.schedule import set_learning_rate, warmup_cosine
from failscape.training.settings import ClassifierSettings
from failscape.training.task import Task
from failscape.training.temperature import first_half, fit_and_measure

_EVALUATION_BATCH = 500


@final
class ClassifierTask(Task):
    """Fits a reference network to labels.

    Args:
        settings: of the training.
        image_shape: `(C, H, W)`.
        class_names: K names.
    """

    def __init__(
        self, settings: ClassifierSettings, *, image_shape: tuple[int, int, int], class_names: Sequence[str]
    ) -> None:
        self._settings = settings
        self._image_shape = image_shape
        self._class_names = tuple(class_names)
        self._sizes = {"width": settings.width}
        network = build_network(
            settings.architecture,
            seed=settings.seed,
            image_shape=image_shape,
            num_classes=len(class_names),
            **self._sizes,
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        self.networks = nn.ModuleDict({"classifier": network})
        self.averaged = nn.ModuleDict({"classifier": deepcopy(network).requires_grad_(False).eval()})
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=settings.weight_decay, fused=True)
        self.optimizers = {"classifier": optimizer}
        self._temperature: float | None = None

    def step(
        self, x: Float[Tensor, "N C H W"], y: Int[Tensor, " N"], *, progress: float, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Update the network once by label-smoothed cross-entropy; the loss is in nats."""
        settings, optimizer = self._settings, self.optimizers["classifier"]
        factor = warmup_cosine(progress, warmup=settings.warmup / settings.images)
        set_learning_rate(optimizer, settings.learning_rate * factor)
        if settings.augment:
            x = jitter(x, rng=rng)
        with autocast(x.device.type, bf16=settings.bf16):
            logits = self.networks["classifier"](x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), y, label_smoothing=settings.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    @torch.no_grad()
    def evaluate(self, images: ImageSet) -> dict[str, float]:
        """Return accuracy and cross-entropy (nats an image) of the averaged network, and the image count.

        With `calibrate`, a temperature is fitted on the first half of the images; it and the calibration errors
        before and after, on the other half, are returned too. The cross-entropy is that of temperature 1.
        """
        right, entropy, kept = 0, 0.0, []
        for batch in images.batches(_EVALUATION_BATCH):
            logits = self.averaged["classifier"](batch.x.contiguous(memory_format=torch.channels_last))
            right += int((logits.argmax(dim=1) == batch.y).sum())
            entropy += float(F.cross_entropy(logits.double(), batch.y, reduction="sum"))
            if self._settings.calibrate:
                kept.append(logits)
        numbers = {
            "accuracy": right / len(images),
            "cross_entropy": entropy / len(images),
            "n": float(len(images)),
        }
        if self._settings.calibrate:
            fit = fit_and_measure(torch.cat(kept), images.y, fitted=first_half(images.y))
            self._temperature = fit.temperature
            numbers["temperature"] = fit.temperature
            numbers["calibration_error_before"] = fit.before.error
            numbers["calibration_error_after"] = fit.after.error
        return numbers

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint must keep: after the last evaluation the temperature belongs to it."""
        return super().state() | {"temperature": self._temperature}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned.

        Raises:
            CheckpointError: if it is the state of other networks or optimisers.
        """
        super().restore(state)
        self._temperature = state.get("temperature")

    def export(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """Save the averaged network, with its temperature, as `classifier.safetensors` and `classifier.json`.

        Raises:
            DataError: if it is to be calibrated and was never evaluated.
        """
        if self._settings.calibrate and self._temperature is None:
            raise DataError(
                "Expected an evaluation before a classifier that is to be calibrated is saved, but there was none. "
                "Pass `validation` to `train`."
            )
        save_classifier(
            folder,
            architecture=self._settings.architecture,
            sizes=self._sizes,
            state=self.averaged["classifier"].state_dict(),
            class_names=self._class_names,
            image_shape=self._image_shape,
            temperature=self._temperature or 1.0,
            provenance=provenance,
            half=self._settings.half,
        )
