"""What averaging gradients in style space costs beside the bare passes, and whether its memory grows.

Ratios in one run, on the embedded StyleGAN2 and classifier: `measure_influence` over 10,000 samples against drawing,
classifying and differentiating as many images in the same batches and doing nothing with the gradients; then the peak
memory of 10,000 and of 100,000 samples, each in a process of its own.
"""

import resource
import subprocess
import sys
import time

import torch

from failscape import load_classifier, load_generator
from failscape.classifiers import Classifier
from failscape.explain.style_gradients import STYLE_SCORES, measure_influence
from failscape.explain.style_population import require_class_styles
from failscape.generators import Condition, StyleGenerator

_SAMPLES, _MANY = 10_000, 100_000
_BATCH = 250
_ROUNDS = 3


def models() -> tuple[Classifier, StyleGenerator]:
    """Return the embedded classifier and generator."""
    classifier = load_classifier("embedded:mnist-corrupted")
    return classifier, require_class_styles(load_generator("embedded:mnist-stylegan2"), classifier, "the benchmark")


def bare_passes(classifier: Classifier, generator: StyleGenerator, n: int) -> None:
    """Draw, classify and differentiate `n` images."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(_BATCH) % classifier.num_classes
    condition = Condition(y=y, score=torch.full((_BATCH,), 0.9))
    for _ in range(n // _BATCH):
        with torch.no_grad():
            s = generator.styles(generator.mapping(generator.sample_latents(_BATCH, rng=rng), condition))
            noise = generator.draw_noise(_BATCH, rng=rng)
        s.requires_grad_()
        logits = classifier(generator.synthesize(s, noise))
        torch.autograd.grad(STYLE_SCORES["logit-margin"](logits, y).sum(), s)


def influence(classifier: Classifier, generator: StyleGenerator, n: int) -> None:
    """Average the gradients of `n` samples."""
    measure_influence(classifier, generator, n, rng=torch.Generator().manual_seed(0))


def peak_memory(n: int) -> float:
    """Return the peak memory in MB of a process that averages the gradients of `n` samples."""
    done = subprocess.run([sys.executable, __file__, str(n)], capture_output=True, text=True, check=True)  # noqa: S603
    return float(done.stdout)


def main() -> None:
    """Print the ratios."""
    if len(sys.argv) > 1:
        influence(*models(), int(sys.argv[1]))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    classifier, generator = models()
    influence(classifier, generator, 10 * _BATCH)
    seconds: dict[str, list[float]] = {"bare passes": [], "influence": []}
    # In turns, so that whatever else the machine does weighs on both.
    for _ in range(_ROUNDS):
        for name, work in (("bare passes", bare_passes), ("influence", influence)):
            started = time.perf_counter()
            work(classifier, generator, _SAMPLES)
            seconds[name].append(time.perf_counter() - started)
    best = {name: min(each) for name, each in seconds.items()}
    for name, value in best.items():
        print(f"{name:12} {value:6.2f} s, {1000 * value / _SAMPLES:.2f} ms a sample")
    print(f"influence / bare passes: {best['influence'] / best['bare passes']:.2f} (asked: at most 1.2)")
    few, many = peak_memory(_SAMPLES), peak_memory(_MANY)
    print(f"peak memory: {few:.0f} MB for {_SAMPLES:,}, {many:.0f} MB for {_MANY:,} samples, {many / few:.2f} times")


if __name__ == "__main__":
    main()
