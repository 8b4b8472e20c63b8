import json
from pathlib import Path

import numpy as np
import pytest
import torch

from failscape import load_classifier
from failscape.classifiers import build_network, fit_temperature, save_classifier
from failscape.errors import ClassifierError, DataError, FailscapeError, SpecError, StorageError
from failscape.metrics import expected_calibration_error
from failscape.study.calibrated import calibrate_classifier

SHAPE = (1, 8, 8)
NAMES = ("ant", "bee", "cat")
CODE = """
import failscape

def load():
    return failscape.load_classifier("toy").with_temperature(0.5)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: an untrained classifier of temperature 2, and images that it is right about half the time."""
    monkeypatch.chdir(tmp_path)
    network = build_network("plain-cnn", seed=0, image_shape=SHAPE, num_classes=3, width=4)
    save_classifier(
        Path("toy"),
        architecture="plain-cnn",
        sizes={"width": 4},
        state=network.state_dict(),
        class_names=NAMES,
        image_shape=SHAPE,
        temperature=2.0,
        provenance={"accuracy": 0.5},
    )
    rng = np.random.default_rng(0)
    x = rng.random((300, *SHAPE), dtype=np.float32)
    guess = load_classifier("toy").predict(torch.from_numpy(x)).numpy()
    y = np.where(rng.random(300) < 0.5, guess, rng.integers(0, 3, 300))
    np.savez("images.npz", x=x, y=y)
    np.savez("few.npz", x=x[:3], y=[0, 1, 0])
    np.savez("large.npz", x=np.zeros((9, 16, 16), np.uint8), y=np.arange(9) % 3)
    Path("code.py").write_text(CODE)
    return tmp_path


def test_the_saved_classifier_has_the_temperature_of_the_first_half(folder: Path) -> None:
    done = calibrate_classifier("toy", "images.npz", Path("out"))
    loaded, toy = load_classifier("out"), load_classifier("toy")
    images = np.load("images.npz")
    x, y = torch.from_numpy(images["x"]), torch.from_numpy(images["y"])
    with torch.no_grad():
        expected = 2 * fit_temperature(toy(x[:150]), y[:150])
    assert loaded.temperature == done.classifier.temperature == pytest.approx(expected, rel=1e-5)
    assert done.saved == Path("out")
    assert (done.fit.fitted, len(done.fit.right)) == (150, 150)
    assert done.fit.before.error == pytest.approx(expected_calibration_error(toy.probs(x[150:]), y[150:]), abs=1e-5)
    assert done.fit.after.error == pytest.approx(expected_calibration_error(loaded.probs(x[150:]), y[150:]), abs=1e-5)
    assert {path.name for path in Path("out").iterdir()} == {
        "classifier.json",
        "classifier.safetensors",
        "reliability.png",
        "reliability.svg",
    }
    provenance = json.loads(Path("out/classifier.json").read_text())["provenance"]
    assert provenance["accuracy"] == 0.5
    assert provenance["calibration"] == {
        "images": "images.npz",
        "fitted": 150,
        "measured": 150,
        "calibration_error_before": done.fit.before.error,
        "calibration_error_after": done.fit.after.error,
    }


def test_of_own_code_the_temperature_alone_is_found(folder: Path) -> None:
    saved = calibrate_classifier("toy", "images.npz", Path("out"))
    own = calibrate_classifier("python:code.py:load", "images.npz", Path("own"), allow_code=True)
    assert own.saved is None
    assert own.classifier.temperature == pytest.approx(saved.classifier.temperature, rel=1e-4)
    assert {path.name for path in Path("own").iterdir()} == {"reliability.png", "reliability.svg"}


@pytest.mark.parametrize(
    ("spec", "images", "out", "kind", "message"),
    [
        ("toy", "images.npz", "toy", StorageError, "a folder that holds no classifier, but toy does"),
        ("nothing", "images.npz", "out", SpecError, "nothing"),
        ("python:code.py:load", "images.npz", "out", SpecError, "allow"),
        ("toy", "nothing.npz", "out", SpecError, "nothing.npz"),
        ("toy", "large.npz", "out", ClassifierError, "16, 16"),
        ("toy", "embedded:mnist-test", "out", ClassifierError, "28, 28"),
        ("embedded:mnist-clean", "few.npz", "out", ClassifierError, "8, 8"),
    ],
)
def test_refuses_before_anything_is_written(
    folder: Path, spec: str, images: str, out: str, kind: type[FailscapeError], message: str
) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(kind, match=message):
        calibrate_classifier(spec, images, Path(out))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_too_few_images_are_refused(folder: Path) -> None:
    np.savez("few.npz", x=np.zeros((3, 8, 8), np.uint8), y=[2, 1, 0])
    with pytest.raises(DataError, match="Give at least 4 images"):
        calibrate_classifier("toy", "few.npz", Path("out"))
