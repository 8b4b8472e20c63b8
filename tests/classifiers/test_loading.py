import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from failscape.classifiers import (
    EMBEDDED,
    NETWORKS,
    Classifier,
    build_network,
    load_classifier,
    save_classifier,
    save_with_temperature,
)
from failscape.errors import ClassifierError, SpecError, WeightsError

SHAPE = (1, 8, 8)
NAMES = ("ant", "bee", "cat")


def save(target: Path, architecture: str = "plain-cnn", **options: Any) -> Classifier:
    network = build_network(architecture, seed=0, image_shape=SHAPE, num_classes=3, width=8)
    save_classifier(
        target,
        architecture=architecture,
        sizes={"width": 8},
        state=network.state_dict(),
        class_names=NAMES,
        image_shape=SHAPE,
        temperature=1.5,
        **options,
    )
    return Classifier(network, class_names=NAMES, image_shape=SHAPE, temperature=1.5)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))


class TestSaved:
    @pytest.mark.parametrize("architecture", NETWORKS)
    def test_loads_from_folder_and_either_file(self, tmp_path: Path, architecture: str, x: torch.Tensor) -> None:
        saved = save(tmp_path / "toy", architecture, provenance={"accuracy": 0.9})
        for spec in ("toy", "toy/classifier.safetensors", "toy/classifier.json"):
            loaded = load_classifier(str(tmp_path / spec))
            assert torch.allclose(loaded(x), saved(x), rtol=0, atol=1e-6)  # another memory layout, other last bits
            assert isinstance(loaded.network, nn.Module)
            assert isinstance(saved.network, nn.Module)
            weights = saved.network.state_dict()
            assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.network.state_dict().items())
            assert (loaded.class_names, loaded.image_shape, loaded.temperature) == (NAMES, SHAPE, 1.5)
            assert loaded.differentiable
        description = json.loads((tmp_path / "toy" / "classifier.json").read_text())
        assert description["provenance"] == {"accuracy": 0.9}

    def test_half_precision_is_close_and_small(self, tmp_path: Path, x: torch.Tensor) -> None:
        saved = save(tmp_path / "full.safetensors")
        save(tmp_path / "half.safetensors", half=True)
        assert torch.allclose(load_classifier(tmp_path / "half.safetensors")(x), saved(x), atol=0.01)
        sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
        assert sizes[0] < 0.55 * sizes[1]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"architecture": "transformer"}, "architecture among plain-cnn, residual-cnn, mlp .*'transformer'"),
            ({"architecture": ["plain-cnn"]}, "architecture among"),
            ({"image_shape": "big"}, "complete description"),
            ({"image_shape": None}, "complete description"),
            ({"image_shape": [1, 16, 16]}, "to fit its architecture"),
            ({"image_shape": [1, 8]}, "complete description"),
            ({"class_names": NAMES[:2]}, "to fit its architecture"),
            ({"class_names": 3}, "complete description"),
            ({"sizes": {"width": 16}}, "to fit its architecture"),
            ({"sizes": {"depth": 16}}, "complete description"),
            ({"sizes": {"width": 7}}, "complete description"),
            ({"sizes": {"width": -8}}, "complete description"),
            # Terabytes, if they were allocated.
            ({"sizes": {"width": 400_000}}, "to fit its architecture"),
            ({"temperature": "warm"}, "complete description"),
        ],
    )
    def test_refuses_a_description(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        save(tmp_path / "toy")
        path = tmp_path / "toy" / "classifier.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(WeightsError, match=message):
            load_classifier(tmp_path / "toy")

    @pytest.mark.parametrize("key", ["architecture", "image_shape", "class_names", "sizes", "temperature"])
    def test_refuses_a_description_with_a_gap(self, tmp_path: Path, key: str) -> None:
        save(tmp_path / "toy")
        path = tmp_path / "toy" / "classifier.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))
        with pytest.raises(WeightsError, match=f"{key}|None"):
            load_classifier(tmp_path / "toy")

    def test_a_generator_is_no_classifier(self, tmp_path: Path) -> None:
        (tmp_path / "generator.safetensors").touch()
        with pytest.raises(WeightsError, match="Expected a classifier saved by failscape"):
            load_classifier(tmp_path)


class TestAnotherTemperature:
    def test_keeps_all_else(self, tmp_path: Path, x: torch.Tensor) -> None:
        saved = save(tmp_path / "toy", provenance={"accuracy": 0.9}, half=True)
        weights = (tmp_path / "toy" / "classifier.safetensors").read_bytes()
        for number, spec in enumerate((tmp_path / "toy", tmp_path / "toy" / "classifier.json")):
            target = tmp_path / str(number)
            save_with_temperature(spec, target, temperature=3.0, record={"images": "mine"})
            assert (target / "classifier.safetensors").read_bytes() == weights
            loaded = load_classifier(target)
            assert torch.allclose(loaded(x), saved(x) / 2, atol=0.01)
            assert (loaded.temperature, loaded.class_names) == (3.0, NAMES)
            description = json.loads((target / "classifier.json").read_text())
            assert description["provenance"] == {"accuracy": 0.9, "calibration": {"images": "mine"}}

    def test_of_an_embedded_one(self, tmp_path: Path) -> None:
        save_with_temperature("embedded:mnist-clean", tmp_path, temperature=2.0)
        x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(load_classifier(tmp_path)(x) * 2, load_classifier("embedded:mnist-clean")(x))

    def test_a_slip_of_the_pen_is_named(self) -> None:
        with pytest.raises(SpecError, match="Did you mean embedded:mnist-corrupted"):
            load_classifier("embedded:mnist-corupted")

    @pytest.mark.parametrize("spec", ["python:mine.py:good", "embedded:nothing", "no/such/file"])
    def test_refuses(self, spec: str, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match=r"temperature=2\)|Expected one of|Expected a classifier"):
            save_with_temperature(spec, tmp_path / "out", temperature=2.0)
        assert not (tmp_path / "out").exists()


class TestSpecs:
    def test_a_misspelt_name_lists_the_names(self) -> None:
        with pytest.raises(SpecError, match=r"but got 'embedded:mnist-claen'") as caught:
            load_classifier("embedded:mnist-claen")
        assert all(f"embedded:{name}" in str(caught.value) for name in EMBEDDED)

    @pytest.mark.parametrize("spec", ["", "no/such/file", "embedded", "emnist:x"])
    def test_nothing_there(self, spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises((SpecError, WeightsError), match="Expected a classifier"):
            load_classifier(spec)


CODE = """
import torch
from pathlib import Path
import failscape

Path(__file__).with_name("ran").touch()

def good():
    return failscape.Classifier(lambda x: x.flatten(1)[:, :2], image_shape=(1, 4, 4))

def raises():
    raise OSError("no such weights")

def exits():
    raise SystemExit(3)

def junk():
    return torch.nn.Linear(2, 2)

def broken():
    return failscape.Classifier(lambda x: x, image_shape=(1, 4, 4), name="mine")

def needs(argument):
    return good()
"""


class TestPython:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(CODE)
        return path

    def test_is_refused_without_leave_and_not_run(self, file: Path) -> None:
        with pytest.raises(SpecError, match=r"leave to run code for python:.*mine\.py:good.*--allow-code"):
            load_classifier(f"python:{file}:good")
        assert not file.with_name("ran").exists()

    def test_runs_with_leave(self, file: Path) -> None:
        classifier = load_classifier(f"python:{file}:good", allow_code=True)
        assert classifier.num_classes == 2
        assert file.with_name("ran").exists()

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            ("raises", r"mine\.py:raises\(\) to return a classifier, but it raised OSError: no such weights"),
            ("exits", "raised SystemExit: 3"),
            ("junk", r"return a failscape\.Classifier, but got Linear\. Wrap the network"),
            ("broken", r"Expected mine to return scores of shape \(2, K\)"),
            ("needs", "raised TypeError"),
            ("missing", "raised AttributeError"),
        ],
    )
    def test_what_the_function_does_wrong(self, file: Path, function: str, message: str) -> None:
        with pytest.raises(ClassifierError, match=message):
            load_classifier(f"python:{file}:{function}", allow_code=True)

    def test_a_file_that_is_not_python(self, file: Path) -> None:
        file.write_text("def (")
        with pytest.raises(ClassifierError, match="raised SyntaxError"):
            load_classifier(f"python:{file}:good", allow_code=True)

    @pytest.mark.parametrize("spec", ["python:", "python:mine.py", "python:missing.py:good", "python:{}:a b"])
    def test_refuses_a_spec(self, file: Path, spec: str) -> None:
        with pytest.raises(SpecError, match=r"Expected python:FILE\.py:FUNCTION with an existing file"):
            load_classifier(spec.format(file), allow_code=True)
