"""The calibration of a classifier by labelled images: its temperature, and what that is good for."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from failscape.classifiers import Classifier, load_classifier, save_with_temperature
from failscape.errors import StorageError
from failscape.explain.calibration import reliability_plot
from failscape.figures import save_plot
from failscape.study.config import ImagesConfig
from failscape.study.inputs import load_labelled
from failscape.training.temperature import TemperatureFit, first_half, fit_and_measure

_BATCH = 500


@final
@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What came of it.

    Attributes:
        classifier: with its new temperature.
        fit: the temperature found, on top of the earlier one, and its effect on images it was not fitted on.
        saved: where the classifier was saved as `load_classifier` takes it; None if it is the user's own code.
    """

    classifier: Classifier
    fit: TemperatureFit
    saved: Path | None


def calibrate_classifier(spec: str, images: str, out: Path, *, allow_code: bool = False) -> Calibration:
    """Fit the temperature of a classifier on the first half of labelled images and measure it on the other half.

    The classifier's weights are saved with its temperature, if failscape has them, and a reliability diagram beside
    them.

    Args:
        spec: of the classifier, as `load_classifier` takes it.
        images: spec of labelled images that it was not trained on, as `load_images` takes it.
        out: the folder to write; it must hold no classifier.
        allow_code: must be true for `python:` specs.

    Raises:
        StorageError: if `out` holds a classifier, or cannot be written.
        DataError: if there are fewer than 4 images.
        FailscapeError: if classifier or images cannot be loaded, or do not fit each other.
    """
    if (out / "classifier.json").exists():
        raise StorageError(
            f"Expected a folder that holds no classifier, but {out} does. Choose another folder; nothing was changed."
        )
    classifier = load_classifier(spec, allow_code=allow_code)
    labelled = load_labelled(ImagesConfig(spec=images), classifier)
    with torch.no_grad():
        logits = torch.cat([classifier(batch.x).cpu() for batch in labelled.batches(_BATCH)])
    fit = fit_and_measure(logits, labelled.y, fitted=first_half(labelled.y))
    calibrated = classifier.with_temperature(classifier.temperature * fit.temperature)

    save_plot(reliability_plot(fit.before.reliability, fit.after.reliability), out)
    own = not spec.startswith("python:")
    if own:
        record = {
            "images": images,
            "fitted": fit.fitted,
            "measured": len(fit.right),
            "calibration_error_before": fit.before.error,
            "calibration_error_after": fit.after.error,
        }
        save_with_temperature(spec, out, temperature=calibrated.temperature, record=record)
    return Calibration(classifier=calibrated, fit=fit, saved=out if own else None)
