"""How good is it: estimates with intervals, calibration, and how sets of features cover each other."""

from failscape.metrics.calibration import Reliability, expected_calibration_error, reliability
from failscape.metrics.frechet import frechet_distance
from failscape.metrics.intervals import Estimate, mean, rate, ratio_of_means
from failscape.metrics.recall import PrecisionAndRecall, precision_and_recall
from failscape.metrics.requests import QuantileBands, quantile_bands, rank_correlation

__all__ = [
    "Estimate",
    "PrecisionAndRecall",
    "QuantileBands",
    "Reliability",
    "expected_calibration_error",
    "frechet_distance",
    "mean",
    "precision_and_recall",
    "quantile_bands",
    "rank_correlation",
    "rate",
    "ratio_of_means",
    "reliability",
]
