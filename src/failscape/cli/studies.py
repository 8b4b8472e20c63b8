"""Commands that end with a report: demo, study, explain, reproduce, report."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from failscape.cli.terminal import fail, progress, run_folder
from failscape.errors import ConfigError
from failscape.study.config import StudyConfig
from failscape.study.demo import demo_study

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def demo(*, out: Path = Path("runs")) -> int:
    """Find what makes an embedded digit classifier fail, and explain the mistakes of another, from the package alone.

    Args:
        out: where numbered run folders are made.
    """
    return run(demo_study(), out=out, allow_code=False, afterwards=_say_how_to_explore)


def study(config: Path, /, *, out: Path = Path("runs"), allow_code: bool = False) -> int:
    """Run a study. A study that was killed, or is run again, goes on where it was.

    Args:
        config: the study's TOML file.
        out: where numbered run folders are made.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    return run(StudyConfig.from_toml(config), out=out, allow_code=allow_code)


def explain(
    images: list[str],
    /,
    *,
    classifier: str,
    generator: str,
    oracle: str | None = None,
    target: str | None = None,
    mode: Literal["boundary", "confident"] = "boundary",
    limit: PositiveInt | None = None,
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None,
    out: Path = Path("runs"),
    allow_code: bool = False,
) -> int:
    """Explain why images were misclassified: the smallest meaningful change that puts each right.

    Args:
        images: labelled images (embedded:mnist-test, mnist, a class folder, an .npz or .parquet file, an IDX
            pair), or image files with --target.
        classifier: embedded:NAME, a saved folder or file, or python:FILE.py:FUNCTION.
        generator: embedded:NAME, or a saved folder or file.
        oracle: another classifier, which judges what is found.
        target: the class wanted for every image, in place of labels.
        mode: the smallest change that crosses the boundary, or that makes the classifier sure.
        limit: explain at most so many images.
        image_shape: channels, height and width to which the images are converted.
        out: where numbered run folders are made.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    files = [path for path in images if path.lower().endswith(_IMAGE_SUFFIXES)]
    if len(images) > 1 and len(files) < len(images):
        other = next(path for path in images if path not in files)
        raise ConfigError(
            f"Expected one set of labelled images, or PNG, JPEG and WebP files only, but got {other!r} among "
            f"{len(images)} images. Explain sets one at a time."
        )
    if files and target is None:
        raise ConfigError(
            "Expected --target beside image files, which have no labels, but got none. Name the class wanted."
        )
    wanted = {
        "spec": None if files else images[0],
        "files": files,
        "target": target,
        "limit": limit,
        "image_shape": image_shape,
    }
    config = {
        "name": "explain",
        "images": {key: value for key, value in wanted.items() if value is not None},
        "classifier": {"spec": classifier},
        "generator": {"spec": generator},
        "steps": [{"method": "sympathetic-examples", "settings": {"mode": mode}}],
    }
    if oracle is not None:
        config["oracle"] = {"spec": oracle}
    return run(StudyConfig.from_mapping(config), out=out, allow_code=allow_code)


def uncertain(
    images: str,
    /,
    *,
    classifier: str,
    generator: str,
    oracle: str | None = None,
    class_names: Annotated[tuple[str, ...], Parameter(name="--class")] = (),
    levels: tuple[float, ...] = (),
    per_class: PositiveInt = 200,
    limit: PositiveInt | None = None,
    out: Path = Path("runs"),
    allow_code: bool = False,
) -> int:
    """Draw what a classifier is unsure of, and how images become so, with a generator trained on its confidence.

    Args:
        images: labelled images, which are swept and compared with, as for `explain`.
        classifier: embedded:NAME, a saved folder or file, or python:FILE.py:FUNCTION.
        generator: embedded:NAME, or what `failscape train gan` saved.
        oracle: another classifier, which judges what is drawn.
        class_names: a class to show, and more by giving it again; by default all.
        levels: the confidences to show, falling, each by giving it again; by default ten from 1 to 0.55, or
            as many that the generator supports.
        per_class: requests of each class, on which the numbers rest.
        limit: take at most so many images.
        out: where numbered run folders are made.
        allow_code: let python:FILE.py:FUNCTION specs run their file.
    """
    settings = {"per_class": per_class, "classes": list(class_names), "levels": list(levels)}
    step = {"method": "uncertain-samples", "settings": {k: v for k, v in settings.items() if v}}
    config = study_config("uncertain", images, classifier, generator, oracle, limit) | {"steps": [step]}
    return run(StudyConfig.from_mapping(config), out=out, allow_code=allow_code)


def reproduce(name: str, /, *, out: Path, retrain: bool = False) -> int:
    """Reproduce the experiments of a paper, its figures and tables beside ours.

    Args:
        name: the paper, such as latent-sympathetic-examples.
        out: the folder to write.
        retrain: make the weights again from data first, by the recipe in the repository.
    """
    from failscape.study.reproduce import reproduce as run_reproduction

    with progress() as show:
        folder = run_reproduction(name, out, retrain=retrain, progress=show)
    return finish(folder)


def report(run: str, /, *, out: Path = Path("runs")) -> int:
    """Write the report of a run again.

    Args:
        run: a run folder, or "latest".
        out: where "latest" is looked for; the highest number is the latest.
    """
    return finish(run_folder(run, out))


def study_config(
    name: str, images: str, classifier: str, generator: str, oracle: str | None, limit: int | None
) -> dict[str, Any]:
    """Return the configuration, but for its steps, of a study of all images, right or wrong, up to the limit."""
    config: dict[str, Any] = {
        "name": name,
        "images": {"spec": images, "only": "all"} | ({} if limit is None else {"limit": limit}),
        "classifier": {"spec": classifier},
        "generator": {"spec": generator},
    }
    return config if oracle is None else config | {"oracle": {"spec": oracle}}


def run(
    config: StudyConfig, *, out: Path, allow_code: bool, afterwards: Callable[[Path], None] = lambda folder: None
) -> int:
    """Run a study, write its report, and do with the run folder what is to be done if every step ended well."""
    with progress() as show:
        show("importing")
        from failscape.study.runner import run_study

        folder = run_study(config, out=out, allow_code=allow_code, progress=show)
        show("writing the report")
    code = finish(folder)
    if code == 0:
        afterwards(folder)
    return code


def _say_how_to_explore(run: Path) -> None:
    sys.stdout.write(f"To explore it and to label images: {shlex.join(['failscape', 'serve', str(run)])}\n")


def finish(run: Path) -> int:
    """Write the report, say where it is, and count a failed step as an error."""
    from failscape.report import write_report
    from failscape.study.run_folder import read_steps

    page = write_report(run)
    failed = [step for step in read_steps(run) if step.get("status") == "failed"]
    sys.stdout.write(f"{page}\n")
    sys.stdout.flush()
    if failed:
        names = ", ".join(str(step.get("name")) for step in failed)
        return fail(f"Expected every step to end well, but {len(failed)} failed ({names}): {failed[0].get('error')}")
    return 0
