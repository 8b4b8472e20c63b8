"""Saving and loading classifiers by spec."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from failscape.classifiers.classifier import Classifier
from failscape.classifiers.networks import NETWORKS, build_network
from failscape.errors import ClassifierError, SpecError, WeightsError
from failscape.storage import asset_names, fill_network, load_model, located_model, save_model

_ASSETS = files("failscape") / "assets" / "classifiers"
EMBEDDED = tuple(asset_names(_ASSETS, ".json"))
"""Names of the classifiers that the package ships."""


def save_classifier(
    target: Path,
    *,
    architecture: str,
    sizes: Mapping[str, Any],
    state: Mapping[str, Tensor],
    class_names: Sequence[str],
    image_shape: Sequence[int],
    temperature: float = 1.0,
    provenance: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Save a reference network as safetensors plus JSON.

    Args:
        target: a folder, which will hold `classifier.safetensors` and `classifier.json`, or a `.safetensors` path.
        architecture: a key of `NETWORKS`.
        sizes: the architecture's own arguments, such as `width`.
        state: the network's state dictionary.
        class_names: K names.
        image_shape: `(C, H, W)`.
        temperature: divides the logits.
        provenance: where the weights came from: settings, command, numbers reached.
        half: store the weights as float16.
    """
    description = {
        "architecture": architecture,
        "sizes": dict(sizes),
        "class_names": list(class_names),
        "image_shape": list(image_shape),
        "temperature": temperature,
        "provenance": dict(provenance or {}),
    }
    tensors = {name: tensor.half() if half else tensor for name, tensor in state.items()}
    save_model(target, "classifier", tensors, description)


def load_classifier(spec: str | Path, *, allow_code: bool = False) -> Classifier:
    """Load a classifier.

    Args:
        spec: `embedded:NAME`; a folder or file that failscape saved; or `python:FILE.py:FUNCTION`, a function
            without arguments that returns a `Classifier`.
        allow_code: must be true for `python:`, which runs the file.

    Raises:
        SpecError: if the spec names nothing, or is `python:` without `allow_code`.
        WeightsError: if the weights are broken or do not fit the architecture.
        ClassifierError: if the Python function does not return a `Classifier`.

    Example:
        >>> load_classifier("embedded:mnist-clean").class_names[:3]
        ('0', '1', '2')
    """
    text = str(spec)
    if text.startswith("python:"):
        return _load_python(text.removeprefix("python:"), allow_code)
    with _saved(text) as path:
        return _load_saved(path, path.stem)


def save_with_temperature(
    spec: str | Path, target: Path, *, temperature: float, record: Mapping[str, Any] | None = None
) -> None:
    """Save a classifier of failscape's own again, the same weights with another temperature.

    Args:
        spec: `embedded:NAME`, or a folder or file that failscape saved.
        target: a folder, or a `.safetensors` path.
        temperature: divides the logits.
        record: how the temperature was found; kept with the provenance as "calibration".

    Raises:
        SpecError: if the spec names nothing, or is `python:`, whose architecture is not known.
        WeightsError: if the weights are broken.
        StorageError: if the target cannot be written.
    """
    advice = f"Pass the temperature there: failscape.Classifier(..., temperature={temperature:.6g})."
    tensors, description = _tensors_and_description(spec, advice)
    provenance = description["provenance"] | {"calibration": dict(record or {})}
    save_model(target, "classifier", tensors, description | {"temperature": temperature, "provenance": provenance})


def save_with_weights(
    spec: str | Path, target: Path, *, state: Mapping[str, Tensor], record: Mapping[str, Any] | None = None
) -> None:
    """Save a classifier of failscape's own again, the same network and temperature with other weights.

    Args:
        spec: `embedded:NAME`, or a folder or file that failscape saved.
        target: a folder, or a `.safetensors` path.
        state: the network's new state dictionary.
        record: how the weights were found; kept with the provenance as "retraining".

    Raises:
        SpecError: if the spec names nothing, or is `python:`, whose architecture is not known.
        WeightsError: if the weights are broken.
        StorageError: if the target cannot be written.
    """
    _, description = _tensors_and_description(spec, "Save its state dictionary as you save yours.")
    provenance = description["provenance"] | {"retraining": dict(record or {})}
    save_model(target, "classifier", state, description | {"provenance": provenance})


