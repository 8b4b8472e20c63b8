"""The numbers of the methods that draw classes and what lies between them, under the keys of `metrics.json`."""

import torch

from failscape.explain import CentroidPathResult, ClassConvergenceResult, FrontierResult
from failscape.metrics import Estimate, rate

Numbers = dict[str, Estimate | float | int]

_NOTHING = rate(torch.zeros(0, dtype=torch.bool))


def convergence_numbers(key: str, result: ClassConvergenceResult) -> Numbers:
    """Return what the search reached: the lowest class's rate, and what the oracle disputes of all.

    Args:
        key: what the keys begin with.
        result: of a search.
    """
    found = result.estimates
    return {f"{key}.rate": found["search_rate"], f"{key}.disputed": found["search_disputed"]}


def frontier_numbers(key: str, result: FrontierResult) -> Numbers:
    """Return the targets found, the lowest one's rate, the median distance, and the oracle's view.

    Of no image there is none: NaN.

    Args:
        key: what the keys begin with.
        result: with an oracle.
    """
    found = result.estimates
    return {
        f"{key}.pairs": sum(each.value > 0 for each in result.rates),
        f"{key}.rate": found["rate"],
        f"{key}.median_tv": found["median_tv"],
        f"{key}.oracle_top2": found.get("oracle_top", _NOTHING),
        f"{key}.oracle_agrees": found.get("oracle_agrees", _NOTHING),
    }


def path_numbers(key: str, result: CentroidPathResult) -> Numbers:
    """Return the ways, the share of those that arrive, and of these the share on which a third class is met.

    Of none there is none: NaN.

    Args:
        key: what the keys begin with.
        result: of the ways.
    """
    return {
        f"{key}.ways": len(result.ids),
        f"{key}.arrives": rate(result.arrives),
        f"{key}.third": rate(result.passes_third),
    }
