"""The distribution over classes that an image is wanted to have."""

from collections.abc import Mapping, Sequence
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor

from failscape.errors import SpecError

UNIFORM = "uniform"

_TOLERANCE = 1e-3


def target_distribution(target: str | Mapping[str, float], class_names: Sequence[str]) -> Float[Tensor, " K"]:
    """Return the distribution over the classes that a person means.

    Args:
        target: the name of a class, for certainty; names with commas between them, for equal shares; names with their
            shares, as a mapping or as `3=0.7,8=0.3`; or `uniform`.
        class_names: the K classes.

    Raises:
        SpecError: if a class is unknown or named twice, or the shares are no probabilities that sum to 1.

    Example:
        >>> target_distribution("cat=0.7,dog=0.3", ["cat", "cow", "dog"])
        tensor([0.7000, 0.0000, 0.3000])
    """
    names = tuple(class_names)
    if isinstance(target, str):
        target = _parsed(target, names)
    unknown = [name for name in target if name not in names]
    if unknown:
        raise SpecError(f"Expected classes among {', '.join(names)}, but got {unknown[0]!r}. Name one of these.")
    for name, share in target.items():
        if isinstance(share, bool) or not isinstance(share, Real):
            raise SpecError(
                f"Expected the share of a class as a number, such as {{{name!r}: 0.7}}, but got {share!r} for {name!r}."
                " Give a number from 0 to 1."
            )
    shares = list(target.values())
    if not shares or min(shares) < 0 or not abs(sum(shares) - 1) <= _TOLERANCE:
        given = ", ".join(f"{name} = {share:g}" for name, share in target.items())
        raise SpecError(
            f"Expected shares of at least 0 that sum to 1, but got {given}, which sum to {sum(shares):g}. Divide each "
            "by the sum."
        )
    distribution = torch.zeros(len(names), dtype=torch.float64)
    for name, share in target.items():
        distribution[names.index(name)] = share
    return (distribution / distribution.sum()).float()


def _parsed(text: str, names: tuple[str, ...]) -> Mapping[str, float]:
    # First, since a class may have any name.
    if text in names:
        return {text: 1.0}
    if text == UNIFORM:
        return dict.fromkeys(names, 1 / len(names))
    parts = [part.strip() for part in text.split(",")]
    shares: dict[str, float] = {}
    for part in parts:
        name, equals, share = part.rpartition("=")
        if part in names or not equals:
            name, value = part, 1 / len(parts)
        else:
            try:
                name, value = name.strip(), float(share)
            except ValueError:
                raise SpecError(
                    f"Expected the share of a class as a number, such as 3=0.7, but got {part!r} in {text!r}."
                ) from None
        if name in shares:
            raise SpecError(f"Expected each class once in a target, but got {name!r} twice in {text!r}.")
        shares[name] = value
    return shares