def provenance_of(spec: str | Path) -> dict[str, Any]:
    """Return where the weights of a classifier came from: settings, command, numbers reached; {} if that is not known.

    Raises:
        SpecError: if the spec names nothing.
        WeightsError: if the weights are broken.
    """
    if str(spec).startswith("python:"):
        return {}
    provenance: dict[str, Any] = _tensors_and_description(spec, "")[1]["provenance"]
    return provenance


def _tensors_and_description(spec: str | Path, advice: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what failscape saved of a classifier, to be saved again with a part of it changed."""
    if str(spec).startswith("python:"):
        raise SpecError(f"Expected a classifier that failscape saved, but {str(spec)!r} is your own code. {advice}")
    with _saved(str(spec)) as path:
        tensors, description = load_model(path, "classifier")
    description = {key: value for key, value in description.items() if key not in ("format", "kind", "sha256")}
    return tensors, description | {"provenance": dict(description.get("provenance") or {})}


def _saved(text: str) -> AbstractContextManager[Path]:
    kinds = "classifier as embedded:NAME, a saved folder or file, or python:FILE.py:FUNCTION"
    return located_model(text, _ASSETS, kinds)


def _load_saved(path: Path, name: str) -> Classifier:
    tensors, description = load_model(path, "classifier")
    architecture = description.get("architecture")
    if not isinstance(architecture, str) or architecture not in NETWORKS:
        raise WeightsError(f"Expected an architecture among {', '.join(NETWORKS)} in {path}, but got {architecture!r}.")
    try:
        shape = tuple(int(size) for size in description["image_shape"])
        names = [str(label) for label in description["class_names"]]
        # On the meta device nothing is allocated before the sizes are known to be those of the weights.
        with torch.device("meta"):
            network = build_network(architecture, image_shape=shape, num_classes=len(names), **description["sizes"])
        temperature = float(description["temperature"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"Expected a complete description of {name}, but got: {error}. Save it again.") from error
    fill_network(network, tensors, name)
    # Convolutions of few channels are much quicker on a CPU with the channels last.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    return Classifier(network, class_names=names, image_shape=shape, temperature=temperature, name=name)


def _load_python(location: str, allow_code: bool) -> Classifier:
    if not allow_code:
        raise SpecError(
            f"Expected leave to run code for python:{location}, but did not get it. If you trust the file, pass "
            "--allow-code on the command line or allow_code=True in Python."
        )
    file_name, _, function_name = location.rpartition(":")
    path = Path(file_name)
    if not file_name.endswith(".py") or not path.is_file() or not function_name.isidentifier():
        raise SpecError(
            f"Expected python:FILE.py:FUNCTION with an existing file, but got 'python:{location}'. Correct the path."
        )
    module_spec = importlib.util.spec_from_file_location(f"_failscape_user_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module
    try:
        module_spec.loader.exec_module(module)
        classifier = getattr(module, function_name)()
    except ClassifierError:
        raise
    except (Exception, SystemExit) as error:
        raise ClassifierError(
            f"Expected {path.name}:{function_name}() to return a classifier, but it raised "
            f"{type(error).__name__}: {error}. Mend the function; FAILSCAPE_TRACEBACK=1 shows where."
        ) from error
    if not isinstance(classifier, Classifier):
        raise ClassifierError(
            f"Expected {path.name}:{function_name}() to return a failscape.Classifier, but got "
            f"{type(classifier).__name__}. Wrap the network: failscape.Classifier(network, image_shape=(C, H, W))."
        )
    return classifier
