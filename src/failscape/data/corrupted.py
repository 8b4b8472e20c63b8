"""A set whose images are corrupted as they are read, all of them or one half, after a short recipe."""

import hashlib
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from failscape.data.corruptions import CORRUPTIONS, DETERMINISTIC, SEVERITIES, corrupt
from failscape.data.ids import RepeatedIds
from failscape.data.images import ImageSet, Source
from failscape.errors import DataError, SpecError

MAX_DRAWS = 100

_T = TypeVar("_T")


@dataclass(frozen=True)
class Step:
    """One corruption of an image; its kind and severity are drawn from these, all alike probable."""

    kinds: tuple[str, ...]
    severities: tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """How the images of a set are corrupted.

    Attributes:
        name: as it stands in a spec and in the names of sets.
        which: all images, a random half, or the second half in the order of the set.
        steps: one after the other.
    """

    name: str
    which: Literal["all", "random half", "second half"]
    steps: tuple[Step, ...]

    @property
    def is_random(self) -> bool:
        """Whether two draws differ."""
        drawn = self.which == "random half" or any(len(step.kinds) * len(step.severities) > 1 for step in self.steps)
        return drawn or any(kind not in DETERMINISTIC for step in self.steps for kind in step.kinds)


# Le Coz et al., "Explaining an image classifier with a generative model conditioned by uncertainty".
HALF_CORRUPTED = Recipe(
    "half-corrupted", "random half", (Step(kinds=("gaussian_blur", "gaussian_noise"), severities=SEVERITIES),)
)
# Le Coz et al., "Leveraging generative models to characterize the failure conditions of image classifiers", 3.1.
HALF_BLURRED_AND_NOISED = Recipe(
    "half-blurred-and-noised",
    "second half",
    (Step(kinds=("gaussian_blur",), severities=(1, 2, 3)), Step(kinds=("gaussian_noise",), severities=(1, 2, 3))),
)
RECIPES = {recipe.name: recipe for recipe in (HALF_CORRUPTED, HALF_BLURRED_AND_NOISED)}


class Corrupted:
    """Corrupts images as they are read.

    Which half is corrupted depends on the seed, the draw and the number of images; how an image is corrupted,
    on the seed, the draw and its index. So reading is lazy, repeatable, and the same in whatever order and
    batches. Corrupted images are rounded to 8 bits.

    Args:
        source: the N clean images.
        recipe: what is done to them.
        draws: how many times the set occurs, each time corrupted anew: image i of draw d has index d N + i.
            The first draw does not depend on how many there are.
        seed: of all draws.
    """

    def __init__(self, source: Source, recipe: Recipe, *, draws: int = 1, seed: int = 0) -> None:
        self._source = source
        self._recipe = recipe
        self._seeds = [str(seed), *(f"{seed} draw {draw}" for draw in range(1, draws))]
        self.image_shape = source.image_shape
        self._chosen = torch.zeros(draws, len(source), dtype=torch.bool)
        half = len(source) // 2
        if recipe.which == "all":
            self._chosen[:] = True
        elif recipe.which == "second half":
            self._chosen[:, len(source) - half :] = True
        else:
            for draw, chosen in enumerate(self._chosen):
                rng = torch.Generator().manual_seed(_hash(self._seeds[draw]) if draw else seed)
                chosen[torch.randperm(len(source), generator=rng)[:half]] = True

    def __len__(self) -> int:
        return self._chosen.numel()

    def corruptions_of(self, index: int) -> tuple[tuple[str, int], ...]:
        """Return the names and severities of an image's corruptions; none if it is clean."""
        return self._draw(index)[0] if self._chosen.flatten()[index] else ()

    def read(self, indices: Int[Tensor, " N"]) -> Float[Tensor, "N C H W"]:
        """Read images, corrupted where they are to be."""
        x = self._source.read(indices % len(self._source)).clone()
        corrupted = self._chosen.flatten()[indices].nonzero().flatten()
        drawn = {
            row: self._draw(index) for row, index in zip(corrupted.tolist(), indices[corrupted].tolist(), strict=True)
        }
        for step in range(len(self._recipe.steps)):
            groups: dict[tuple[str, int], list[int]] = {}
            for row, (corruptions, _) in drawn.items():
                groups.setdefault(corruptions[step], []).append(row)
            for (name, severity), rows in groups.items():
                x[rows] = _corrupt_each(x[rows], name, severity, [drawn[row][1] for row in rows])
        x[corrupted] = (x[corrupted] * 255).round() / 255
        return x

    def _draw(self, index: int) -> tuple[tuple[tuple[str, int], ...], torch.Generator]:
        """Draw an image's corruptions; return them with the generator for what else they draw."""
        draw, image = divmod(index, len(self._source))
        rng = torch.Generator().manual_seed(_hash(f"{self._seeds[draw]} {image}"))
        return tuple((_pick(step.kinds, rng), _pick(step.severities, rng)) for step in self._recipe.steps), rng


