"""What an atlas of all frontiers costs, how many of its images are on them, and how many an oracle believes.

The embedded garments: every pair of ten classes 64 images each, by search with the defaults. The oracle judges
what was found and guides nothing.
"""

import os
import time

import torch

from failscape import load_classifier, load_generator
from failscape.explain import Frontier, FrontierResult

_ASKED_SECONDS = 180


def atlas() -> FrontierResult:
    """Return the images on all frontiers."""
    classifier, generator = load_classifier("embedded:fashion"), load_generator("embedded:fashion-wgan")
    x = torch.zeros(1, *classifier.image_shape)
    oracle = load_classifier("embedded:fashion-oracle")
    rng = torch.Generator().manual_seed(0)
    return Frontier()(classifier, generator, x, torch.zeros(1, dtype=torch.long), rng=rng, oracle=oracle)


def main() -> None:
    """Print the cost and what it bought."""
    load, started, worked = os.getloadavg()[0], time.perf_counter(), time.process_time()
    result = atlas()
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    print(f"{len(result.images):,} images, {torch.get_num_threads()} threads, load {load:.1f} before")
    print(f"{seconds:.0f} s, {worked:.0f} s of CPU (asked: under {_ASKED_SECONDS} s)")
    rates = torch.tensor([rate.value for rate in result.rates])
    lowest = result.target_names[int(rates.argmin())]
    full = int((rates >= 0.99).sum())
    print(f"on the frontier: {full} of {len(rates)} pairs at 0.99 or more; lowest {rates.min():.3f} ({lowest})")
    print(f"the oracle has the two classes first, pair in the middle: {result.summary['oracle_top']:.3f}")


if __name__ == "__main__":
    main()
