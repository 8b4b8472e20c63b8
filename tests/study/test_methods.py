import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from failscape.classifiers import Classifier, load_classifier
from failscape.data import ImageSet, load_images
from failscape.errors import ClassifierError, ConfigError, SpecError
from failscape.explain import METHODS, CorruptionTable, Frontier, SympatheticExamples
from failscape.study.config import StepConfig
from failscape.study.methods import prepare_method


def step(method: str, **settings: Any) -> StepConfig:
    return StepConfig.model_validate({"method": method, "settings": settings})


def test_settings_reach_the_method() -> None:
    prepared = prepare_method(step("sympathetic-examples", mode="confident", confidence=0.75))
    assert isinstance(prepared.method, SympatheticExamples)
    assert (prepared.method.mode, prepared.method.confidence) == ("confident", 0.75)
    assert prepared.image_sets == {}


def test_a_method_without_settings_takes_none(probe: type, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(probe):  # type: ignore[misc]
        __init__ = object.__init__

    monkeypatch.setitem(METHODS, "bare", Bare)
    assert isinstance(prepare_method(step("bare")).method, Bare)
    with pytest.raises(ConfigError, match="'pause'"):
        prepare_method(step("bare", pause=1.0))


def test_images_in_a_setting_are_named_by_their_spec(tmp_path: Path) -> None:
    file = tmp_path / "some.npz"
    np.savez(file, x=np.zeros((4, 8, 8), dtype=np.uint8), y=np.arange(4))
    prepared = prepare_method(step("sympathetic-examples", anchors=str(file)))
    assert isinstance(prepared.method, SympatheticExamples)
    assert isinstance(prepared.method.anchors, ImageSet)
    assert prepared.image_sets["anchors"].fingerprint() == load_images(file).fingerprint()
    with pytest.raises(SpecError):
        prepare_method(step("sympathetic-examples", anchors="nowhere"))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"uniform"', ("uniform",)),
        ("{ 3 = 0.7, 8 = 0.3 }", ({"3": 0.7, "8": 0.3},)),
        ('["pairs", { 3 = 0.7, 8 = 0.3 }]', ("pairs", {"3": 0.7, "8": 0.3})),
    ],
)
def test_targets_of_a_frontier_are_texts_or_tables(written: str, meant: tuple[Any, ...]) -> None:
    method = prepare_method(step("frontier", **tomllib.loads(f"targets = {written}"))).method
    assert isinstance(method, Frontier)
    assert method.targets == meant


@pytest.mark.parametrize("targets", [3, [3], {"3": "much"}, [{"3": [0.7]}]])
def test_targets_of_another_kind_are_named(targets: Any) -> None:
    with pytest.raises(ConfigError, match="targets"):
        prepare_method(step("frontier", targets=targets))


def test_classifiers_in_a_setting_are_named_by_their_specs() -> None:
    specs = ["embedded:mnist-corrupted", "embedded:mnist-oracle-clean"]
    prepared = prepare_method(step("corruption-table", others=specs, samples=3))
    assert isinstance(prepared.method, CorruptionTable)
    assert [each.name for each in prepared.method.others] == ["mnist-corrupted", "mnist-oracle-clean"]
    assert [spec for spec, _ in prepared.classifiers["others"]] == specs
    assert tuple(each for _, each in prepared.classifiers["others"]) == prepared.method.others
    assert prepare_method(step("corruption-table", others=[])).classifiers == {"others": ()}
    prepared.check_fit(load_classifier("embedded:mnist-clean"))
    moons = Classifier(lambda x: torch.zeros(len(x), 2), image_shape=(1, 28, 28), name="moons")
    with pytest.raises(ClassifierError, match="moons takes"):
        prepared.check_fit(moons)


def test_one_classifier_in_a_setting_is_named_by_its_spec(probe: type, monkeypatch: pytest.MonkeyPatch) -> None:
    class Judged(probe):  # type: ignore[misc]
        def __init__(self, *, judge: Classifier | None = None) -> None:
            super().__init__()
            self.judge = judge

    monkeypatch.setitem(METHODS, "judged", Judged)
    assert prepare_method(step("judged")).method.judge is None  # type: ignore[attr-defined]
    prepared = prepare_method(step("judged", judge="embedded:mnist-clean"))
    assert isinstance(prepared.method, Judged)
    assert prepared.classifiers == {"judge": (("embedded:mnist-clean", prepared.method.judge),)}


def test_code_for_a_setting_runs_only_where_it_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch, failscape\n"
        "def make():\n"
        "    return failscape.Classifier(lambda x: torch.zeros(len(x), 3), image_shape=(1, 8, 8), name='mine')\n"
    )
    given = step("corruption-table", others=[f"python:{file}:make"])
    with pytest.raises(SpecError, match="--allow-code"):
        prepare_method(given)
    assert prepare_method(given, allow_code=True).method.others[0].name == "mine"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("sympathetic-example", {}, ["'sympathetic-example'", "Did you mean 'sympathetic-examples'"]),
        ("sympathetic-examples", {"confidenc": 0.5}, ["'confidenc'", "'confidence'"]),
        ("sympathetic-examples", {"mode": "sideways"}, ["`mode`", "'sideways'"]),
        ("sympathetic-examples", {"confidence": 2.0}, ["`confidence`", "2.0"]),
        ("sympathetic-examples", {"steps": "many"}, ["`steps`", "'many'"]),
        ("sympathetic-examples", {"steps": 2.5}, ["`steps`", "2.5"]),
        ("sympathetic-examples", {"anchors": 3}, ["`anchors`", "3"]),
        ("corruption-table", {"others": "embedded:mnist-clean"}, ["`others`", "tuple", "'embedded:mnist-clean'"]),
        ("corruption-table", {"others": ["embedded:mnist-clean", 3]}, ["`others[0]`", "Classifier"]),
        ("corruption-table", {"other": ["embedded:mnist-clean"]}, ["'other'", "'others'"]),
    ],
)
def test_a_wrong_method_or_setting_is_one_line_that_names_it(
    method: str, settings: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare_method(step(method, **settings))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
