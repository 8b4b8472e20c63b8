"""The command that puts classifiers side by side."""

from pathlib import Path

from cyclopts.types import PositiveInt

from failscape.cli.studies import run
from failscape.study.comparison import comparison_study


def compare(
    classifiers: list[str],
    /,
    *,
    images: str,
    generator: str,
    oracle: str | None = None,
    limit: PositiveInt | None = None,
    out: Path = Path("runs"),
    allow_code: bool = False,
) -> int:
    """Put classifiers side by side: accuracy far from the centre and under corruptions, and where they differ most.

    Args:
        classifiers: two or more, each embedded:NAME, a saved folder or file, or python:FILE.py:FUNCTION; the first is
            compared with each of the others.
        images: labelled images, which are corrupted, as for `explain`.
        generator: embedded:NAME, or what `failscape train gan` saved; it must have styles and classes.
        oracle: another classifier, which judges the pictures shown.
        limit: take at most so many images.
        out: where numbered run folders are made.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    study = comparison_study(classifiers, images=images, generator=generator, oracle=oracle, limit=limit)
    return run(study, out=out, allow_code=allow_code)
