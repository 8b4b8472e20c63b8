"""Centroid paths: what is met on the way from class a to class b?"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from failscape.classifiers import Classifier
from failscape.errors import LabelError, UnsupportedGenerator
from failscape.explain.centroid_path_result import CentroidPathResult
from failscape.explain.class_names import class_numbers
from failscape.explain.method import Method, to_8_bits
from failscape.generators import Generator, StyleGenerator, require_autoencoder
from failscape.search import label_changes

Way = Literal["straight", "great-circle", "both"]

_BATCH = 500
# Of the search for several centroids of a class; it settles long before.
_ROUNDS = 30
# Directions that are nearer to each other, or to opposite, than this have no one great circle through them.
_PARALLEL = 1e-6


@final
class CentroidPath(Method[CentroidPathResult]):
    r"""What is met on the way from class a to class b?

    The centroid of a class is the centre of mass of the latents that the generator's encoder gives the images of the
    class. On the way from one to the other every image is classified, as an 8-bit image, at evenly spaced points;
    where the verdict changes between two of them, the place is bisected. Two ways are known:

    - *straight*, $z(t) = (1 - t) \, a + t \, b$, which leads nearer to the middle of the prior than its ends lie;
    - *great-circle*, about the origin, $z(t) = r(t) \, \frac{\sin((1 - t) \theta) \, \hat a + \sin(t \theta) \, \hat b}
      {\sin \theta}$ with the angle $\theta$ between a and b and $r(t) = (1 - t) \|a\| + t \|b\|$, which does not. Where
      a and b lie on one line through the origin it is the straight way.

    A generator with styles is travelled in W, whose points hold the class that it was asked for; W has no middle to
    keep away from, so only the straight way is known there.

    Args:
        pairs: names of the classes to go from and to; by default every pair of those that the images have.
        way: which ways to go.
        centroids: of each class; several are the centres of its latents in as many groups (k-means), and each is led
            to each of the other class.
        samples: images of each class of a pair from which a way to the centroid of the other is gone too.
        points: at which each way is looked at, both ends included.
        tolerance: the widest part of a way between the two sides of a change.
        shown: ways of which there is a figure each; first come those at whose ends the classifier says the two
            classes, with most of a third between them.

    Raises:
        ValueError: if a setting is out of its range.
        LabelError: if a class is unknown or has no images, or the images are of fewer than two classes.
        UnsupportedGenerator: if the generator has no encoder, or no way of that kind.

    Example:
        >>> result = CentroidPath(pairs=(("4", "7"),))(classifier, vae, x, y, rng=torch.Generator().manual_seed(0))
        >>> result.table["met"].to_pylist()
        ['4 → 9 → 7']

    References:
        "Synthetic Data Generation To Better Perceive Classifier Predictions", section 4.3, figures 8 and 9.
        Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985: the great circle.
    """

    result_type: ClassVar[type[CentroidPathResult]] = CentroidPathResult

    def __init__(
        self,
        *,
        pairs: Sequence[tuple[str, str]] | None = None,
        way: Way = "straight",
        centroids: int = 1,
        samples: int = 0,
        points: int = 33,
        tolerance: float = 1e-5,
        shown: int = 3,
    ) -> None:
        if way not in ("straight", "great-circle", "both"):
            raise ValueError(f"Expected `way` to be 'straight', 'great-circle' or 'both', but got {way!r}.")
        if centroids < 1 or samples < 0 or points < 2 or shown < 0:
            raise ValueError(
                "Expected `centroids` of at least 1, `points` of at least 2, and `samples` and `shown` of at least 0, "
                f"but got {centroids}, {points}, {samples}, {shown}."
            )
        if not 0 < tolerance < 1:
            raise ValueError(f"Expected `tolerance` between 0 and 1, but got {tolerance}.")
        if pairs is not None and (not pairs or not all(_is_pair(pair) for pair in pairs)):
            raise ValueError(
                "Expected `pairs` of two different classes each, at least one, but got "
                f'{pairs!r}. Put each pair in brackets of its own, such as (("4", "7"),).'
            )
        self.pairs = None if pairs is None else tuple((first, second) for first, second in pairs)
        self.way = way
        self.centroids = centroids
        self.samples = samples
        self.points = points
        self.tolerance = tolerance
        self.shown = shown

    @torch.no_grad()
    def run(
        self,
        classifier: Classifier,
        generator: Generator,
        x: Float[Tensor, "N C H W"],
        y: Int[Tensor, " N"],
        *,
        ids: tuple[str, ...],
        rng: torch.Generator,
    ) -> CentroidPathResult:
        """Find the centroids, look at every way, and bisect where the verdict changes."""
        space = _Space(generator)
        circles = {"straight": (False,), "great-circle": (True,), "both": (False, True)}[self.way]
        if any(circles) and space.styled:
            raise UnsupportedGenerator(
                "Expected a generator whose latents lie around a middle, for the great-circle way, but "
                f"{type(generator).__name__} is travelled in W. Go the straight way."
            )
        pairs = self._pairs(classifier, y)
        latents = space.encode(x, y)
        found = {k: _centres(latents[y == k], self.centroids, rng) for k in sorted({k for pair in pairs for k in pair})}
        starts = {k: (y == k).nonzero()[: self.samples, 0] for k in found}
        ways = _ways(pairs, latents, found, starts, circles)

        def drawn(position: Tensor, way: Tensor) -> Tensor:
            parts = zip(position.split(_BATCH), way.split(_BATCH), strict=True)
            images = [space.draw(ways.at(where, row).float()) for where, row in parts]
            return torch.cat(images) if images else x[:0]

        position = torch.linspace(0, 1, self.points, dtype=torch.float64)
        count = len(ways.first)
        scanned = drawn(position.repeat(count), torch.arange(count).repeat_interleave(self.points))
        verdicts = classifier.predict(scanned).view(count, self.points)
        changes = label_changes(
            lambda t, way: classifier.predict(drawn(t, way)), position, verdicts, tolerance=self.tolerance
        )
        sides = torch.stack([changes.low, changes.high], dim=1).flatten()
        return CentroidPathResult(
            images=torch.cat([scanned, drawn(sides, changes.line.repeat_interleave(2))]),
            ids=_names(ways, classifier.class_names, ids, several=self.centroids > 1),
            position=position,
            first=ways.first,
            second=ways.second,
            sample=ways.sample,
            great_circle=ways.great_circle,
            length=ways.lengths(position),
            change_path=changes.line,
            change_low=changes.low,
            change_high=changes.high,
            change_before=changes.before,
            change_after=changes.after,
            shown=self.shown,
            class_names=classifier.class_names,
        )

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Refuse `pairs` of classes that the classifier does not know."""
        class_numbers(self._named, class_names, setting="pairs")

    @property
    def _named(self) -> list[str]:
        return [name for pair in self.pairs or () for name in pair]

    def _pairs(self, classifier: Classifier, y: Int[Tensor, " N"]) -> list[tuple[int, int]]:
        names = classifier.class_names
        present = sorted(set(y.tolist()))
        if len(present) < 2:
            raise LabelError(
                f"Expected images of at least two classes, to go from one to another, but all {len(y)} are of "
                f"{names[present[0]]!r}. Give images of more classes."
            )
        if self.pairs is None:
            return list(combinations(present, 2))
        for k in class_numbers(self._named, names, setting="pairs"):
            if k not in present:
                raise LabelError(
                    f"Expected images of {names[k]!r}, to find its centroid, but there are none among {len(y)}. Give "
                    "some, or leave the class out."
                )
        return [(names.index(first), names.index(second)) for first, second in dict.fromkeys(self.pairs)]


