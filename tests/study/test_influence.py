import inspect
import tomllib
from typing import Any

import pytest

from failscape.errors import ConfigError
from failscape.explain import METHODS, StyleInfluence
from failscape.study import StudyConfig, demo_study, run_study
from failscape.study.influence import share_influence

LED = {
    "corner-cases": "samples",
    "degradation": "samples",
    "latent-accuracy": "influence_samples",
    "real-directions": "samples",
}


def shared(*steps: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the settings of the steps of a study, the influence shared."""
    study = {
        "name": "toy",
        "images": {"spec": "images"},
        "classifier": {"spec": "one"},
        "generator": {"spec": "drawn"},
        "steps": list(steps),
    }
    return [step.settings for step in share_influence(StudyConfig.from_mapping(study)).steps]


def influence(**settings: Any) -> dict[str, Any]:
    return {"method": "style-influence", "name": "leading", "settings": settings}


@pytest.mark.parametrize("method", LED)
def test_a_step_ranks_styles_as_the_style_influence_of_the_study_does(method: str) -> None:
    _, settings = shared(influence(samples=123, score="probability"), {"method": method})
    assert settings == {LED[method]: 123, "score": "probability"}
    # Wherever that stands, and what it does by default, too.
    settings, _ = shared({"method": method}, influence())
    default = inspect.signature(StyleInfluence).parameters
    assert settings == {LED[method]: default["samples"].default, "score": default["score"].default}


@pytest.mark.parametrize("method", LED)
def test_by_itself_a_step_keeps_its_defaults(method: str) -> None:
    assert shared({"method": method}) == [{}]


def test_methods_that_rank_styles_are_those_that_are_led() -> None:
    ranking = {name: method.ranks_over for name, method in METHODS.items() if method.ranks_over}
    assert ranking == LED | {"style-influence": "samples"}
    for name, setting in ranking.items():
        assert {setting, "score"} <= set(inspect.signature(METHODS[name]).parameters)


@pytest.mark.parametrize("own", [{"samples": 50}, {"score": "probability"}, {"samples": 123, "score": "probability"}])
def test_a_step_that_is_given_another_number_or_score_keeps_its_own(own: dict[str, Any]) -> None:
    assert shared(influence(samples=123), {"method": "degradation", "settings": own})[1] == own


def test_a_step_that_is_given_one_of_the_two_alike_takes_the_other() -> None:
    led = {"method": "degradation", "settings": {"score": "probability", "most": 9}}
    _, settings = shared(influence(samples=123, score="probability"), led)
    assert settings == {"samples": 123, "score": "probability", "most": 9}


@pytest.mark.parametrize("other", [{"classifier": "two"}, {"generator": "drawn otherwise"}])
def test_steps_about_other_models_keep_their_own(other: dict[str, str]) -> None:
    assert shared(influence(samples=123), {"method": "corner-cases"} | other)[1] == {}
    # They follow the influence of the same models, though it is not the first.
    second = influence(samples=45) | {"name": "second"} | other
    assert shared(influence(samples=123), second, {"method": "corner-cases"} | other)[2]["samples"] == 45


def test_the_first_of_several_leads_and_none_is_led() -> None:
    several = shared(influence(samples=123), influence(samples=45) | {"name": "second"}, {"method": "corner-cases"})
    assert [settings["samples"] for settings in several] == [123, 45, 123]


def test_other_methods_are_left_as_they_are() -> None:
    assert shared(influence(), {"method": "latent-map"}, {"method": "style-difference"})[1:] == [{}, {}]


def test_a_method_that_does_not_exist_is_refused_as_ever(tmp_path: Any) -> None:
    study = demo_study().model_dump(mode="json", exclude_none=True)
    study["steps"].append({"method": "corner-case"})
    with pytest.raises(ConfigError, match=r"'corner-case'\. Did you mean 'corner-cases'"):
        run_study(StudyConfig.from_mapping(study), out=tmp_path)


def test_the_study_says_what_is_shared_and_stays_as_it_is() -> None:
    once = share_influence(demo_study())
    assert share_influence(once) == once == StudyConfig.from_mapping(tomllib.loads(once.to_toml()))
    assert {step.settings.get(LED[step.method]) for step in once.steps if step.method in LED} == {3000}
