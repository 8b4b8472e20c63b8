from pathlib import Path
from typing import Any

import numpy as np
import pytest

from failscape.data import ImageSet, load_images
from failscape.errors import ConfigError, SpecError
from failscape.explain import METHODS, SympatheticExamples
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
    ("method", "settings", "words"),
    [
        ("sympathetic-example", {}, ["'sympathetic-example'", "Did you mean 'sympathetic-examples'"]),
        ("sympathetic-examples", {"confidenc": 0.5}, ["'confidenc'", "'confidence'"]),
        ("sympathetic-examples", {"mode": "sideways"}, ["`mode`", "'sideways'"]),
        ("sympathetic-examples", {"confidence": 2.0}, ["`confidence`", "2.0"]),
        ("sympathetic-examples", {"steps": "many"}, ["`steps`", "'many'"]),
        ("sympathetic-examples", {"steps": 2.5}, ["`steps`", "2.5"]),
        ("sympathetic-examples", {"anchors": 3}, ["`anchors`", "3"]),
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
