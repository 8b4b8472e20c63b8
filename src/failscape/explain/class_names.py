"""Classes that a method is told by name."""

import difflib
from collections.abc import Sequence

from failscape.errors import LabelError


def class_numbers(names: Sequence[str], class_names: tuple[str, ...], *, setting: str) -> list[int]:
    """Return the numbers of classes, each once, in the order in which they were named.

    Args:
        names: of some classes.
        class_names: of all that the classifier knows.
        setting: what the user named them in.

    Raises:
        LabelError: if the classifier knows no class of such a name.

    Example:
        >>> class_numbers(["dog", "cat"], ("cat", "cow", "dog"), setting="classes")
        [2, 0]
    """
    for name in names:
        if name not in class_names:
            near = difflib.get_close_matches(name, class_names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else " Name classes of the classifier."
            raise LabelError(f"Expected `{setting}` among {', '.join(class_names)}, but got {name}.{hint}")
    return [class_names.index(name) for name in dict.fromkeys(names)]
