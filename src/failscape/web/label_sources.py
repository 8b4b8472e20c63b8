"""Which images of a run people can be asked about, and the labelling task made of them."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.errors import LabelStoreError
from failscape.generators.condition import VECTOR
from failscape.labels import LabelTask, label_task
from failscape.report.run import Run, Step
from failscape.study.config import ImagesConfig
from failscape.study.inputs import draw_conditions, load_labelled
from failscape.web.networks import Networks

MOST_IMAGES = 5000


@final
@dataclass(frozen=True, kw_only=True)
class Source:
    """Images of a run.

    Attributes:
        key: names them within the run.
        title: what they are.
        step: the step that they belong to.
        count: how many there are; None where as many as one wants can be drawn.
    """

    key: str
    title: str
    step: Step
    count: int | None


def label_sources(run: Run) -> list[Source]:
    """Return what can be labelled: images drawn anew by each generator, then the images of each result."""
    usable = [(number, step) for number, step in enumerate(run.steps, start=1) if step.record.get("classifier")]
    drawn: dict[tuple[str, ...], Source] = {}
    for number, step in usable:
        generator, classifier = step.record.get("generator"), step.record["classifier"]
        if generator:
            title = f"New images drawn by {_short(generator)}, classified by {_short(classifier)}"
            source = Source(key=f"draw-{number}", title=title, step=step, count=None)
            drawn.setdefault((str(generator), str(classifier), str(step.record.get("oracle"))), source)
    found = [
        Source(key=f"step-{number}", title=step.title, step=step, count=len(step.result.images))
        for number, step in usable
        if step.result is not None and len(step.result.images)
    ]
    return [*drawn.values(), *found]


def make_task(source: Source, networks: Networks, *, count: int, rng: torch.Generator) -> LabelTask:
    """Draw or choose images, and write down what the step's classifier and oracle say of them.

    Of a result that has more images than asked for, as many are chosen at random.

    Args:
        source: where they come from.
        networks: of the run.
        count: at most so many images.
        rng: the source of every random draw.

    Raises:
        FailscapeError: if a network of the step cannot be loaded, or does not fit the images.
    """
    if not 1 <= count <= MOST_IMAGES:
        raise LabelStoreError(f"Expected 1 to {MOST_IMAGES:,} images to label, but got {count:,}.")
    record, result = source.step.record, source.step.result
    classifier = networks.classifier(str(record["classifier"]))
    oracle = networks.classifier(str(record["oracle"])) if record.get("oracle") else None
    if source.count is None:
        x = draw_new(source, networks, count, rng=rng)
        names = [f"drawn-{row:05d}" for row in range(count)]
        return label_task(x, classifier, oracle=oracle, names=names)
    assert result is not None
    rows = torch.randperm(len(result.images), generator=rng)[:count].sort().values
    chosen, origins, made_from = rows.tolist(), result.origins, result.made_from
    return label_task(
        result.images[rows],
        classifier,
        oracle=oracle,
        names=[f"{source.step.folder.name}-{row:05d}" for row in chosen],
        origin=[origins[row] for row in chosen],
        sources=[made_from[row] for row in chosen],
    )


def draw_new(source: Source, networks: Networks, count: int, *, rng: torch.Generator) -> Float[Tensor, "N C H W"]:
    """Draw images with the generator of a step.

    Args:
        source: of new images.
        networks: of the run.
        count: how many.
        rng: the source of every random draw.

    Raises:
        FailscapeError: if a network or the images of the step cannot be loaded, or do not fit each other.
    """
    record = source.step.record
    generator = networks.generator(str(record["generator"]))
    classifier = networks.classifier(str(record["classifier"]))
    space, images = generator.condition_space, None
    if space is not None and space.score == VECTOR and is_spec(record.get("images")):
        images = load_labelled(ImagesConfig(spec=str(record["images"])), classifier)
    return generator.sample(count, rng=rng, condition=draw_conditions(generator, classifier, images, count, rng=rng))


def _short(spec: object) -> str:
    return str(spec).removeprefix("embedded:").rstrip("/").rpartition("/")[2]


def is_spec(images: object) -> bool:
    """Return whether what a step records of its images names a labelled set; of image files it says how many."""
    return isinstance(images, str) and bool(images) and not images.endswith(" files")
