"""What is being explained: classifiers, reference networks, loaders, uncertainty scores."""

from failscape.classifiers.classifier import Classifier
from failscape.classifiers.loading import EMBEDDED, load_classifier, save_classifier
from failscape.classifiers.networks import NETWORKS, build_network

__all__ = ["EMBEDDED", "NETWORKS", "Classifier", "build_network", "load_classifier", "save_classifier"]
