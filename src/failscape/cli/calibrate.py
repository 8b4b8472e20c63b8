"""The command that calibrates a classifier."""

import sys
from pathlib import Path


def calibrate(classifier: str, /, *, images: str, out: Path, allow_code: bool = False) -> int:
    """Fit a classifier's temperature on the first half of labelled images, and measure it on the other half.

    Args:
        classifier: embedded:NAME, a saved folder or file, or python:FILE.py:FUNCTION.
        images: labelled images that it was not trained on (embedded:mnist-test, mnist, a class folder, an .npz or
            .parquet file, an IDX pair).
        out: the folder for the calibrated classifier and its reliability diagram.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    from failscape.study.calibrated import calibrate_classifier

    done = calibrate_classifier(classifier, images, out, allow_code=allow_code)
    fit, temperature = done.fit, done.classifier.temperature
    sys.stdout.write(
        f"temperature {temperature:.4g}, fitted on {fit.fitted:,} images; calibration error {fit.before.error:.4f} "
        f"before and {fit.after.error:.4f} after, on {len(fit.right):,} others\n"
    )
    if done.saved is None:
        sys.stdout.write(
            f"{classifier} is your own code, so no weights were saved; return failscape.Classifier(..., "
            f"temperature={temperature:.6g}) from it\n"
        )
    sys.stdout.write(f"{out}\n")
    return 0
