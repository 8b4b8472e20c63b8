"""Commands on failure conditions: failures, corner-cases, case-set."""

import sys
from pathlib import Path

from cyclopts.types import NonNegativeInt, PositiveInt

from failscape.cli.studies import run, study_config
from failscape.cli.terminal import run_folder
from failscape.data import uncorrupted
from failscape.errors import StudyError
from failscape.storage import require_empty
from failscape.study.config import StudyConfig
from failscape.study.failure_conditions import failure_steps


def failures(
    images: str,
    /,
    *,
    classifier: str,
    generator: str,
    oracle: str | None = None,
    against: tuple[str, ...] = (),
    limit: PositiveInt | None = 1000,
    out: Path = Path("runs"),
    allow_code: bool = False,
) -> int:
    """Find what makes a classifier fail: directions, corner cases, real images, robustness, in one report.

    Args:
        images: labelled images, on which the findings are checked, as for `explain`.
        classifier: embedded:NAME, a saved folder or file, or python:FILE.py:FUNCTION.
        generator: embedded:NAME, or what `failscape train gan` saved; it must have styles and classes.
        oracle: another classifier, which judges what is found.
        against: a classifier to compare with, and more by giving it again.
        limit: take at most so many images.
        out: where numbered run folders are made.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    config = study_config("failures", images, classifier, generator, oracle, limit)
    # Images that are corrupted already would be so twice.
    clean = uncorrupted(images)
    steps = failure_steps(others=against, clean=None if clean == images else clean, limit=limit)
    return run(StudyConfig.from_mapping(config | {"steps": steps}), out=out, allow_code=allow_code)


def corner_cases(
    images: str,
    /,
    *,
    classifier: str,
    generator: str,
    oracle: str | None = None,
    per_class: NonNegativeInt = 10,
    joint: NonNegativeInt = 5,
    export: Path | None = None,
    out: Path = Path("runs"),
    allow_code: bool = False,
) -> int:
    """Find the smallest moves that make a classifier lose each class, and write them as a data set.

    Args:
        images: labelled images, as for `explain`; they say which classes there are.
        classifier: embedded:NAME, a saved folder or file, or python:FILE.py:FUNCTION.
        generator: embedded:NAME, or what `failscape train gan` saved; it must have styles and classes.
        oracle: another classifier, which judges what is found.
        per_class: cases by single dimensions for each class.
        joint: cases over all dimensions for each class, any number.
        export: an empty or new folder for the cases as images, labels, latents and Parquet.
        out: where numbered run folders are made.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    steps = [{"method": "corner-cases", "settings": {"per_class": per_class, "joint": joint}}]
    config = study_config("corner-cases", images, classifier, generator, oracle, 100) | {"steps": steps}

    def write(folder: Path) -> None:
        from failscape.explain import CornerCasesResult, load_result
        from failscape.study.run_folder import read_steps

        (step,) = read_steps(folder)
        if step["status"] != "done":
            raise StudyError(f"Expected corner cases to export, but there are none: {step['error']}")
        result = load_result(folder / "steps" / str(step["folder"]))
        assert isinstance(result, CornerCasesResult)
        assert export is not None, "else there is nothing to write"
        sys.stdout.write(f"{result.export(export)}\n")

    study = StudyConfig.from_mapping(config)
    if export is None:
        return run(study, out=out, allow_code=allow_code)
    # Before the work, not after it.
    require_empty(export)
    return run(study, out=out, allow_code=allow_code, afterwards=write)


def case_set(run: str, /, *, to: Path, out: Path = Path("runs")) -> int:
    """Write the corner cases of a run as a data set: those kept in the browser, and those that its steps found.

    Args:
        run: a run folder, or "latest".
        to: an empty or new folder for the cases as images, labels, latents and Parquet.
        out: where "latest" is looked for.
    """
    from failscape.report.run import read_run
    from failscape.web.kept import case_set, export

    content = read_run(run_folder(run, out))
    sys.stdout.write(f"{export(case_set(content), content.folder, to)}\n")
    return 0
