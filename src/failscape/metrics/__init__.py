"""How good is it: estimates with intervals, calibration, and how sets of features cover each other."""

from failscape.metrics.accuracy_curves import CurveSummary, bin_of, count_by_bin, equal_bins, summarize_curves
from failscape.metrics.appearance import MEASUREMENTS, Measurement
from failscape.metrics.calibration import Reliability, expected_calibration_error, reliability
from failscape.metrics.frechet import frechet_distance
from failscape.metrics.intervals import (
    Estimate,
    difference_of_means,
    difference_of_rates,
    difference_of_shares,
    mean,
    mean_by_t,
    mean_share,
    median,
    rate,
    rate_of,
    ratio_of_means,
)
from failscape.metrics.kernel import kernel_distance
from failscape.metrics.neighbours import NeighbourVote, nearest, neighbour_vote, standardized
from failscape.metrics.paired import mcnemar, mean_over_both
from failscape.metrics.recall import PrecisionAndRecall, precision_and_recall
from failscape.metrics.requests import QuantileBands, quantile_bands, rank_correlation

__all__ = [
    "MEASUREMENTS",
    "CurveSummary",
    "Estimate",
    "Measurement",
    "NeighbourVote",
    "PrecisionAndRecall",
    "QuantileBands",
    "Reliability",
    "bin_of",
    "count_by_bin",
    "difference_of_means",
    "difference_of_rates",
    "difference_of_shares",
    "equal_bins",
    "expected_calibration_error",
    "frechet_distance",
    "kernel_distance",
    "mcnemar",
    "mean",
    "mean_by_t",
    "mean_over_both",
    "mean_share",
    "median",
    "nearest",
    "neighbour_vote",
    "precision_and_recall",
    "quantile_bands",
    "rank_correlation",
    "rate",
    "rate_of",
    "ratio_of_means",
    "reliability",
    "standardized",
    "summarize_curves",
]
