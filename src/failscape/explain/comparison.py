"""What methods that compare classifiers have in common."""

from collections.abc import Sequence

from failscape.classifiers import Classifier
from failscape.errors import ClassifierError


def require_same_task(classifier: Classifier, others: Sequence[Classifier]) -> None:
    """Refuse classifiers that cannot be compared with the one that is explained.

    Raises:
        ClassifierError: if one takes other images or knows other classes.
    """
    for other in others:
        if other.image_shape != classifier.image_shape or other.class_names != classifier.class_names:
            raise ClassifierError(
                f"Expected classifiers of the same images and classes, to compare them, but {classifier.name} takes "
                f"{classifier.image_shape} and has {classifier.class_names}, and {other.name} takes "
                f"{other.image_shape} and has {other.class_names}. Compare classifiers of one task, with the same "
                "class names."
            )


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names, with a number after each one that has occurred before."""
    return tuple(
        name if name not in names[:i] else f"{name} ({names[:i].count(name) + 1})" for i, name in enumerate(names)
    )
