"""Asking a run's generators for images of a target distribution."""

from typing import Any

import torch

from failscape.errors import FailscapeError
from failscape.explain import Frontier
from failscape.explain.frontier_request import require_frontiers
from failscape.web.asking import Asked

# Samples among which a search begins: a second's work, where a study takes several.
_SAMPLES = 500


def no_frontiers(asked: Asked) -> str:
    """Return why frontiers of a classifier cannot be searched for with a generator, "" where they can."""
    try:
        require_frontiers(asked.classifier, asked.generator)
    except FailscapeError as error:
        return str(error)
    return ""


def draw_target(asked: Asked, *, shares: list[float], count: int, seed: int, tolerance: float) -> dict[str, Any]:
    """Search for images of a target distribution.

    Args:
        asked: the networks.
        shares: of the K classes; they are divided by their sum.
        count: how many images.
        seed: other images for another one.
        tolerance: in total variation.

    Returns:
        The images that came nearest with what is said of them, the distance of each, the target, and how many arrived.

    Raises:
        FailscapeError: if the target or the networks cannot be asked for.
    """
    total = sum(shares)
    # No string, since names of classes may hold commas.
    names = asked.classifier.class_names
    target = {name: share / total for name, share in zip(names, shares, strict=True) if share > 0}
    # A second opinion would have to be taught for each request anew, which takes longer than all else.
    method = Frontier(
        targets=(target,), per_target=count, samples=_SAMPLES, tolerance=tolerance, restarts=3, opinions=0
    )
    rng = torch.Generator().manual_seed(seed)
    # A search looks at no real image; a method is given one all the same.
    x = torch.zeros(1, *asked.classifier.image_shape)
    result = method(asked.classifier, asked.generator, x, torch.zeros(1, dtype=torch.long), rng=rng)
    distance = result.total_variation
    order = distance.argsort(stable=True)
    told = asked.told(result.images[order])
    for picture, value in zip(told["images"], distance[order].tolist(), strict=True):
        picture["distance"] = round(value, 4)
    return told | {
        "target": [round(share / total, 4) for share in shares],
        "arrived": int(result.success.sum()),
        "tolerance": tolerance,
    }
