"""The methods: one question, one file, one class each."""

from pathlib import Path
from typing import Any

from failscape.errors import WeightsError
from failscape.explain.calibration import Calibration, CalibrationResult
from failscape.explain.centroid_path import CentroidPath
from failscape.explain.centroid_path_result import CentroidPathResult
from failscape.explain.class_convergence import ClassConvergence
from failscape.explain.class_convergence_result import ClassConvergenceResult
from failscape.explain.corner_cases import CornerCases
from failscape.explain.corner_result import CornerCasesResult
from failscape.explain.corruption_table import CorruptionTable, CorruptionTableResult
from failscape.explain.degradation import Degradation, DegradationResult
from failscape.explain.edge_cases import EdgeCases, EdgeCasesResult
from failscape.explain.frontier import Frontier
from failscape.explain.frontier_result import FrontierResult
from failscape.explain.latent_accuracy import LatentAccuracy
from failscape.explain.latent_accuracy_result import LatentAccuracyResult
from failscape.explain.latent_map import LatentMap, LatentMapResult
from failscape.explain.loop_result import LoopResult
from failscape.explain.method import BatchedMethod, Method, Result, Verification, to_8_bits
from failscape.explain.perturbation_heatmap import HeatmapResult, PerturbationHeatmap
from failscape.explain.real_directions import RealDirections
from failscape.explain.real_directions_result import RealDirectionsResult
from failscape.explain.retraining_result import RetrainingResult
from failscape.explain.style_difference import StyleDifference, StyleDifferenceResult
from failscape.explain.style_influence import StyleInfluence
from failscape.explain.style_influence_result import StyleInfluenceResult
from failscape.explain.sympathetic import SympatheticExamples
from failscape.explain.sympathetic_result import SympatheticResult
from failscape.explain.uncertain_result import UncertainResult
from failscape.explain.uncertain_samples import UncertainSamples
from failscape.storage import read_json

METHODS: dict[str, type[Method[Any]]] = {
    "calibration": Calibration,
    "centroid-path": CentroidPath,
    "class-convergence": ClassConvergence,
    "corner-cases": CornerCases,
    "corruption-table": CorruptionTable,
    "degradation": Degradation,
    "edge-cases": EdgeCases,
    "frontier": Frontier,
    "latent-accuracy": LatentAccuracy,
    "latent-map": LatentMap,
    "perturbation-heatmap": PerturbationHeatmap,
    "real-directions": RealDirections,
    "style-difference": StyleDifference,
    "style-influence": StyleInfluence,
    "sympathetic-examples": SympatheticExamples,
    "uncertain-samples": UncertainSamples,
}


# What studies find that are more than one method.
_OF_STUDIES: dict[str, type[Result]] = {"retraining": RetrainingResult, "loop": LoopResult}


def load_result(folder: Path) -> Result:
    """Load a saved result of whatever method or study.

    Raises:
        WeightsError: if the files are missing or broken, or nothing returns such a result.
    """
    kind = read_json(folder / "result.json").get("type")
    types = {name: method.result_type for name, method in METHODS.items()} | _OF_STUDIES
    for result_type in types.values():
        if result_type.__name__ == kind:
            return result_type.load(folder)
    raise WeightsError(f"Expected the result of one of {', '.join(types)} in {folder}, but got {kind!r}.")


__all__ = [
    "METHODS",
    "BatchedMethod",
    "Calibration",
    "CalibrationResult",
    "CentroidPath",
    "CentroidPathResult",
    "ClassConvergence",
    "ClassConvergenceResult",
    "CornerCases",
    "CornerCasesResult",
    "CorruptionTable",
    "CorruptionTableResult",
    "Degradation",
    "DegradationResult",
    "EdgeCases",
    "EdgeCasesResult",
    "Frontier",
    "FrontierResult",
    "HeatmapResult",
    "LatentAccuracy",
    "LatentAccuracyResult",
    "LatentMap",
    "LatentMapResult",
    "LoopResult",
    "Method",
    "PerturbationHeatmap",
    "RealDirections",
    "RealDirectionsResult",
    "Result",
    "RetrainingResult",
    "StyleDifference",
    "StyleDifferenceResult",
    "StyleInfluence",
    "StyleInfluenceResult",
    "SympatheticExamples",
    "SympatheticResult",
    "UncertainResult",
    "UncertainSamples",
    "Verification",
    "load_result",
    "to_8_bits",
]
