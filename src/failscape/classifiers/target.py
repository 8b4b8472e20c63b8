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
        SpecError: if a class is unknown or named twice, if some are given with shares and others without, or if the
            shares are no probabilities that sum to 1.

    Example:
        >>> target_distribution("cat=0.7,dog=0.3", ["cat", "cow", "dog"])
        tensor([0.7000, 0.0000, 0.3000])
    """
    names = tuple(class_names)
    if isinstance(target, str):
        target = _parsed(target, names)
    for name, share in target.items():
        if name not in names:
            raise SpecError(
                f"Expected classes among {', '.join(map(repr, names))}, but got {name!r}. Name one of these."
            )
        if isinstance(share, bool) or not isinstance(share, Real):
            raise SpecError(
                f"Expected the share of a class as a number, such as {{{name!r}: 0.7}}, but got {share!r} for {name!r}."
                " Give a number from 0 to 1."
            )
        if not share >= 0:
            raise SpecError(
                f"Expected shares from 0 to 1, but got {share:g} for {name!r}. Leave out a class that is not wanted."
            )
    total = sum(target.values())
    if not abs(total - 1) <= _TOLERANCE:
        given = ", ".join(f"{name} = {share:g}" for name, share in target.items()) or "none"
        cure = "Divide each by the sum." if 0 < total < float("inf") else f"Give one, such as {{{names[0]!r}: 1.0}}."
        raise SpecError(f"Expected shares that sum to 1, but got {given}, which sum to {total:g}. {cure}")
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
    with_shares = [part for part in parts if part not in names and "=" in part]
    if with_shares and len(with_shares) < len(parts):
        (without, *_) = (part for part in parts if part not in with_shares)
        raise SpecError(
            f"Expected a share for each class of a target, or for none, but got {with_shares[0]!r} and {without!r} in "
            f"{text!r}. Write {without}=SHARE."
        )
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
