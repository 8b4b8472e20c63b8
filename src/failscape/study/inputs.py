"""What a study works on: the models, the labelled images, and the selection of those to be explained.

Everything is checked against everything else here, before any work is done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch

from failscape.classifiers import Classifier, load_classifier
from failscape.data import ImageSet, load_images, read_image_files
from failscape.errors import ClassifierError, GeneratorError, LabelError, UnsupportedGenerator
from failscape.explain import to_8_bits
from failscape.generators import Condition, Generator, load_generator
from failscape.generators.condition import VECTOR
from failscape.study.config import ImagesConfig, ModelConfig, StepConfig, StudyConfig

_BATCH_BYTES = 32 * 2**20


# Which images, and the spec of the classifier that tells mistakes from the rest.
Choice = tuple[ImagesConfig, str]


@final
@dataclass(frozen=True, kw_only=True)
class StepInputs:
    """What a step works with: what it names itself, and for the rest what the study names.

    Attributes:
        classifier: spec of what is explained.
        oracle: spec of what grades, if anything does.
        generator: spec of what draws the images.
        images: which images are explained.
    """

    classifier: str
    oracle: str | None
    generator: str
    images: ImagesConfig

    @classmethod
    def of(cls, step: StepConfig, config: StudyConfig) -> "StepInputs":
        """Return what a step of a study works with."""
        classifier = _spec(step.classifier, config.classifier)
        generator = _spec(step.generator, config.generator)
        assert classifier is not None
        assert generator is not None, "checked by the configuration"
        # The study's oracle was made for the study's classifier; of another one it may not even know the classes.
        oracle = _spec(step.oracle, config.oracle if step.classifier is None else None)
        return cls(classifier=classifier, oracle=oracle, generator=generator, images=step.images or config.images)

    @property
    def choice(self) -> Choice:
        """Which images, by whose word; steps of the same choice share a selection."""
        return self.images, self.classifier


@final
@dataclass(frozen=True, kw_only=True)
class Models:
    """The networks of a study by spec; several steps may share one.

    Attributes:
        classifiers: what is explained, and the oracles, which grade.
        generators: what draws.
    """

    classifiers: Mapping[str, Classifier]
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


def load_models(inputs: Sequence[StepInputs], *, allow_code: bool) -> Models:
    """Load the networks of all steps and check that those of each step fit each other.

    Raises:
        FailscapeError: if a spec names nothing, weights are broken, or `python:` was not allowed.
        ClassifierError: if an oracle has other classes or another image shape than the classifier it grades.
        GeneratorError: if a generator draws images of another shape than the classifier takes.
    """
    specs = dict.fromkeys(spec for each in inputs for spec in (each.classifier, each.oracle) if spec is not None)
    models = Models(
        classifiers={spec: load_classifier(spec, allow_code=allow_code) for spec in specs},
        generators={spec: load_generator(spec) for spec in dict.fromkeys(each.generator for each in inputs)},
    )
    for each in inputs:
        _check_fit(each, models)
    return models


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
    chosen: list[torch.Tensor] = []
    found = classified = correct = 0
    for batch in images.batches(batch_size(images)):
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


def draw_conditions(
    generator: Generator, classifier: Classifier, images: ImageSet | None, n: int, *, rng: torch.Generator
) -> Condition | None:
    """Return what a generator is asked for, so that it draws images such as it was trained on.

    A class and a score are drawn as those of its training images are distributed. Whole distributions are what the
    classifier says of real images, chosen at random: none can be drawn.

    Args:
        generator: is asked.
        classifier: whose distributions the generator was trained on.
        images: the real ones; None where they are not known.
        n: how many.
        rng: the source of every random draw.

    Returns:
        The conditions, or None for a generator that takes none.

    Raises:
        UnsupportedGenerator: if real images are needed, but not known.
    """
    space = generator.condition_space
    if space is None or space.score != VECTOR:
        return None if space is None else space.sample(n, rng=rng)
    if images is None:
        raise UnsupportedGenerator(
            f"Expected labelled images beside this {generator.family}, since it was trained on whole distributions and "
            "is asked for those of real images, but they are not known. Name a set of images in the study."
        )
    real = to_8_bits(images.read(torch.randint(len(images), (n,), generator=rng)))
    return Condition.of_distributions(classifier.probs(real))


def batch_size(images: ImageSet) -> int:
    """Return how many images to classify at once: at most 1000, and no more than fill 32 MiB."""
    channels, height, width = images.image_shape
    return min(1000, max(1, _BATCH_BYTES // (4 * channels * height * width)))


def select_for_steps(inputs: Sequence[StepInputs], models: Models) -> dict[Choice, Selection]:
    """Choose what each step explains, by what its own classifier says.

    Raises:
        FailscapeError: what `load_labelled` and `select` raise.
    """
    choices = dict.fromkeys(each.choice for each in inputs)
    loaded = {(images, spec): load_labelled(images, models.classifiers[spec]) for images, spec in choices}
    return {(images, spec): select(loaded[images, spec], models.classifiers[spec], images) for images, spec in choices}


def _spec(own: str | None, shared: ModelConfig | None) -> str | None:
    return shared.spec if own is None and shared is not None else own


def _check_fit(inputs: StepInputs, models: Models) -> None:
    classifier, generator = models.classifiers[inputs.classifier], models.generators[inputs.generator]
    if inputs.oracle is not None:
        oracle = models.classifiers[inputs.oracle]
        if oracle.class_names != classifier.class_names or oracle.image_shape != classifier.image_shape:
            raise ClassifierError(
                f"Expected an oracle of the same classes ({', '.join(classifier.class_names)}) and image shape "
                f"{classifier.image_shape} as {classifier.name}, but {oracle.name} has "
                f"{', '.join(oracle.class_names)} and {oracle.image_shape}. Train one on the same images."
            )
    require_drawn_for(classifier, generator, inputs.generator)


def require_drawn_for(classifier: Classifier, generator: Generator, spec: str) -> None:
    """Refuse a generator that draws images of another shape than the classifier takes.

    Raises:
        GeneratorError: naming its spec.
    """
    if generator.image_shape != classifier.image_shape:
        raise GeneratorError(
            f"Expected a generator of images of shape {classifier.image_shape}, as {classifier.name} takes them, but "
            f"{spec} draws {generator.image_shape}. Train one on the classifier's images."
        )


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
