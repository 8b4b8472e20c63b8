"""What a result shows: figures that save themselves as files, and that the report lays out by kind.

A `Plot` is one drawing. A `Gallery` is a list of cases, one an image, each with pictures, probabilities and,
where the result has them, a curve and a map. A `PictureMatrix` is a drawing whose cells lead to groups of pictures.
None knows which method it came from.
"""

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float, Int
from matplotlib.figure import Figure as Drawing
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Figure(ABC):
    """A figure of a result.

    Attributes:
        name: file name without ending, unique within the result.
        title: one line.
        caption: what is shown and how to read it, with the definition of every quantity.
    """

    name: str
    title: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Plot(Figure):
    """One drawing, made when asked for.

    Attributes:
        draw: returns a matplotlib figure.
    """

    draw: Callable[[], Drawing]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture of a case.

    Attributes:
        label: what it shows, in a word or two.
        pixels: `(C, H, W)`; in [0, 1], or in [-1, 1] when `signed`.
        signed: draw in a diverging colour map centred on zero.
    """

    label: str
    pixels: Float[Tensor, "C H W"]
    signed: bool = False


@dataclass(frozen=True, kw_only=True)
class LatentPlane:
    """A window of a two-dimensional latent space, with class areas, contours and a path.

    Attributes:
        classes: predicted class on a grid, rows along the second coordinate, from low to high.
        loss: cross-entropy to the target class on the same grid.
        extent: `(low_1, high_1, low_2, high_2)` of the grid in latent units.
        path: points of the search, in order; the first is the start, the last the solution.
        target: the class aimed at.
        first_success: index into `path` of the first point that succeeded, to be marked, if any.
    """

    classes: Int[Tensor, "R S"]
    loss: Float[Tensor, "R S"]
    extent: tuple[float, float, float, float]
    path: Float[Tensor, "T 2"]
    target: int
    first_success: int | None = None


@dataclass(frozen=True, kw_only=True)
class Line:
    """Curves over one axis, such as class probabilities along a path.

    Attributes:
        x: positions, shape `(T,)`.
        curves: name of each curve to its values in [0, 1], shape `(T,)`.
        x_label: what the axis is, with its unit.
    """

    x: Float[Tensor, " T"]
    curves: Mapping[str, Float[Tensor, " T"]]
    x_label: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image of a gallery and all that is shown of it.

    Attributes:
        id: the image's identifier in its set.
        heading: one line, such as "A 4 taken for a 9".
        verdict: one plain sentence: what was found, or why nothing was.
        good: whether it succeeded; failures are marked in words too, not by colour alone.
        panels: pictures from left to right; a signed one with the label of the picture before it stands under that one.
        probabilities: name of each column (such as "before", "after") to the K class probabilities.
        numbers: name of each quantity to its value as text; the gallery's `definitions` explain the names.
        line: curves, if any.
        plane: map of the latent plane, if the latent space has two dimensions.
    """

    id: str
    heading: str
    verdict: str
    good: bool
    panels: Sequence[Panel]
    probabilities: Mapping[str, Float[Tensor, " K"]] = field(default_factory=dict)
    numbers: Mapping[str, str] = field(default_factory=dict)
    line: Line | None = None
    plane: LatentPlane | None = None


@dataclass(frozen=True, kw_only=True)
class Gallery(Figure):
    """Cases, one an image.

    Attributes:
        class_names: K names, for the probabilities and the areas of the maps.
        cases: in the order to be shown.
        definitions: name of each number or panel to its definition.
    """

    class_names: tuple[str, ...]
    cases: Sequence[Case]
    definitions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PictureGroup:
    """Pictures that belong together, and what stands for them.

    Attributes:
        title: one line.
        note: what there is to say of them all, in plain sentences.
        cells: rows and columns of the matrix at which it stands; none for a group that is only listed below it.
        panels: the pictures, the most telling first, which stands for all; none where nothing was found.
        marks: for each picture a word or two of doubt, "" where there is none.
    """

    title: str
    note: str
    cells: Sequence[tuple[int, int]] = ()
    panels: Sequence[Panel] = ()
    marks: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class PictureMatrix(Plot):
    """A matrix whose cells lead to groups of pictures; where these cannot be opened its drawing shows what it can.

    Attributes:
        row_labels: from top to bottom.
        column_labels: from left to right.
        groups: in the order in which they are listed.
    """

    row_labels: Sequence[str]
    column_labels: Sequence[str]
    groups: Sequence[PictureGroup]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a result tells a reader who reads no further: one plain sentence and the picture that shows it.

    Attributes:
        sentence: complete, in plain words, with its number, such as "Noise makes it fail: …".
        panels: up to six pictures, from left to right, each with what the classifier says in its label.
    """

    sentence: str
    panels: Sequence[Panel] = ()


def percent(share: float) -> str:
    """Write a share as a sentence bears it, such as "97.5 %"; only none and all are 0 % and 100 %."""
    shown = min(max(100 * share, 0.1), 99.9) if 0 < share < 1 else 100 * share
    return f"{shown:.3g}\N{NO-BREAK SPACE}%"
