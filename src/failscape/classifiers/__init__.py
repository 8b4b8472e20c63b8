"""What is being explained: classifiers, reference networks, loaders, features, uncertainty scores, calibration."""

from failscape.classifiers.calibration import fit_temperature
from failscape.classifiers.classifier import Classifier
from failscape.classifiers.features import classifier_features, penultimate_features
from failscape.classifiers.loading import (
    EMBEDDED,
    load_classifier,
    provenance_of,
    save_classifier,
    save_with_temperature,
    save_with_weights,
)
from failscape.classifiers.networks import NETWORKS, build_network
from failscape.classifiers.target import target_distribution
from failscape.classifiers.uncertainty import SCORES, Score, class_logit, class_probability, entropy, margin

__all__ = [
    "EMBEDDED",
    "NETWORKS",
    "SCORES",
    "Classifier",
    "Score",
    "build_network",
    "class_logit",
    "class_probability",
    "classifier_features",
    "entropy",
    "fit_temperature",
    "load_classifier",
    "margin",
    "penultimate_features",
    "provenance_of",
    "save_classifier",
    "save_with_temperature",
    "save_with_weights",
    "target_distribution",
]
