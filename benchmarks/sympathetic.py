"""Compare searches for sympathetic examples in one run, on the same mistakes and weights.

The paper's procedure one image at a time and batched, foolbox's DDN around decoder and classifier, and ours. All
see 8-bit images, but for the paper's procedure, which sees them before rounding. DDN is given as many gradient
evaluations an image as ours makes on average. Prints a Markdown table for `docs/benchmarks.md`.

Run with `make bench`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import eagerpy as ep
import torch
from foolbox.attacks import DDNAttack
from foolbox.criteria import TargetedMisclassification
from foolbox.models import PyTorchModel
from torch import Tensor, nn

from failscape import Classifier, load_classifier, load_generator, load_images
from failscape.explain import SympatheticExamples, to_8_bits
from failscape.explain.perturbed import PerturbedImages
from failscape.generators import Autoencoder, require_autoencoder

T = TypeVar("T")

_REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    epsilon: Tensor
    seconds: float
    gradients: float


class AsAttackedModel(nn.Module):
    """Decoder and classifier as one network of the latent perturbation; row i belongs to image i."""

    def __init__(self, perturbed: PerturbedImages) -> None:
        super().__init__()
        self.perturbed = perturbed

    def forward(self, epsilon: Tensor) -> Tensor:
        """Return the logits of the perturbed images."""
        return self.perturbed.logits(epsilon, torch.arange(len(epsilon)))


def main() -> None:
    """Run all and print the table."""
    images = load_images("embedded:mnist-test")
    classifier = load_classifier("embedded:mnist-clean")
    generator = require_autoencoder(load_generator("embedded:mnist-vae-10d"), "this benchmark")
    mistakes = images.select(classifier.predict(images.x) != images.y)
    x, y = mistakes.x, mistakes.y
    perturbed = PerturbedImages(classifier, generator, x, y)

    ours = _ours(classifier, generator, x, y)
    ddn = _ddn(perturbed, y, steps=round(ours.gradients))
    paper_single = _paper(classifier, generator, x, y, batch_size=1, name="the paper's, one image at a time")
    paper = _paper(classifier, generator, x, y, batch_size=256, name="the paper's, batched")
    raw = _raw_seconds(classifier, generator, x, y)

    rows = [paper_single, paper, ddn, ours]
    solved = [_success(perturbed, row.epsilon) for row in rows]
    common = torch.stack(solved).all(dim=0)
    print(f"{len(x)} mistakes of mnist-clean, mnist-vae-10d, {torch.get_num_threads()} threads\n")
    print("| search | success | mean norm, common cases | gradients an image | ms an image | time against ours |")
    print("|---|---|---|---|---|---|")
    for row, success in zip(rows, solved, strict=True):
        norm = row.epsilon[common].norm(dim=1).mean()
        print(
            f"| {row.name} | {success.float().mean():.3f} | {norm:.3f} | {row.gradients:.1f} "
            f"| {row.seconds / len(x) * 1000:.2f} | {row.seconds / ours.seconds:.2f} |"
        )
    print(f"\nOurs, all mistakes: {ours.seconds:.2f} s, {ours.seconds / raw:.2f} × the raw passes that it makes.")


def _ours(classifier: Classifier, generator: Autoencoder, x: Tensor, y: Tensor) -> Row:
    method = SympatheticExamples()
    seconds, result = _timed(lambda: method(classifier, generator, x, y, rng=torch.Generator().manual_seed(0)))
    return Row(name="ours", epsilon=result.epsilon, seconds=seconds, gradients=result.steps.float().mean().item())


def _paper(classifier: Classifier, generator: Autoencoder, x: Tensor, y: Tensor, *, batch_size: int, name: str) -> Row:
    method = SympatheticExamples(mode="fixed-step", batch_size=batch_size)
    seconds, result = _timed(lambda: method(classifier, generator, x, y, rng=torch.Generator().manual_seed(0)))
    return Row(name=name, epsilon=result.epsilon, seconds=seconds, gradients=result.steps.float().mean().item())


def _ddn(perturbed: PerturbedImages, y: Tensor, *, steps: int) -> Row:
    model = PyTorchModel(AsAttackedModel(perturbed).eval(), bounds=(-100, 100), device="cpu")
    attack = DDNAttack(steps=steps)
    criterion = TargetedMisclassification(ep.astensor(y))
    origin = torch.zeros_like(perturbed.z)
    seconds, epsilon = _timed(lambda: attack(model, origin, criterion, epsilons=None)[0])
    return Row(name="foolbox DDN, batched", epsilon=epsilon.detach(), seconds=seconds, gradients=steps)


def _raw_seconds(classifier: Classifier, generator: Autoencoder, x: Tensor, y: Tensor) -> float:
    """Return the time of nothing but the passes through both networks that ours makes: same sizes, same order."""
    assert isinstance(classifier.network, nn.Module)
    calls: list[tuple[nn.Module, torch.Size, bool]] = []

    def note(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        calls.append((module, arguments[0].shape, arguments[0].requires_grad))

    hooks = [network.register_forward_pre_hook(note) for network in (classifier.network, generator)]
    SympatheticExamples()(classifier, generator, x, y, rng=torch.Generator().manual_seed(0))
    for hook in hooks:
        hook.remove()

    def replay() -> None:
        for module, shape, with_gradient in calls:
            given = torch.full(shape, 0.5, requires_grad=with_gradient)
            with torch.set_grad_enabled(with_gradient):
                returned = module(given)
            if with_gradient:
                torch.autograd.grad(returned.sum(), given)

    return _timed(replay)[0]


def _success(perturbed: PerturbedImages, epsilon: Tensor) -> Tensor:
    images = to_8_bits(perturbed.images(epsilon, torch.arange(len(epsilon))).detach())
    return perturbed.classifier.predict(images) == perturbed.y


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    """Return the least time of a few calls, and what the last returned."""
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        returned = call()
        best = min(best, time.perf_counter() - start)
    return best, returned


if __name__ == "__main__":
    main()
