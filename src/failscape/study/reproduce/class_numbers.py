"""The numbers of the methods that draw classes and what lies between them, under the keys of `metrics.json`."""

import torch

from failscape.explain import CentroidPathResult, ClassConvergenceResult, FrontierResult
from failscape.metrics import Estimate, rate

Numbers = dict[str, Estimate | float | int]


def convergence_numbers(key: str, result: ClassConvergenceResult) -> Numbers:
    """Return what the search reached: the lowest class's rate, and what the oracle disputes.

    Args:
        key: what the keys begin with.
        result: of a search.
    """
    found = result.estimates
    return {f"{key}.rate": found["search_rate"], f"{key}.disputed": found["search_disputed"]}


def frontier_numbers(key: str, result: FrontierResult) -> Numbers:
    """Return the targets found, the lowest one's rate, the median distance, and the oracle's view of the middle one.

    Args:
        key: what the keys begin with.
        result: with an oracle.
    """
    found = result.estimates
    return {
        f"{key}.pairs": sum(each.value > 0 for each in result.rates),
        f"{key}.rate": found["rate"],
        f"{key}.median_tv": found["median_tv"],
        f"{key}.oracle_top2": found["oracle_top"],
    }


def path_numbers(key: str, result: CentroidPathResult) -> Numbers:
    """Return the ways between centroids, and the share of those on which a third class is met.

    Args:
        key: what the keys begin with.
        result: of the ways.
    """
    thirds = [bool(result.thirds(result.met(way), way)) for way in range(len(result.ids))]
    return {f"{key}.ways": len(thirds), f"{key}.third": rate(torch.tensor(thirds))}
