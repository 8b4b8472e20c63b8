"""Commands about classes and what lies between them: path."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from failscape.cli.studies import run
from failscape.errors import ConfigError
from failscape.study.config import StudyConfig


def path(
    images: str,
    /,
    *,
    classifier: str,
    generator: str,
    oracle: str | None = None,
    pairs: Annotated[tuple[str, ...], Parameter(name="--pair")] = (),
    way: Literal["straight", "great-circle", "both"] = "straight",
    samples: NonNegativeInt = 0,
    limit: PositiveInt | None = 2000,
    out: Path = Path("runs"),
    allow_code: bool = False,
) -> int:
    """Go from the centre of one class to that of another, and see what the classifier says on the way.

    Args:
        images: labelled images, whose latents make the centres, as for `explain`.
        classifier: embedded:NAME, a saved folder or file, or python:FILE.py:FUNCTION.
        generator: embedded:NAME, or a saved folder or file; it must have an encoder.
        oracle: another classifier, which judges what is met.
        pairs: two classes as FROM:TO, and more by giving it again; by default every pair.
        way: straight, on the great circle about the origin, or both.
        samples: images of the first class of each pair to begin at, too.
        limit: take at most so many images.
        out: where numbered run folders are made.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    settings: dict[str, Any] = {"way": way, "samples": samples}
    if pairs:
        settings["pairs"] = [_pair(text) for text in pairs]
    config: dict[str, Any] = {
        "name": "path",
        "images": {"spec": images, "only": "all"} | ({} if limit is None else {"limit": limit}),
        "classifier": {"spec": classifier},
        "generator": {"spec": generator},
        "steps": [{"method": "centroid-path", "settings": settings}],
    }
    if oracle is not None:
        config["oracle"] = {"spec": oracle}
    return run(StudyConfig.from_mapping(config), out=out, allow_code=allow_code)


def _pair(text: str) -> list[str]:
    parts = text.split(":")
    if len(parts) != 2 or not all(parts):
        raise ConfigError(f"Expected --pair as FROM:TO, such as 4:9, but got {text!r}. Name two classes.")
    return parts