def _is_pair(value: object) -> bool:
    """Return whether a value is two different names; a text is none, though it may have two letters."""
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(name, str) for name in value)
        and value[0] != value[1]
    )


class _Space:
    """The latents between which ways are gone.

    Attributes:
        styled: whether they are the intermediate ones of a generator with styles.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = require_autoencoder(generator, "centroid paths")
        self.styled = isinstance(generator, StyleGenerator)
        if not self.styled and generator.condition_space is not None:
            raise UnsupportedGenerator(
                "Expected a generator without condition, or one with styles, for centroid paths, but this "
                f"{generator.family} takes the class from its condition and not from its latents. Train one without: "
                "`failscape train vae`."
            )

    def encode(self, x: Float[Tensor, "N C H W"], y: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Return the latent of each image."""
        return torch.cat([self._latents(*part) for part in zip(x.split(_BATCH), y.split(_BATCH), strict=True)])

    def draw(self, latents: Float[Tensor, "N D"]) -> Float[Tensor, "N C H W"]:
        """Return the 8-bit image of each latent."""
        generator = self._generator
        if isinstance(generator, StyleGenerator):
            return to_8_bits(generator.synthesize(generator.styles(latents)))
        return to_8_bits(generator(latents))

    def _latents(self, x: Tensor, y: Tensor) -> Tensor:
        generator, z = self._generator, self._generator.encode(x)
        if not isinstance(generator, StyleGenerator):
            return z
        space = generator.condition_space
        return generator.mapping(z, None if space is None else space.of_classes(y))


