import tomllib
from pathlib import Path
from typing import Any

import pytest

from failscape.errors import ConfigError
from failscape.study.config import StudyConfig

STUDY: dict[str, Any] = {
    "name": "a",
    "images": {"spec": "mnist"},
    "classifier": {"spec": "c"},
    "generator": {"spec": "g"},
    "steps": [{"method": "edge-cases"}],
}


def test_defaults_are_filled_in() -> None:
    config = StudyConfig.from_mapping(STUDY)
    assert (config.seed, config.images.only, config.images.limit, config.oracle) == (
        0,
        "mistakes",
        None,
        None,
    )
    assert (config.steps[0].name, config.steps[0].title) == ("edge-cases", "Edge cases")


def test_toml_and_back_is_the_same_study(tmp_path: Path) -> None:
    steps = [
        {
            "method": "m",
            "name": "n",
            "classifier": "d",
            "oracle": "p",
            "generator": "h",
            "settings": {"mode": "confident", "steps": 3, "p": 0.5},
        }
    ]
    images = {
        "files": ["a.png", "b.png"],
        "target": "7",
        "image_shape": [1, 28, 28],
        "only": "all",
        "limit": 2,
    }
    config = StudyConfig.from_mapping(STUDY | {"seed": 7, "oracle": {"spec": "o"}, "images": images, "steps": steps})
    source = tmp_path / "study.toml"
    source.write_text(config.to_toml())
    assert StudyConfig.from_toml(source) == config
    assert tomllib.loads(config.to_toml())["steps"][0]["settings"] == steps[0]["settings"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sed": 1}, ["the study", "'sed'", "'seed'"]),
        ({"images": {"spec": "m", "onyl": "all"}}, ["`images`", "'onyl'", "'only'"]),
        (
            {"images": {"spec": "m", "only": "some"}},
            ["`images.only`", "'mistakes', 'correct' or 'all'", "'some'"],
        ),
        ({"images": {"spec": "m", "limit": -1}}, ["`images.limit`", "greater than 0", "-1"]),
        ({"images": {"spec": "m", "limit": "5"}}, ["`images.limit`", "integer", "'5'"]),
        ({"images": {"spec": "m", "image_shape": [1, 28]}}, ["`images.image_shape[2]`", "missing"]),
        ({"images": {}}, ["either `spec` or `files`"]),
        ({"images": {"spec": "m", "files": ["a.png"], "target": "1"}}, ["either `spec` or `files`"]),
        ({"images": {"files": ["a.png"]}}, ["`target`"]),
        ({"classifier": {"spek": "c"}}, ["`classifier`", "'spek'", "'spec'"]),
        ({"oracle": 3}, ["`oracle`", "3"]),
        ({"steps": [{"metod": "m"}]}, ["`steps[0]`", "'metod'", "'method'"]),
        ({"steps": [{"method": "m", "titel": "t"}]}, ["`steps[0]`", "'titel'", "'title'"]),
        ({"steps": [{"method": "m", "clasifier": "c"}]}, ["`steps[0]`", "'clasifier'", "'classifier'"]),
        ({"steps": [{"method": "m", "classifier": ""}]}, ["`steps[0].classifier`", "at least 1", "''"]),
        ({"steps": [{"method": "m", "oracle": {"spec": "o"}}]}, ["`steps[0].oracle`", "string", "{'spec': 'o'}"]),
        ({"steps": []}, ["1 to 99 [[steps]]", "0"]),
        ({"steps": [{"method": "m", "name": "../up"}]}, ["`steps[0].name`", "'../up'"]),
        ({"name": "../up"}, ["`name`", "'../up'"]),
        ({"seed": -1}, ["`seed`", "-1"]),
        ({"generator": None}, ["generator", "'edge-cases'"]),
    ],
)
def test_a_wrong_key_or_value_is_one_line_that_names_it(change: dict[str, Any], words: list[str]) -> None:
    given = {key: value for key, value in (STUDY | change).items() if value is not None}
    with pytest.raises(ConfigError) as caught:
        StudyConfig.from_mapping(given)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("Expected ")
    for word in words:
        assert word in message


def test_without_a_close_match_the_known_keys_are_listed() -> None:
    with pytest.raises(ConfigError, match="Known keys: name, seed, images"):
        StudyConfig.from_mapping(STUDY | {"xyzzy": 1})


@pytest.mark.parametrize(
    ("content", "words"), [(b"name = ", "TOML"), (b"\xff\xfe", "TOML"), (b"#" * (2**20 + 1), "1 MiB")]
)
def test_what_is_no_toml_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    source = tmp_path / "study.toml"
    source.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        StudyConfig.from_toml(source)


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_an_unreadable_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="readable study"):
        StudyConfig.from_toml(tmp_path / name)


@pytest.mark.parametrize(
    "images",
    [
        {"spec": "embedded:mnist-test", "image_shape": [1, 8, 8]},
        {"files": ["one.png", "two.png"], "target": "bee"},
    ],
)
def test_lists_are_read_within_a_step_as_elsewhere(images: dict[str, Any]) -> None:
    step = {"method": "edge-cases", "images": images}
    config = StudyConfig.from_mapping(
        {"name": "x", "images": images, "classifier": {"spec": "c"}, "generator": {"spec": "g"}, "steps": [step]}
    )
    assert config.steps[0].images == config.images
    assert StudyConfig.from_mapping(tomllib.loads(config.to_toml())) == config


@pytest.mark.parametrize(
    "wrong", [{"image_shape": ["1", 8, 8]}, {"image_shape": [1, 8]}, {"files": [3]}, {"files": "a"}]
)
def test_a_list_of_something_else_within_a_step_is_refused(wrong: dict[str, Any]) -> None:
    images = {"spec": "embedded:mnist-test"} | wrong
    step = {"method": "edge-cases", "images": images}
    with pytest.raises(ConfigError, match=rf"steps\[0\]\.images\.{next(iter(wrong))}"):
        StudyConfig.from_mapping(
            {
                "name": "x",
                "images": {"spec": "s"},
                "classifier": {"spec": "c"},
                "generator": {"spec": "g"},
                "steps": [step],
            }
        )
