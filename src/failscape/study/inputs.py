"""What a study works on: the models, the labelled images, and the selection of those to be explained.

Everything is checked against everything else here, before any work is done.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

import torch

from failscape.classifiers import Classifier, load_classifier
from failscape.data import ImageSet, load_images, read_image_files
from failscape.errors import ClassifierError, GeneratorError, LabelError
from failscape.generators import Generator, load_generator
from failscape.study.config import ImagesConfig, StepConfig, StudyConfig

_BATCH_BYTES = 32 * 2**20


@final
@dataclass(frozen=True, kw_only=True)
class Models:
    """The networks of a study.

    Attributes:
        classifier: what is explained.
        oracle: what grades, if any.
        generators: by spec; several steps may share one.
    """

    classifier: Classifier
    oracle: Classifier | None
    generators: Mapping[str, Generator]


@final
@dataclass(frozen=True, kw_only=True)
class Selection:
    """The images that a study explains.

    Attributes:
        images: the selected ones, labels numbered as the classifier's classes; nothing is read yet.
        total: images in the whole set.
        classified: how many of them were classified before the limit was reached.
        correct: how many of those the classifier gets right.
    """

    images: ImageSet
    total: int
    classified: int
    correct: int

    def describe(self, only: str) -> str:
        """Say in a sentence what was selected."""
        return (
            f"{len(self.images)} images chosen ({only}); {self.classified - self.correct} of the "
            f"{self.classified} images classified are mistakes."
        )


def generator_spec(step: StepConfig, config: StudyConfig) -> str:
    """Return the spec of the generator that a step uses."""
    if step.generator is not None:
        return step.generator
    assert config.generator is not None
    return config.generator.spec


def images_config(step: StepConfig, config: StudyConfig) -> ImagesConfig:
    """Return which images a step explains."""
    return step.images or config.images


def load_models(config: StudyConfig, *, allow_code: bool) -> Models:
    """Load the networks and check that they fit each other.

    Raises:
        FailscapeError: if a spec names nothing, weights are broken, or `python:` was not allowed.
        ClassifierError: if the oracle has other classes or another image shape than the classifier.
        GeneratorError: if a generator draws images of another shape than the classifier takes.
    """
    classifier = load_classifier(config.classifier.spec, allow_code=allow_code)
    oracle = load_classifier(config.oracle.spec, allow_code=allow_code) if config.oracle else None
    if oracle is not None and (
        oracle.class_names != classifier.class_names or oracle.image_shape != classifier.image_shape
    ):
        raise ClassifierError(
            f"Expected an oracle of the same classes ({', '.join(classifier.class_names)}) and image shape "
            f"{classifier.image_shape} as {classifier.name}, but {oracle.name} has "
            f"{', '.join(oracle.class_names)} and {oracle.image_shape}. Train one on the same images."
        )
    specs = dict.fromkeys(generator_spec(step, config) for step in config.steps)
    generators = {spec: load_generator(spec) for spec in specs}
    for spec, generator in generators.items():
        if generator.image_shape != classifier.image_shape:
            raise GeneratorError(
                f"Expected a generator of images of shape {classifier.image_shape}, as {classifier.name} "
                f"takes them, but {spec} draws {generator.image_shape}. Train one on the classifier's images."
            )
    return Models(classifier=classifier, oracle=oracle, generators=generators)


def load_labelled(config: ImagesConfig, classifier: Classifier) -> ImageSet:
    """Load the images of a study, their labels numbered as the classifier's classes.

    Classes of the same names are matched by name, whatever their order; classes of other names by number.

    Raises:
        FailscapeError: if the images cannot be read.
        LabelError: if the labels are of one class only, or the target is no class of the classifier.
        ClassifierError: if the classifier takes another image shape or knows another number of classes.
    """
    if config.files:
        x, ids = read_image_files(config.files, image_shape=config.image_shape)
        images = ImageSet.from_tensors(x, torch.zeros(len(x), dtype=torch.long), ids=ids, name="files")
    else:
        assert config.spec is not None
        images = load_images(config.spec, image_shape=config.image_shape, allow_one_class=config.target is not None)
    if images.image_shape != classifier.image_shape:
        raise ClassifierError(
            f"Expected images of shape {classifier.image_shape} (C, H, W), as {classifier.name} takes "
            f"them, but {images.name} has {images.image_shape}. Resize them (image_shape does it for image files "
            "and Parquet), or wrap the network."
        )
    if config.target is not None:
        y = torch.full((len(images),), _class_number(config.target, classifier))
    elif images.num_classes != classifier.num_classes:
        raise ClassifierError(
            f"Expected a classifier with as many classes as {images.name} has labels, "
            f"{images.num_classes}, but {classifier.name} has {classifier.num_classes}. Choose images and "
            "classifier of the same task."
        )
    elif set(images.class_names) == set(classifier.class_names):
        y = torch.tensor([classifier.class_names.index(name) for name in images.class_names])[images.y]
    else:
        y = images.y
    return ImageSet(images, y, classifier.class_names, ids=images.ids, name=images.name)


def select(images: ImageSet, classifier: Classifier, config: ImagesConfig) -> Selection:
    """Choose what to explain by what the classifier says, batch by batch, as far as the limit needs.

    Raises:
        ClassifierError: if the network fails or returns values that are not finite.
        ImageError: if an image cannot be read.
    """
    channels, height, width = images.image_shape
    size = min(1000, max(1, _BATCH_BYTES // (4 * channels * height * width)))
    chosen: list[torch.Tensor] = []
    found = classified = correct = 0
    for batch in images.batches(size):
        right = classifier.predict(batch.x) == batch.y
        wanted = {"mistakes": ~right, "correct": right, "all": torch.ones_like(right)}[config.only]
        room = len(images) if config.limit is None else config.limit - found
        rows = wanted.nonzero().flatten()[:room]
        # With the limit reached, what comes after the last chosen image counts as not looked at.
        seen = int(rows[-1]) + 1 if len(rows) == room else len(right)
        chosen.append(batch.indices[rows])
        found, classified, correct = found + len(rows), classified + seen, correct + int(right[:seen].sum())
        if found == config.limit:
            break
    rows = torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.long)
    selected = images.select(rows)
    if config.targets == "others":
        selected = _to_each_other_class(selected)
    return Selection(images=selected, total=len(images), classified=classified, correct=correct)


def select_for_steps(config: StudyConfig, classifier: Classifier) -> dict[ImagesConfig, Selection]:
    """Choose what each step explains; steps that ask for the same share one selection.

    Raises:
        FailscapeError: what `load_labelled` and `select` raise.
    """
    wanted: Iterable[ImagesConfig] = dict.fromkeys(images_config(step, config) for step in config.steps)
    loaded = {images: load_labelled(images, classifier) for images in wanted}
    return {images: select(loaded[images], classifier, images) for images in wanted}


def _to_each_other_class(images: ImageSet) -> ImageSet:
    """Repeat each image for every class but its own, with that class as its label."""
    count = images.num_classes
    rows = torch.arange(len(images)).repeat_interleave(count - 1)
    # Offsets 1 … K - 1 from the own class, modulo K, are the other classes.
    offsets = torch.arange(1, count).repeat(len(images))
    y = (images.y[rows] + offsets) % count
    ids = tuple(f"{images.ids[row]}→{images.class_names[k]}" for row, k in zip(rows.tolist(), y.tolist(), strict=True))
    return ImageSet(images.select(rows), y, images.class_names, ids=ids, name=images.name)


def _class_number(name: str, classifier: Classifier) -> int:
    if name not in classifier.class_names:
        known = ", ".join(classifier.class_names[:20])
        raise LabelError(
            f"Expected the target to be a class of {classifier.name} ({known}), but got {name!r}. Name one of these."
        )
    return classifier.class_names.index(name)
