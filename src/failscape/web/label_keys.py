"""Which key gives which class."""

import string
from collections.abc import Sequence

_DIGITS = "1234567890"
# U takes back a label.
_LETTERS = string.ascii_lowercase.replace("u", "")


def label_keys(class_names: Sequence[str]) -> tuple[str, ...]:
    """Return a key for each class, "" for those beyond the last key.

    Classes that are called by one digit or letter each have that key. Others have 1 to 9, 0, and then the letters.

    Example:
        >>> label_keys(["cat", "dog"])
        ('1', '2')
        >>> label_keys(["0", "1", "2"])
        ('0', '1', '2')
    """
    own = [name.lower() for name in class_names]
    known = _DIGITS + _LETTERS
    if len(set(own)) == len(own) and all(len(name) == 1 and name in known for name in own):
        return tuple(own)
    return tuple([*known, *[""] * max(0, len(own) - len(known))][: len(own)])
