"""Commands about classes and what lies between them: converge, frontier, path."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

from failscape.cli.studies import run, study_config
from failscape.errors import ConfigError
from failscape.study.config import StudyConfig


def converge(
    images: str,
    /,
    *,
    classifier: str,
    generator: str,
    oracle: str | None = None,
    by: Literal["search", "training", "both"] = "search",
    class_names: Annotated[tuple[str, ...], Parameter(name="--class")] = (),
    samples: PositiveInt = 100,
    limit: PositiveInt | None = 2000,
    out: Path = Path("runs"),
    allow_code: bool = False,
) -> int:
    """Steer a generator to each class: what does the classifier take for it, and what does an oracle dispute?

    Args:
        images: labelled images, which are compared with and which a training goes on learning from, as for `explain`.
        classifier: embedded:NAME, a saved folder or file, or python:FILE.py:FUNCTION.
        generator: embedded:NAME, or a saved folder or file.
        oracle: another classifier, which judges what is accepted.
        by: search in the generator's latent space, training of a copy of it for each class, or both.
        class_names: a class to steer to, and more by giving it again; by default all.
        samples: images of each class, on which the numbers rest.
        limit: take at most so many images.
        out: where numbered run folders are made.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    settings: dict[str, Any] = {"by": by, "samples": samples}
    if class_names:
        settings["classes"] = list(class_names)
    step = {"method": "class-convergence", "settings": settings}
    config = study_config("converge", images, classifier, generator, oracle, limit) | {"steps": [step]}
    return run(StudyConfig.from_mapping(config), out=out, allow_code=allow_code)


def frontier(
    images: str,
    /,
    *,
    classifier: str,
    generator: str,
    oracle: str | None = None,
    targets: Annotated[tuple[str, ...], Parameter(name="--target")] = ("pairs",),
    by: Literal["search", "training"] = "search",
    per_target: PositiveInt = 64,
    samples: PositiveInt = 12000,
    opinions: NonNegativeInt = 2,
    limit: PositiveInt | None = 2000,
    out: Path = Path("runs"),
    allow_code: bool = False,
) -> int:
    """Draw images of which a classifier says half one class and half another, or any shares of classes.

    Args:
        images: labelled images, which a training goes on learning from, as for `explain`.
        classifier: embedded:NAME, a saved folder or file, or python:FILE.py:FUNCTION.
        generator: embedded:NAME, or a saved folder or file.
        oracle: another classifier, which judges what is found.
        targets: pairs, triples, uniform, classes such as 3,8, or shares such as 3=0.7,8=0.3, and more by giving it
            again.
        by: a search in the latent space, or a training of a copy for each target, as the paper does it.
        per_target: images of each target.
        samples: of the generator, from which the search learns and sets out.
        opinions: networks that learn from samples what the classifier says, and are to agree where they can; 0 is none,
            which is many times quicker.
        limit: take at most so many images.
        out: where numbered run folders are made.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    settings: dict[str, Any] = {
        "targets": list(targets),
        "by": by,
        "per_target": per_target,
        "samples": samples,
        "opinions": opinions,
    }
    step = {"method": "frontier", "settings": settings}
    config = study_config("frontier", images, classifier, generator, oracle, limit) | {"steps": [step]}
    return run(StudyConfig.from_mapping(config), out=out, allow_code=allow_code)


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
        samples: images of each class of a pair to begin at, too, on the way to the other.
        limit: take at most so many images.
        out: where numbered run folders are made.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    settings: dict[str, Any] = {"way": way, "samples": samples}
    if pairs:
        settings["pairs"] = [_pair(text) for text in pairs]
    step = {"method": "centroid-path", "settings": settings}
    config = study_config("path", images, classifier, generator, oracle, limit) | {"steps": [step]}
    return run(StudyConfig.from_mapping(config), out=out, allow_code=allow_code)


def _pair(text: str) -> list[str]:
    parts = text.split(":")
    if len(parts) != 2 or not all(parts):
        raise ConfigError(f"Expected --pair as FROM:TO, such as 4:9, but got {text!r}. Name two classes.")
    return parts
