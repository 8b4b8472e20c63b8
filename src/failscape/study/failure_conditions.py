"""The steps that find the failure conditions of a classifier, shared by reproduction, demo and a user's run."""

from collections.abc import Sequence
from typing import Any


def failure_steps(
    *,
    others: Sequence[str] = (),
    clean: str | None = None,
    limit: int | None = None,
    starts: Sequence[str] = ("class-mean",),
    settings: dict[str, dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Return the `[[steps]]` of a study of failure conditions, in the order in which their findings are to be read.

    Args:
        others: specs of classifiers to compare with, where a step can.
        clean: spec of images as they are, for the corruption table; by default the study's own images.
        limit: how many of these are taken at most.
        starts: what degradation sets out from, one step each.
        settings: method to settings that differ from the defaults.
    """
    few = {} if limit is None else {"limit": limit}
    compared = {"others": list(others)} if others else {}
    steps: list[dict[str, Any]] = [
        {"method": "style-influence", "title": "What lowers its score"},
        {"method": "corner-cases", "title": "Corner cases"},
        {"method": "real-directions", "title": "Does it hold on real images?"},
        {"method": "latent-accuracy", "title": "Accuracy far from what it gets right", "settings": compared},
        {
            "method": "corruption-table",
            "title": "Accuracy under corruptions",
            "settings": compared,
            **({} if clean is None else {"images": {"spec": clean, "only": "all"} | few}),
        },
        *(_degradation(start) for start in starts),
        {"method": "latent-map", "title": "How well- and misclassified samples lie"},
    ]
    for step in steps:
        step["settings"] = step.get("settings", {}) | (settings or {}).get(step["method"], {})
    return steps


def _degradation(start: str) -> dict[str, Any]:
    from_where = {"class-mean": "the mean of a class", "sample": "a sample", "real": "a real image"}[start]
    return {
        "method": "degradation",
        "name": f"degradation-{start}",
        "title": f"What {from_where} becomes along each direction",
        "settings": {"start": start},
    }
