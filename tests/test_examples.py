"""The example of somebody else's network, as a user would run it."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import failscape

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network() -> Callable[[Tensor], Tensor]:
    """Return the package's network, built here once more: nothing of failscape or the example takes part."""
    try:
        weights = distribution("digit-recognizer-py").locate_file("digit_recognizer/models/handwriting_model.pth")
    except PackageNotFoundError:
        pytest.skip("digit-recognizer-py is not installed: pip install --no-deps digit-recognizer-py==0.1.0")
    layers = nn.ModuleDict(
        {
            "conv_layers": nn.Sequential(
                *[nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
                *[nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
                *[nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
            ),
            "fc_layers": nn.Sequential(nn.Linear(1152, 256), nn.ReLU(), nn.Linear(256, 10)),
        }
    )
    layers.load_state_dict(torch.load(str(weights), weights_only=True))

    @torch.no_grad()
    def classify(levels: Tensor) -> Tensor:
        """Return the probabilities of 8-bit images."""
        x = (levels.float() / 255 - 0.1307) / 0.3081
        probs: Tensor = layers["fc_layers"](layers["conv_layers"](x).flatten(1)).softmax(dim=1)
        return probs

    return classify


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_every_mistake_is_solved(folder: Path, network: Callable[[Tensor], Tensor], confidence: float) -> int:
    """Classify the saved images again, hold the result against the mistakes found here, and count these."""
    images = failscape.load_images("embedded:mnist-test")
    wrong = torch.cat([network((batch.x * 255).round()).argmax(dim=1) for batch in images.batches(1000)]) != images.y
    assert wrong.float().mean() < 0.03
    saved = safetensors.torch.load_file(folder / "result.safetensors")
    assert json.loads((folder / "result.json").read_text())["values"]["ids"] == list(images.select(wrong).ids)
    assert torch.equal(saved["target"], images.y[wrong])
    assert saved["images"].dtype == torch.uint8
    probs = network(saved["images"])
    assert torch.equal(probs.argmax(dim=1), images.y[wrong])
    assert (probs.gather(1, images.y[wrong, None]) >= confidence).all()
    return int(wrong.sum())


def test_the_script_solves_every_mistake(network: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    output = run(sys.executable, "examples/digit_recognizer.py", "--out", str(tmp_path))
    mistakes = check_every_mistake_is_solved(tmp_path / "boundary", network, 0.0)
    check_every_mistake_is_solved(tmp_path / "confident", network, 0.9)
    assert output.startswith(f"accuracy {1 - mistakes / 10_000:.2%}, {mistakes} mistakes\n")


def test_the_study_solves_every_mistake_and_reports_it(network: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    command = str(Path(sys.executable).with_name("failscape"))
    output = run(command, "study", "examples/digit_recognizer.toml", "--allow-code", "--out", str(tmp_path))
    page = Path(output.splitlines()[-1])
    assert page.parent.parent == tmp_path
    assert "python:examples/digit_recognizer.py:classifier" in page.read_text()
    check_every_mistake_is_solved(page.parent / "steps" / "01-smallest-change", network, 0.0)
    check_every_mistake_is_solved(page.parent / "steps" / "02-convincing-change", network, 0.9)