@dataclass(frozen=True, kw_only=True)
class _Ways:
    """Ways between latents, in float64, since their places are bisected.

    Attributes:
        start: where each begins.
        end: where it ends.
        first: class at the start.
        second: class at the end.
        sample: number of the image that it begins at, or -1 for a centroid.
        centre: numbers of the centroids that it begins and ends at.
        great_circle: whether it follows the great circle.
    """

    start: Float[Tensor, "L D"]
    end: Float[Tensor, "L D"]
    first: Int[Tensor, " L"]
    second: Int[Tensor, " L"]
    sample: Int[Tensor, " L"]
    centre: Int[Tensor, "L 2"]
    great_circle: Bool[Tensor, " L"]

    def at(self, position: Float[Tensor, " M"], way: Int[Tensor, " M"]) -> Float[Tensor, "M D"]:
        """Return the latents at positions from 0 to 1 on ways."""
        a, b = self.start[way], self.end[way]
        t = position[:, None]
        straight = (1 - t) * a + t * b
        length_a, length_b = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
        toward_a, toward_b = a / length_a.clamp_min(1e-12), b / length_b.clamp_min(1e-12)
        angle = (toward_a * toward_b).sum(dim=1, keepdim=True).clamp(-1, 1).acos()
        sine = angle.sin()
        turned = (((1 - t) * angle).sin() * toward_a + (t * angle).sin() * toward_b) / sine.clamp_min(_PARALLEL)
        circle = ((1 - t) * length_a + t * length_b) * turned
        return torch.where(self.great_circle[way][:, None] & (sine > _PARALLEL), circle, straight)

    def lengths(self, position: Float[Tensor, " T"]) -> Float[Tensor, " L"]:
        """Return the length of each way, in latent units, by the steps between the positions."""
        count = len(self.first)
        rows = torch.arange(count).repeat_interleave(len(position))
        points = self.at(position.repeat(count), rows).unflatten(0, (count, -1))
        length: Tensor = points.diff(dim=1).norm(dim=2).sum(dim=1)
        return length


def _ways(
    pairs: Sequence[tuple[int, int]],
    latents: Float[Tensor, "N D"],
    centroids: dict[int, Float[Tensor, "J D"]],
    starts: dict[int, Int[Tensor, " S"]],
    circles: Sequence[bool],
) -> _Ways:
    """Return, for every pair and kind of way, those between centroids, and then those from samples of either class."""
    rows: list[tuple[Tensor, Tensor, int, int, int, tuple[int, int], bool]] = []
    for first, second in pairs:
        # From samples of the second class, too, unless that is a pair of its own.
        back = [] if (second, first) in pairs else [(second, first)]
        for circle in circles:
            for j, end in enumerate(centroids[second]):
                for i, start in enumerate(centroids[first]):
                    rows.append((start, end, first, second, -1, (i, j), circle))
            for origin, aim in [(first, second), *back]:
                for j, end in enumerate(centroids[aim]):
                    for number in starts[origin].tolist():
                        rows.append((latents[number], end, origin, aim, number, (-1, j), circle))
    start, end, first_class, second_class, sample, centre, circle_row = zip(*rows, strict=True)
    return _Ways(
        start=torch.stack(start).double(),
        end=torch.stack(end).double(),
        first=torch.tensor(first_class),
        second=torch.tensor(second_class),
        sample=torch.tensor(sample),
        centre=torch.tensor(centre),
        great_circle=torch.tensor(circle_row),
    )


def _names(ways: _Ways, class_names: Sequence[str], ids: Sequence[str], *, several: bool) -> tuple[str, ...]:
    names = []
    for first, second, sample, (i, j), circle in zip(
        ways.first.tolist(),
        ways.second.tolist(),
        ways.sample.tolist(),
        ways.centre.tolist(),
        ways.great_circle.tolist(),
        strict=True,
    ):
        start = f"{class_names[first]}{f' ({i + 1})' if several else ''}" if sample < 0 else f"image {ids[sample]}"
        end = f"{class_names[second]}{f' ({j + 1})' if several else ''}"
        names.append(f"{start} → {end}{', great circle' if circle else ''}")
    return tuple(names)


def _centres(z: Float[Tensor, "N D"], count: int, rng: torch.Generator) -> Float[Tensor, "J D"]:
    """Return the centre of mass of latents, or the centres of as many groups of them as there can be.

    References:
        Lloyd, "Least squares quantization in PCM", 1982. Arthur and Vassilvitskii, "k-means++", SODA 2007: the start.
    """
    if count == 1:
        return z.mean(dim=0, keepdim=True)
    centres = z[torch.randint(len(z), (1,), generator=rng)]
    for _ in range(min(count, len(z)) - 1):
        squared = torch.cdist(z, centres).amin(dim=1).square()
        if not squared.any():
            break
        centres = torch.cat([centres, z[torch.multinomial(squared, 1, generator=rng)]])
    for _ in range(_ROUNDS):
        nearest = torch.cdist(z, centres).argmin(dim=1)
        # A group that has lost all its latents keeps its centre.
        moved = [z[nearest == j].mean(dim=0) if (nearest == j).any() else centre for j, centre in enumerate(centres)]
        if torch.equal(torch.stack(moved), centres):
            break
        centres = torch.stack(moved)
    return centres
