"""The paper's experiments with cartoon faces, told apart by the colour of their hair."""

from collections.abc import Mapping
from typing import Any

import torch

from failscape.explain import CentroidPathResult, ClassConvergenceResult, FrontierResult
from failscape.metrics import Estimate, rate
from failscape.study.reproduce.claims import Claim

WEIGHTS = ("avatars-hair", "avatars-oracle-hair", "avatars-vae-gan")

_FACES = {"spec": "avatars:hair:test", "only": "all", "limit": 500}

CLAIMS = (
    Claim(
        key="hair.convergence.rate",
        what="Cartoon faces, steered to a hair colour by search: accepted by the classifier, the lowest colour",
        paper="figure 5",
        note="64 x 64 pixels; the paper's are 152 x 152.",
    ),
    Claim(key="hair.convergence.disputed", what="Of these, what the oracle disputes"),
    Claim(
        key="hair.frontier.pairs",
        what="Pairs of hair colours with an image on their frontier, of 45",
        paper="–",
        note="2 images a pair.",
    ),
    Claim(key="hair.frontier.median_tv", what="Total variation distance from 50/50, the median image"),
    Claim(key="hair.frontier.oracle_top2", what="The oracle has the two colours first, the pair in the middle"),
    Claim(
        key="hair.centroid_path.third",
        what="Ways between the centres of colours on which a third colour is met",
        paper="figure 8",
    ),
)


def hair_steps(weights: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the three steps: fewer images a class and pair than of garments, since each takes ten times as long.

    Args:
        weights: each of `WEIGHTS` to the spec it is loaded from.
    """
    shared = {
        "classifier": weights["avatars-hair"],
        "oracle": weights["avatars-oracle-hair"],
        "generator": weights["avatars-vae-gan"],
        "images": _FACES,
    }
    return [
        {
            "method": "class-convergence",
            "name": "hair-convergence",
            "title": "Faces: what it takes each hair colour for",
            "settings": {"samples": 25},
            **shared,
        },
        {
            "method": "frontier",
            "name": "hair-frontier",
            "title": "Faces: what lies between two hair colours",
            "settings": {"per_target": 2, "samples": 1000, "restarts": 1},
            **shared,
        },
        {
            "method": "centroid-path",
            "name": "hair-path",
            "title": "Faces: from hair colour to hair colour",
            "settings": {"points": 17},
            **shared,
        },
    ]


def hair_metrics(results: Mapping[str, Any]) -> dict[str, Estimate | float | int]:
    """Return the numbers of the three steps.

    Args:
        results: name of each step to its result.
    """
    convergence: ClassConvergenceResult = results["hair-convergence"]
    frontier: FrontierResult = results["hair-frontier"]
    paths: CentroidPathResult = results["hair-path"]
    found = frontier.estimates
    ways = range(len(paths.ids))
    return {
        "hair.convergence.rate": convergence.estimates["search_rate"],
        "hair.convergence.disputed": convergence.estimates["search_disputed"],
        "hair.frontier.pairs": sum(each.value > 0 for each in frontier.rates),
        "hair.frontier.rate": found["rate"],
        "hair.frontier.median_tv": found["median_tv"],
        "hair.frontier.oracle_top2": found["oracle_top"],
        "hair.centroid_path.ways": len(ways),
        "hair.centroid_path.third": rate(torch.tensor([bool(paths.thirds(paths.met(way), way)) for way in ways])),
    }