def _corrupt_each(x: Tensor, name: str, severity: int, rngs: list[torch.Generator]) -> Tensor:
    """Corrupt each image with its own generator, so that it does not depend on those read with it."""
    if name in DETERMINISTIC:
        return corrupt(x, name, severity=severity, rng=rngs[0])
    return torch.cat(
        [corrupt(image[None], name, severity=severity, rng=rng) for image, rng in zip(x, rngs, strict=True)]
    )


def _pick(options: tuple[_T, ...], rng: torch.Generator) -> _T:
    return options[int(torch.randint(len(options), (), generator=rng))] if len(options) > 1 else options[0]


def _hash(text: str) -> int:
    """Return a seed that has nothing to do with that of another text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def corrupted(images: ImageSet, recipe: Recipe, *, draws: int = 1) -> ImageSet:
    """Return the set with its images corrupted after a recipe, `draws` times one after the other.

    Labels and class names stay. So do the ids of the first draw; those of the others end in `-draw2`, `-draw3`, ….

    Raises:
        DataError: if the number of draws is not from 1 to 100, the draws would all be the same, or the second half
            is to be corrupted of a set that is sorted by class.
    """
    if not 1 <= draws <= MAX_DRAWS:
        raise DataError(f"Expected from 1 to {MAX_DRAWS} draws of {recipe.name}, but got {draws}.")
    if draws > 1 and not recipe.is_random:
        raise DataError(f"Expected 1 draw of {recipe.name}, which draws nothing at random, but got {draws}.")
    is_sorted = len(images.y.unique()) > 1 and bool((images.y.diff() >= 0).all())
    if recipe.which == "second half" and is_sorted:
        raise DataError(
            f"Expected images of mixed classes for {recipe.name}, which corrupts the second half in the order of the "
            f"set, but {images.name} is sorted by class, so that only its last classes would be corrupted. Shuffle it, "
            f"or use {HALF_CORRUPTED.name}."
        )
    return ImageSet(
        Corrupted(images, recipe, draws=draws),
        images.y.repeat(draws),
        images.class_names,
        ids=RepeatedIds(images.ids, draws),
        name=f"{images.name}+{recipe.name}{f'*{draws}' if draws > 1 else ''}",
    )


def parse_recipe(text: str) -> tuple[Recipe, int]:
    """Return the recipe and the number of draws that follow the `+` of a spec.

    Args:
        text: `RECIPE` or `CORRUPTION@SEVERITY`, and `*DRAWS` if wanted.

    Raises:
        SpecError: if it is something else.

    Example:
        >>> recipe, draws = parse_recipe("half-corrupted*4")
        >>> recipe.which, draws
        ('random half', 4)
    """
    parts = re.fullmatch(r"(?P<name>[^@*]*)(@(?P<severity>[^@*]*))?(\*(?P<draws>[^@*]*))?", text)
    if parts is None:
        raise SpecError(
            f"Expected RECIPE or CORRUPTION@SEVERITY after +, and then *DRAWS if wanted, but got {text!r}. "
            "Write it as in mnist+gaussian_noise@3*4."
        )
    recipe = _recipe(parts["name"], parts["severity"])
    if parts["draws"] is None:
        return recipe, 1
    if not re.fullmatch("[0-9]{1,9}", parts["draws"]) or not 1 <= int(parts["draws"]) <= MAX_DRAWS:
        raise SpecError(
            f"Expected a number of draws from 1 to {MAX_DRAWS} after *, but got {parts['draws']!r}. "
            f"Write it as in +{recipe.name}*4."
        )
    draws = int(parts["draws"])
    if draws > 1 and not recipe.is_random:
        raise SpecError(
            f"Expected 1 draw of {recipe.name}, which draws nothing at random, but got {draws}. Leave *{draws} out."
        )
    return recipe, draws


def _recipe(name: str, severity: str | None) -> Recipe:
    if name in RECIPES:
        if severity is not None:
            raise SpecError(
                f"Expected {name} without a severity, since it draws one for each image, but got {severity!r}. "
                f"Leave @{severity} out."
            )
        return RECIPES[name]
    if name not in CORRUPTIONS:
        names = [*RECIPES, *CORRUPTIONS]
        close = get_close_matches(name, names, n=2)
        advice = f"Did you mean {' or '.join(close)}?" if close else "Check the spelling."
        raise SpecError(
            f"Expected {', '.join(RECIPES)}, or one of {', '.join(CORRUPTIONS)} with its severity, as in "
            f"gaussian_blur@3, after +, but got {name!r}. {advice}"
        )
    if severity is None or severity not in map(str, SEVERITIES):
        raise SpecError(
            f"Expected a severity from 1 to 5 after {name}, but got {severity or 'none'}. Write it as in +{name}@3."
        )
    return Recipe(f"{name}@{severity}", "all", (Step((name,), (int(severity),)),))
