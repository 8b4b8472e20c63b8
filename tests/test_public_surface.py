import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import failscape
from failscape import explain, testing


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def parameters(function: Callable[..., Any]) -> str:
    """Write the parameters without their types: names, kinds and defaults are what callers rely on."""
    signature = inspect.signature(function)
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name != "self"]
    return str(inspect.Signature(plain))


def test_names_of_the_package() -> None:
    assert set(failscape.__all__) == {
        "Classifier",
        "FailscapeError",
        "ImageSet",
        "__version__",
        "explain",
        "load_classifier",
        "load_generator",
        "load_images",
    }
    for name in failscape.__all__:
        assert getattr(failscape, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'load_model'"):
        failscape.load_model  # noqa: B018


def test_names_of_explain() -> None:
    assert set(explain.__all__) == {
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
        "StyleInfluence",
        "StyleInfluenceResult",
        "StyleDifference",
        "StyleDifferenceResult",
        "SympatheticExamples",
        "SympatheticResult",
        "UncertainResult",
        "UncertainSamples",
        "Verification",
        "load_result",
        "to_8_bits",
    }
    assert all(hasattr(explain, name) for name in explain.__all__)


def test_methods_by_name() -> None:
    assert {
        "calibration": explain.Calibration,
        "centroid-path": explain.CentroidPath,
        "class-convergence": explain.ClassConvergence,
        "corner-cases": explain.CornerCases,
        "corruption-table": explain.CorruptionTable,
        "degradation": explain.Degradation,
        "edge-cases": explain.EdgeCases,
        "frontier": explain.Frontier,
        "latent-accuracy": explain.LatentAccuracy,
        "latent-map": explain.LatentMap,
        "perturbation-heatmap": explain.PerturbationHeatmap,
        "real-directions": explain.RealDirections,
        "style-difference": explain.StyleDifference,
        "style-influence": explain.StyleInfluence,
        "sympathetic-examples": explain.SympatheticExamples,
        "uncertain-samples": explain.UncertainSamples,
    } == explain.METHODS
    results = [method.result_type.__name__ for method in explain.METHODS.values()]
    assert len(set(results)) == len(results), "`load_result` finds a result by the name of its type"
    for method in explain.METHODS.values():
        kinds = {p.kind for p in inspect.signature(method).parameters.values()}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}, f"settings of {method.__name__} are keyword-only"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (failscape.load_images, "(spec, *, image_shape=None, allow_one_class=False)"),
        (failscape.load_generator, "(spec)"),
        (failscape.load_classifier, "(spec, *, allow_code=False)"),
        (
            failscape.Classifier,
            "(network, *, class_names=None, image_shape, temperature=1.0, outputs='logits', name='classifier')",
        ),
        (failscape.Classifier.__call__, "(x)"),
        (failscape.Classifier.predict, "(x, *, batch_size=1000)"),
        (failscape.Classifier.probs, "(x, *, batch_size=1000)"),
        (explain.Method.__call__, "(classifier, generator, x, y, *, rng, oracle=None, ids=None)"),
        (explain.load_result, "(folder)"),
        (testing.check_classifier, "(classifier, *, seed=0)"),
        (testing.check_generator, "(generator, *, seed=0)"),
        (testing.check_method, "(method, classifier, generator, x, y, *, seed=0)"),
    ],
)
def test_signatures(function: Callable[..., Any], expected: str) -> None:
    assert parameters(function) == expected


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("mode", "boundary"),
        ("confidence", 0.9),
        ("anchors", None),
        ("step", 0.1),
        ("max_steps", 500),
        ("batch_size", 256),
    ],
)
def test_settings_of_sympathetic_examples(name: str, default: object) -> None:
    assert inspect.signature(explain.SympatheticExamples).parameters[name].default == default


def test_a_sympathetic_result_has_what_scripts_read() -> None:
    fields = {"success", "images", "epsilon", "norm", "reconstructions", "steps", "verification"}
    assert fields <= set(dir(explain.SympatheticResult)) | set(explain.SympatheticResult.__dataclass_fields__)


def test_importing_the_package_does_not_import_torch() -> None:
    loaded = run_python("import failscape, sys; failscape.__version__, dir(failscape); print(*sys.modules)").split()
    assert "failscape" in loaded
    assert not {"torch", "matplotlib", "pyarrow", "numpy"} & set(loaded)


def test_no_module_imports_torchvision_or_reaches_for_the_network() -> None:
    modules = [m.name for m in pkgutil.walk_packages(failscape.__path__, "failscape.") if "__main__" not in m.name]
    assert len(modules) > 40
    code = (
        "import importlib, socket, sys\n"
        "def refuse(*_): raise OSError('no network')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "sys.modules['torchvision'] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print('imported', *(name for name in sys.modules if name.startswith('torchvision.')))\n"
    )
    assert run_python(code) == "imported\n"


def test_every_name_that_a_room_exports_exists() -> None:
    for room in ("classifiers", "generators", "metrics", "search", "explain", "data", "figures", "testing"):
        module = importlib.import_module(f"failscape.{room}")
        assert all(hasattr(module, name) for name in module.__all__)
