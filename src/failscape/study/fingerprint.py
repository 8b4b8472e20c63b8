"""Fingerprints: whether what a step works on is what it worked on before."""

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import failscape
from failscape.classifiers import Classifier
from failscape.generators import Generator
from failscape.metrics import MEASUREMENTS, Measurement
from failscape.storage import digest
from failscape.study.config import StepConfig


def classifier_digest(classifier: Classifier, spec: str) -> str:
    """Return a SHA-256 of a classifier: weights, classes, temperature, and the file of a `python:` spec.

    What such a file imports is not followed: after changing that, delete the run folder.
    """
    location = spec.removeprefix("python:")
    code = digest(Path(location.rpartition(":")[0])) if location != spec else None
    facts = [code, classifier.class_names, classifier.image_shape, classifier.temperature, classifier.outputs]
    return _digest(facts, classifier.network if isinstance(classifier.network, nn.Module) else None)


def generator_digest(generator: Generator) -> str:
    """Return a SHA-256 of a generator: its family, its sizes and its weights."""
    return _digest([generator.family, generator.config], generator)


def step_seed(seed: int, index: int) -> int:
    """Return the seed of a step, so that leaving out one step changes nothing in another."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:8]) >> 1


def step_fingerprint(step: StepConfig, **inputs: Any) -> str:
    """Return a SHA-256 of all that a step's result depends on.

    That is its method, settings, `inputs`, versions, and the measurements by which directions are named.
    """
    measurements = [_facts_of(each) for each in MEASUREMENTS.values()]
    facts = [failscape.__version__, torch.__version__, step.method, step.settings, inputs, measurements]
    return _digest(facts, None)


def _facts_of(measurement: Measurement) -> dict[str, Any]:
    """Return what a measurement is known by: its fields, its function by its source, or else by its name."""
    function = measurement.measure
    try:
        code = inspect.getsource(function)
    except (OSError, TypeError):
        code = str(getattr(function, "__qualname__", type(function).__qualname__))
    return vars(measurement) | {"measure": code}


def _digest(facts: list[Any], network: nn.Module | None) -> str:
    sha256 = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    if network is not None:
        sha256.update(repr(network).encode())
        for name, tensor in network.state_dict().items():
            sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            sha256.update(_bytes(tensor))
    return sha256.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    # As raw bytes, because NumPy has no bfloat16.
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
