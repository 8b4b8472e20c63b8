"""How a latent is found: pure numerics on scores of latent perturbations, no knowledge of any method."""

from failscape.search.changes import Changes, label_changes
from failscape.search.fixed_step import Descent, StoppedLoss, descend_fixed_step
from failscape.search.grid import GridSearch, grid_points, search_grid
from failscape.search.least_change import ChangeMeasure, least_change
from failscape.search.level import Level, reach_level
from failscape.search.line import Crossing, first_crossing
from failscape.search.minimal_norm import MinimalNorm, minimal_norm
from failscape.search.objective import Objective, is_valid, scores_of, value_and_gradient
from failscape.search.stand_in import StandIn
from failscape.search.target import LogProbs, TargetSearch, reach_target, total_variation

__all__ = [
    "ChangeMeasure",
    "Changes",
    "Crossing",
    "Descent",
    "GridSearch",
    "Level",
    "LogProbs",
    "MinimalNorm",
    "Objective",
    "StandIn",
    "StoppedLoss",
    "TargetSearch",
    "descend_fixed_step",
    "first_crossing",
    "grid_points",
    "is_valid",
    "label_changes",
    "least_change",
    "minimal_norm",
    "reach_level",
    "reach_target",
    "scores_of",
    "search_grid",
    "total_variation",
    "value_and_gradient",
]
