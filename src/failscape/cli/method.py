"""One command for every method: method."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from failscape.cli.studies import run, study_config
from failscape.errors import ConfigError
from failscape.study.config import StudyConfig


def method(
    name: str,
    images: str,
    /,
    *,
    classifier: str,
    generator: str,
    oracle: str | None = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    limit: PositiveInt | None = None,
    out: Path = Path("runs"),
    allow_code: bool = False,
) -> int:
    """Run one method by its name, with whatever settings it has, as a study of one step.

    Args:
        name: the method, such as style-influence or latent-map; each has a page in the documentation.
        images: labelled images, as for `explain`; all of them, right and wrong ones alike.
        classifier: embedded:NAME, a saved folder or file, or python:FILE.py:FUNCTION.
        generator: embedded:NAME, or a saved folder or file.
        oracle: another classifier, which judges what is found.
        settings: a setting as KEY=VALUE, the value as in TOML, and more by giving it again.
        limit: take at most so many images.
        out: where numbered run folders are made.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    step = {"method": name, "settings": dict(_setting(each) for each in settings)}
    config = study_config(name, images, classifier, generator, oracle, limit) | {"steps": [step]}
    return run(StudyConfig.from_mapping(config), out=out, allow_code=allow_code)


def _setting(given: str) -> tuple[str, Any]:
    """Return key and value; what is no TOML value, such as a bare word or a path, is taken as text."""
    key, equals, value = given.partition("=")
    if not key.strip() or not equals:
        raise ConfigError(f"Expected --set KEY=VALUE, such as samples=2000, but got {given!r}. Write it so.")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
    return key.strip(), parsed["value"] if len(parsed) == 1 else value.strip()
