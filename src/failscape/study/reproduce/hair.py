"""The paper's experiments with cartoon faces, told apart by the colour of their hair."""

from collections.abc import Mapping
from typing import Any

from failscape.study.reproduce.claims import Claim
from failscape.study.reproduce.class_numbers import Numbers, convergence_numbers, frontier_numbers, path_numbers

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
    Claim(
        key="hair.frontier.oracle_agrees", what="Of what is on a frontier, images of which the oracle has both first"
    ),
    Claim(
        key="hair.centroid_path.arrives",
        what="Ways between the centres of colours at whose two ends the classifier says the two colours",
    ),
    Claim(
        key="hair.centroid_path.third",
        what="Of the ways between the centres of colours at whose ends the classifier says the two, those on which a "
        "third colour is met",
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
            # Of so few samples a second opinion learns little, and at 64 pixels it takes longest.
            "settings": {"per_target": 2, "samples": 4000, "restarts": 4, "opinions": 0},
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


def hair_metrics(results: Mapping[str, Any]) -> Numbers:
    """Return the numbers of the three steps.

    Args:
        results: name of each step to its result.
    """
    return (
        convergence_numbers("hair.convergence", results["hair-convergence"])
        | frontier_numbers("hair.frontier", results["hair-frontier"])
        | path_numbers("hair.centroid_path", results["hair-path"])
    )
