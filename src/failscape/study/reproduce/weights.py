"""The embedded weights, made again from data by their recipes."""

import json
from collections.abc import Callable, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from failscape.errors import SpecError
from failscape.storage import asset_names, latest_run_folder
from failscape.training import AnySettings, PolishSettings, read_settings, resume_run, start_run

_RECIPE = ".toml"


def recipe_names() -> list[str]:
    """Return the names of all embedded weights that have a recipe: every one."""
    return asset_names(files("failscape") / "assets" / "recipes", _RECIPE)


def train_embedded(name: str, out: Path, *, progress: Callable[[str], None] = lambda message: None) -> Path:
    """Train the weights `embedded:NAME` again.

    A training that was cut off goes on; one that is complete is not run again. Where `out` holds a complete training of
    a classifier that the recipe names as embedded, that one is taken in its place: it is what will be explained.

    Args:
        name: of the embedded weights.
        out: holds the numbered run folders.
        progress: is told in a line what is being done.

    Returns:
        The run folder, which `load_classifier` or `load_generator` takes.

    Raises:
        SpecError: if there is no such recipe.
        FailscapeError: what the training raises, such as for data that cannot be had.
    """
    if name not in recipe_names():
        raise SpecError(f"Expected one of {', '.join(recipe_names())} to retrain, but got {name!r}.")
    return train_by(_begun(_read_recipe(f"{name}{_RECIPE}", out), out, progress), out, progress=progress)


def _read_recipe(path: str, out: Path) -> AnySettings:
    """Return the settings of a recipe; classifiers that were trained again are named in place of the embedded ones."""
    with as_file(files("failscape") / "assets" / "recipes" / path) as recipe:
        settings = read_settings(recipe)
    roles = [role for role in ("classifier", "oracle") if hasattr(settings, role)]
    trained: dict[str, object] = {role: _trained_again(getattr(settings, role), out) for role in roles}
    if isinstance(settings, PolishSettings):
        trained["matched_by"] = tuple(_trained_again(spec, out) for spec in settings.matched_by)
    return settings.model_copy(update=trained)


def _trained_again(spec: str, out: Path) -> str:
    """Return the run that an embedded network was trained again in, or else the spec."""
    kind, _, name = spec.partition(":")
    run = latest_run_folder(out, name) if kind == "embedded" else None
    return spec if run is None or not _complete(run) else str(run)


def _begun(settings: AnySettings, out: Path, progress: Callable[[str], None]) -> AnySettings:
    """Return settings that name runs where a recipe names recipes of what it needs first; these are made now.

    A training that was begun before has all that it needs.
    """
    if latest_run_folder(out, settings.name) is not None:
        return settings

    def made(recipe: str) -> str:
        return str(train_by(_begun(_read_recipe(recipe, out), out, progress), out, progress=progress))

    needed: dict[str, object] = {}
    start = getattr(settings, "start", "none")
    if start != "none":
        needed["start"] = made(start)
    if isinstance(settings, PolishSettings):
        needed["matched_by"] = tuple(made(spec) if spec.endswith(_RECIPE) else spec for spec in settings.matched_by)
    return settings.model_copy(update=needed)


def train_by(settings: AnySettings, out: Path, *, progress: Callable[[str], None] = lambda message: None) -> Path:
    """Train by settings, unless it was done before; a training that was cut off goes on.

    Args:
        settings: of the training; their name finds an earlier run.
        out: holds the numbered run folders.
        progress: is told in a line what is being done.

    Raises:
        FailscapeError: what the training raises.
    """
    name = settings.name
    run = latest_run_folder(out, name)
    if run is not None and _complete(run):
        progress(f"{name}: trained before, {run}")
        return run
    progress(f"{name}: training on {settings.data}, {settings.images:,} images")
    if run is not None and (run / "train.toml").exists():
        return resume_run(run)
    return start_run(settings, out)


def recorded_seconds(name: str) -> float:
    """Return how long the training of `embedded:NAME` took where it was made, with all that were made for it."""
    documents = [files("failscape") / "assets" / kind / f"{name}.json" for kind in ("classifiers", "generators")]
    (document,) = (each for each in documents if each.is_file())
    return _seconds(json.loads(document.read_text())["provenance"])


def _seconds(training: Mapping[str, Any]) -> float:
    """Return the seconds of a training, of the one that it began with, and of the networks that it was matched by."""
    before = [*([training["start"]] if "start" in training else []), *training.get("matched_by", {}).values()]
    return float(training["reached"]["seconds"]) + sum(_seconds(each) for each in before)


def say_how_long(trainings: Mapping[Path, float], *, progress: Callable[[str], None]) -> None:
    """Say how long the trainings that are still to be made took together, if there are any.

    Args:
        trainings: folder of numbered runs, and in it the name of each, to how many seconds it took; one that was cut
            off counts as a whole.
        progress: is told in a line.
    """
    runs = {path: latest_run_folder(path.parent, path.name) for path in trainings}
    left = [path for path, run in runs.items() if run is None or not _complete(run)]
    if not left:
        return
    total = sum(trainings[path] for path in left)
    time = f"{total / 3600:.1f} hours" if total > 5400 else f"{total / 60:.1f} minutes"
    names = ", ".join(path.name for path in left)
    progress(f"{len(left)} to be trained, which took {time} in all on the machine they were made on: {names}")


def _complete(run: Path) -> bool:
    return any((run / f"{kind}.json").exists() for kind in ("classifier", "generator"))
