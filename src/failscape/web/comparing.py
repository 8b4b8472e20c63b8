"""Several classifiers on the same images: which there are, which images, and where they differ."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.errors import ClassifierError
from failscape.report.run import Run
from failscape.study.config import ImagesConfig
from failscape.study.inputs import load_labelled
from failscape.web.label_sources import Source, draw_new, is_spec, label_sources
from failscape.web.networks import Networks
from failscape.web.pictures import eight_bit, pictures

MOST_CLASSIFIERS = 6


@final
@dataclass(frozen=True, kw_only=True)
class ImageChoice:
    """Images that classifiers can be compared on.

    Attributes:
        key: names them within the run.
        title: what they are.
        spec: of a labelled set, if they are one.
        source: of the run's own, if they are not.
    """

    key: str
    title: str
    spec: str = ""
    source: Source | None = None


def named_classifiers(runs: Iterable[Run]) -> list[str]:
    """Return the specs of all classifiers, oracles and compared ones of runs, each once, as they come."""
    found: dict[str, None] = {}
    for run in runs:
        for step in run.steps:
            compared = step.record.get("compared_with")
            others = compared if isinstance(compared, list) else []
            for spec in (step.record.get("classifier"), step.record.get("oracle"), *others):
                if spec:
                    found.setdefault(str(spec))
    return list(found)


def short_names(specs: Sequence[str]) -> list[str]:
    """Return what to call classifiers: the ends of their specs, or the whole where two have the same."""
    short = [spec.removeprefix("embedded:").rstrip("/").rpartition("/")[2] for spec in specs]
    return [name if short.count(name) == 1 else spec for name, spec in zip(short, specs, strict=True)]


def image_choices(run: Run) -> list[ImageChoice]:
    """Return the labelled sets of a run's steps, then what its generators draw, then its steps' images."""
    specs = dict.fromkeys(str(step.record["images"]) for step in run.steps if is_spec(step.record.get("images")))
    sets = [ImageChoice(key=f"set-{number}", title=spec, spec=spec) for number, spec in enumerate(specs)]
    own = [ImageChoice(key=source.key, title=source.title, source=source) for source in label_sources(run)]
    return sets + own


def compare(
    choice: ImageChoice, specs: Sequence[str], networks: Networks, *, count: int, seed: int, differing: bool, most: int
) -> dict[str, Any]:
    """Ask classifiers about the same images.

    Args:
        choice: the images; of more than `count` as many are chosen at random.
        specs: the classifiers, two or more.
        networks: of the runs.
        count: images that are asked about.
        seed: of the choice.
        differing: show only those on which two classifiers differ.
        most: images that are shown, those of least agreement first.

    Returns:
        The images with what each classifier says, their labels (None where there are none), on how many all agree, how
        many each has right, and on how many each two agree.

    Raises:
        FailscapeError: if images or a classifier cannot be loaded, or they do not fit each other.
    """
    judges = [networks.classifier(spec) for spec in specs]
    _require_same(judges)
    x, labels, ids = _images(choice, judges[0], networks, count=count, rng=torch.Generator().manual_seed(seed))
    probs = [judge.probs(x) for judge in judges]
    verdicts = torch.stack([each.argmax(dim=1) for each in probs])
    agree = (verdicts == verdicts[0]).all(dim=0)
    # Those on which the classifiers are furthest apart come first.
    spread = torch.stack(probs).std(dim=0, correction=0).sum(dim=1)
    order = (spread + 10 * ~agree).argsort(descending=True, stable=True)
    shown = order[~agree[order]] if differing else order
    shown = shown[:most]
    told = pictures(x[shown], [each[shown] for each in probs])
    for picture, row in zip(told, shown.tolist(), strict=True):
        picture |= {"label": None if labels is None else int(labels[row]), "id": ids[row]}
    return {
        "classes": judges[0].class_names,
        "judges": short_names(specs),
        "images": told,
        "total": len(x),
        "differing": int((~agree).sum()),
        "right": None if labels is None else [int((row == labels).sum()) for row in verdicts],
        "same": [[int((a == b).sum()) for b in verdicts] for a in verdicts],
    }


def _images(
    choice: ImageChoice, classifier: Classifier, networks: Networks, *, count: int, rng: torch.Generator
) -> tuple[Float[Tensor, "N C H W"], Tensor | None, list[str]]:
    """Return 8-bit images, their labels if they have some, and their ids."""
    if choice.source is None:
        images = load_labelled(ImagesConfig(spec=choice.spec), classifier)
        rows = torch.randperm(len(images), generator=rng)[:count].sort().values
        return eight_bit(images.read(rows)), images.y[rows], [images.ids[row] for row in rows.tolist()]
    step = choice.source.step
    if choice.source.count is None:
        drawn = eight_bit(draw_new(choice.source, networks, count, rng=rng))
        return drawn, None, [f"drawn {row}" for row in range(count)]
    assert step.result is not None
    rows = torch.randperm(len(step.result.images), generator=rng)[:count].sort().values
    return step.result.images[rows], None, [f"{step.folder.name} {row}" for row in rows.tolist()]


def _require_same(judges: Sequence[Classifier]) -> None:
    first = judges[0]
    for judge in judges[1:]:
        if judge.class_names != first.class_names or judge.image_shape != first.image_shape:
            raise ClassifierError(
                f"Expected classifiers of the same classes and image shape, but {first.name} takes "
                f"{first.image_shape} and {judge.name} takes {judge.image_shape}, or their classes differ. Compare "
                "classifiers of one task."
            )
