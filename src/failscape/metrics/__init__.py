"""How good is it: estimates with intervals, and agreement with an oracle."""

from failscape.metrics.intervals import Estimate, mean, rate, ratio_of_means

__all__ = ["Estimate", "mean", "rate", "ratio_of_means"]
