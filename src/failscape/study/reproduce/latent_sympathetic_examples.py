"""The experiments of "Explaining the Mistakes of Neural Networks with Latent Sympathetic Examples", also on faces."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Bool, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from failscape.explain import EdgeCasesResult, SympatheticResult
from failscape.explain.sympathetic_result import LOCAL_MINIMUM
from failscape.figures import Plot, image_grid, latent_plane
from failscape.metrics import Estimate, mean, rate, ratio_of_means
from failscape.study.config import StudyConfig
from failscape.study.reproduce import traits
from failscape.study.reproduce.claims import Claim

MINUTES = 22
TRAININGS: dict[str, float] = {}
WEIGHTS = ("mnist-clean", "mnist-oracle-clean", "mnist-vae-2d", "mnist-vae-10d", *traits.WEIGHTS)

_CORRECT = {"spec": "embedded:mnist-test", "only": "correct", "limit": 100, "targets": "others"}
_BASELINE = {"mode": "fixed-step", "step": 0.1}


@final
@dataclass(frozen=True)
class _Search:
    """One search of the study: an `lse-…` leads mistakes to their own class, an `lae-…` correct images to others.

    Attributes:
        step: name of its step: what, then the dimensions of the latent space, then how.
        title: heading in the report.
        settings: of `SympatheticExamples`.
    """

    step: str
    title: str
    settings: Mapping[str, Any]

    @property
    def generator(self) -> str:
        """The embedded weights that draw."""
        return f"mnist-vae-{self.step.split('-')[1]}"

    @property
    def images(self) -> Mapping[str, Any]:
        """What the step explains, where that is not what the study does."""
        return {"images": _CORRECT} if self.step.startswith("lae") else {}


_SEARCHES = (
    _Search("lse-10d", "LSE, 10-D: the smallest change that puts each mistake right", {"mode": "boundary"}),
    _Search(
        "lse-10d-confident",
        "LSE, 10-D: the smallest change to a probability of 0.9",
        {"mode": "confident", "confidence": 0.9},
    ),
    _Search(
        "lse-10d-confident75",
        "LSE, 10-D: the smallest change to a probability of 0.75",
        {"mode": "confident", "confidence": 0.75},
    ),
    _Search(
        "lse-10d-unguarded",
        "LSE, 10-D: the smallest change to a probability of 0.9, without the guard of noise",
        {"mode": "confident", "confidence": 0.9, "guard": 0.0},
    ),
    _Search("lse-10d-baseline", "LSE, 10-D: the paper's procedure", _BASELINE),
    _Search(
        "lse-2d",
        "LSE, 2-D: the smallest change that puts each mistake right",
        {"mode": "boundary", "plane": 64, "grid": 400},
    ),
    _Search("lse-2d-baseline", "LSE, 2-D: the paper's procedure", {**_BASELINE, "plane": 64}),
    _Search("lae-10d", "LAE, 10-D: correct digits to every other class", {"mode": "boundary"}),
    _Search("lae-10d-baseline", "LAE, 10-D: the paper's procedure", _BASELINE),
    _Search("lae-2d", "LAE, 2-D: correct digits to every other class", {"mode": "boundary", "plane": 0, "grid": 200}),
    _Search("lae-2d-baseline", "LAE, 2-D: the paper's procedure", {**_BASELINE, "plane": 0, "grid": 0}),
)

_SAME_CASES = "Over the cases that the paper's procedure, run here, solves as well."
_GRID = "Reachable: solved, or valid at some point of a fine grid over the latent plane (LSE 400 × 400, LAE 200 × 200)."

CLAIMS = (
    Claim(key="lse.d10.success", what="LSE, 10-D: mistakes put right", paper="0.954", at_least=1.0),
    Claim(key="lse.d2.success", what="LSE, 2-D: mistakes put right", paper="0.782"),
    Claim(key="lse.d2.reachable_success", what="LSE, 2-D: of those reachable", at_least=0.99, note=_GRID),
    Claim(key="lse.d10.norm", what="LSE, 10-D: mean ‖ε‖", paper="0.217"),
    Claim(key="lse.d2.norm", what="LSE, 2-D: mean ‖ε‖", paper="0.10"),
    Claim(
        key="lse.d10.baseline_norm_ratio",
        what="LSE, 10-D: mean ‖ε‖ against the paper's procedure",
        paper="1",
        at_most=0.4,
        note=_SAME_CASES,
    ),
    Claim(
        key="lse.d2.baseline_norm_ratio",
        what="LSE, 2-D: mean ‖ε‖ against the paper's procedure",
        paper="1",
        at_most=0.4,
        note=_SAME_CASES,
    ),
    Claim(key="lse.d10.confident.success", what="LSE, 10-D: probability 0.9 reached", at_least=0.99),
    Claim(key="lse.d10.confident.oracle", what="LSE, 10-D at 0.9: oracle agrees", at_least=0.93),
    Claim(
        key="lse.d10.confident.baseline_norm_ratio",
        what="LSE, 10-D at 0.9: mean ‖ε‖ against the paper's procedure",
        paper="1",
        at_most=0.9,
        note=_SAME_CASES,
    ),
    Claim(
        key="lse.d10.unguarded.oracle",
        what="LSE, 10-D at 0.9 without the guard: oracle agrees",
        note="For comparison; the confident mode guards with noise unless told otherwise.",
    ),
    Claim(key="lse.d10.confident75.success", what="LSE, 10-D: probability 0.75 reached"),
    Claim(
        key="lse.d10.confident75.oracle_gain",
        what="LSE, 10-D at 0.75: oracle agreement less that of the paper's procedure",
        at_least=0.0,
    ),
    Claim(
        key="lse.d10.confident75.baseline_norm_ratio",
        what="LSE, 10-D at 0.75: mean ‖ε‖ against the paper's procedure",
        paper="1",
        at_most=0.65,
        note=_SAME_CASES,
    ),
    Claim(key="lae.d10.success", what="LAE, 10-D: other classes reached", paper="0.911", at_least=0.999),
    Claim(key="lae.d2.success", what="LAE, 2-D: other classes reached", paper="0.223"),
    Claim(key="lae.d2.reachable_success", what="LAE, 2-D: of those reachable", at_least=0.99, note=_GRID),
    Claim(key="lae.d10.norm", what="LAE, 10-D: mean ‖ε‖", paper="1.53"),
    Claim(key="lae.d2.norm", what="LAE, 2-D: mean ‖ε‖", paper="0.52"),
    Claim(
        key="lae.d10.baseline_norm_ratio",
        what="LAE, 10-D: mean ‖ε‖ against the paper's procedure",
        paper="1",
        at_most=0.65,
        note=_SAME_CASES,
    ),
    Claim(
        key="lae.d2.baseline_norm_ratio",
        what="LAE, 2-D: mean ‖ε‖ against the paper's procedure",
        paper="1",
        at_most=0.65,
        note=_SAME_CASES,
    ),
    Claim(
        key="edge_cases.max_gap",
        what="Edge cases: largest gap between the two sides, relative to ‖ε‖",
        paper="idea",
        at_most=1e-3,
    ),
    Claim(key="edge_cases.success", what="Edge cases: pairs verified on both sides", paper="idea"),
    *traits.CLAIMS,
)


def study(weights: Mapping[str, str]) -> StudyConfig:
    """Return the study.

    Args:
        weights: each of `WEIGHTS` to the spec it is loaded from.
    """
    steps = [
        {
            "method": "sympathetic-examples",
            "name": search.step,
            "title": search.title,
            "generator": weights[search.generator],
            "settings": dict(search.settings),
            **search.images,
        }
        for search in _SEARCHES
    ]
    edge_cases = {"method": "edge-cases", "title": "Edge cases: both sides of the boundary"}
    heatmap = {"method": "perturbation-heatmap", "title": "Where the images are changed most often"}
    return StudyConfig.from_mapping(
        {
            "name": "latent-sympathetic-examples",
            "images": {"spec": "embedded:mnist-test", "only": "mistakes"},
            "classifier": {"spec": weights["mnist-clean"]},
            "oracle": {"spec": weights["mnist-oracle-clean"]},
            "generator": {"spec": weights["mnist-vae-10d"]},
            "steps": [*steps, edge_cases, heatmap, *traits.trait_steps(weights), *traits.heatmap_steps(weights)],
        }
    )


def measure(weights: Mapping[str, str], out: Path, *, retrain: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """Return nothing: all that the paper measures is a step of the study."""
    return {}


def metrics(results: Mapping[str, Any]) -> dict[str, Estimate | float | int]:
    """Return the numbers of `metrics.json`.

    Args:
        results: name of each step to its result.
    """
    numbers: dict[str, Estimate | float | int] = {}
    for kind in ("lse", "lae"):
        for dimensions in (10, 2):
            ours, baseline = results[f"{kind}-{dimensions}d"], results[f"{kind}-{dimensions}d-baseline"]
            for name, number in _compared(ours, baseline).items():
                numbers[f"{kind}.d{dimensions}.{name}"] = number
    baseline = results["lse-10d-baseline"]
    for name in ("confident", "confident75", "unguarded"):
        compared = _compared(results[f"lse-10d-{name}"], baseline)
        for key in ("success", "oracle", "norm", "baseline_norm_ratio"):
            numbers[f"lse.d10.{name}.{key}"] = compared[key]
        gain = _value(compared["oracle"]) - _value(compared["baseline_oracle"])
        numbers[f"lse.d10.{name}.oracle_gain"] = gain
    pairs: EdgeCasesResult = results["edge-cases"]
    numbers["edge_cases.pairs"] = len(pairs.ids)
    numbers["edge_cases.images"] = int(pairs.searched.sum())
    numbers["edge_cases.success"] = rate(pairs.success)
    numbers["edge_cases.max_gap"] = pairs.gap.max().item() if pairs.ids else math.nan
    return numbers | traits.trait_metrics(results) | traits.heatmap_metrics(results)


def figures(results: Mapping[str, Any]) -> list[Plot]:
    """Return the paper's figures 4, 5 and 9, which need several searches at once, and its figure 10 with the truth.

    Args:
        results: name of each step to its result.
    """
    ours, baseline, ten = results["lse-2d"], results["lse-2d-baseline"], results["lse-10d"]
    plots = []
    both = (ours.success & baseline.success).nonzero()[:, 0]
    if len(both):
        # Most ways are too short to see on the whole plane, so one of the longer ones.
        long = int(both[ours.norm[both].argsort()[int(0.9 * len(both))]])
        plots.append(
            Plot(
                name="search",
                title="A search on the latent plane (the paper's figures 3 and 4)",
                caption="What the classifier makes of x′ all over the plane, for one mistake; contours: cross-entropy "
                "to its class. The paper's procedure steps far into the class, ours stops where it begins.",
                draw=partial(_draw_searches, ours, baseline, long),
            )
        )
    stuck = torch.tensor([reason == LOCAL_MINIMUM for reason in baseline.reasons]) & ours.success
    if stuck.any():
        # The longest way that ours found is the clearest picture of what blocked the other.
        blocked = int(torch.where(stuck, ours.norm, -1).argmax())
        plots.append(
            Plot(
                name="local-minimum",
                title="A local minimum that blocks the way (the paper's figure 9)",
                caption="The class exists on the plane, but the paper's procedure ends before it; restarts find it.",
                draw=partial(_draw_searches, ours, baseline, blocked),
            )
        )
    solved = (ours.success & ten.success).nonzero()[:, 0]
    if len(solved):
        shown = solved[torch.linspace(0, len(solved) - 1, min(8, len(solved))).long()]
        plots.append(
            Plot(
                name="dimensions",
                title="Two latent dimensions and ten (the paper's figure 5)",
                caption="The same mistakes, put right in the 10-D and in the 2-D latent space: what was added (+) and "
                "removed (−), and the result. The changes in two dimensions are coarser.",
                draw=partial(_draw_dimensions, ten, ours, shown),
            )
        )
    return [*plots, *traits.heatmap_plots(results)]


def _draw_searches(ours: SympatheticResult, baseline: SympatheticResult, row: int) -> Drawing:
    plane = ours.plane(row)
    assert plane is not None, "the study asks for planes"
    theirs = baseline.z[row] + baseline.path[row]
    return latent_plane(plane, ours.class_names, path_name="ours", more_paths={"the paper's procedure": theirs})


def _draw_dimensions(ten: SympatheticResult, two: SympatheticResult, rows: Int[Tensor, " R"]) -> Drawing:
    columns = [ten.originals, *(part for r in (ten, two) for part in (r.images - r.originals, r.images))]
    names = ten.class_names
    taken_for = ten.probs_before.argmax(dim=1)
    return image_grid(
        torch.stack(columns, dim=1)[rows],
        row_labels=[f"{names[int(taken_for[r])]} → {names[int(ten.target[r])]}" for r in rows],
        column_labels=["original", "10-D change", "10-D result", "2-D change", "2-D result"],
        signed_columns=[1, 3],
    )


def _compared(ours: SympatheticResult, baseline: SympatheticResult) -> dict[str, Estimate | float | int]:
    both = ours.success & baseline.success
    numbers: dict[str, Estimate | float | int] = {
        "success": rate(ours.success),
        "reachable_success": rate(ours.success[_reachable(ours)]),
        "proven_unreachable": int((~_reachable(ours)).sum()),
        "norm": mean(ours.norm[ours.success]),
        "baseline_success": rate(baseline.success),
        "baseline_norm": mean(baseline.norm[baseline.success]),
        "baseline_norm_ratio": ratio_of_means(ours.norm[both], baseline.norm[both]),
    }
    for name, result in (("oracle", ours), ("baseline_oracle", baseline)):
        assert result.oracle_agrees is not None, "the study names an oracle"
        numbers[name] = rate(result.oracle_agrees[result.success])
    return numbers


def _reachable(result: SympatheticResult) -> Bool[Tensor, " N"]:
    """Return all rows but those of which the grid shows that nothing is there."""
    return result.success | (result.reachable != 0)


def _value(number: Estimate | float | int) -> float:
    return number.value if isinstance(number, Estimate) else float(number)
