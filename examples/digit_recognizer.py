"""Explain somebody else's network: the digit recogniser of the PyPI package `digit-recognizer-py` 0.1.0.

    pip install --no-deps digit-recognizer-py==0.1.0
    python examples/digit_recognizer.py

The package itself imports torchvision. Its network needs only torch, so the file that defines the network and the
file with its weights are read from where pip put them, and the package is never imported.
"""

import argparse
import importlib.util
from importlib.metadata import distribution
from pathlib import Path

import torch
from torch import Tensor, nn

import failscape
from failscape.explain import SympatheticExamples, SympatheticResult


class Normalised(nn.Module):
    """The package's network as failscape calls it: on images in [0, 1], normalising inside."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images (N, 1, 28, 28)."""
        logits: Tensor = self.network((x - 0.1307) / 0.3081)
        return logits


def classifier() -> failscape.Classifier:
    """Return the package's network, ready to be explained; `digit_recognizer.toml` names this function."""
    # By the distribution and not by the module, which has the name of this very file.
    folder = Path(str(distribution("digit-recognizer-py").locate_file("digit_recognizer")))

    source = importlib.util.spec_from_file_location("digit_recognizer_model", folder / "model.py")
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    network = module.CNN()

    # The weights are a pickle; weights_only refuses whatever in it is more than tensors.
    weights = torch.load(folder / "models" / "handwriting_model.pth", map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return failscape.Classifier(Normalised(network), image_shape=(1, 28, 28), name="digit-recognizer-py")


def explain_mistakes(out: Path) -> dict[str, SympatheticResult]:
    """Explain every mistake on the MNIST test set in both modes and save each result in a folder of `out`."""
    recogniser = classifier()
    images = failscape.load_images("embedded:mnist-test")
    generator = failscape.load_generator("embedded:mnist-vae-10d")
    oracle = failscape.load_classifier("embedded:mnist-oracle-clean")

    mistakes = images.select(recogniser.predict(images.x) != images.y)
    print(f"accuracy {1 - len(mistakes) / len(images):.2%}, {len(mistakes)} mistakes")

    results = {}
    for mode in ("boundary", "confident"):
        method = SympatheticExamples(mode=mode)
        rng = torch.Generator().manual_seed(0)
        result = method(recogniser, generator, mistakes.x, mistakes.y, rng=rng, oracle=oracle, ids=mistakes.ids)
        result.save(out / mode)
        found = result.summary
        print(
            f"{mode}: {found['success']:.1%} put right, mean norm {found['norm']:.2f}, "
            f"oracle agrees on {found['oracle']:.1%}"
        )
        results[mode] = result
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Explain the mistakes of digit-recognizer-py.")
    parser.add_argument("--out", type=Path, default=Path("runs/digit-recognizer"), help="where the results go")
    explain_mistakes(parser.parse_args().out)
