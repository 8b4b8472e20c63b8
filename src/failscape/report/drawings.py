"""Curves and latent planes as geometry for inline SVG: a gallery has hundreds, too many for matplotlib."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import contourpy
import numpy as np
from jaxtyping import Float
from matplotlib.colors import to_rgb
from PIL import Image

from failscape.figures import LatentPlane, Line
from failscape.figures.colours import class_tint
from failscape.figures.planes import LOSS_LEVELS, area_labels
from failscape.report.wording import number

PLANE_WIDTH = 320.0
LINE_WIDTH, LINE_HEIGHT = 360.0, 170.0

# A curve that never reaches this is drawn without a name: ten classes would bury the two that matter.
_NOTABLE = 0.05
_LABEL_HEIGHT = 13.0
# A bold letter of 12 pixels is about so wide.
_LETTER_WIDTH = 7.5
_SMALLEST_ROOM = 48.0
_LABEL_ROOM = 24.0
# Pixels of the drawing; finer detail of a contour cannot be seen and would only make the file large.
_CONTOUR_DETAIL = 1.5


@final
@dataclass(frozen=True)
class PlaneDrawing:
    """A latent plane in the coordinates of its drawing; the second coordinate points up, so y is turned over.

    Attributes:
        height: of the drawing, whose width is `PLANE_WIDTH`.
        areas: class areas as a PNG data URI.
        areas_box: x, y, width and height of that picture, which reaches half a grid step over each edge.
        names: class name, x, y.
        contours: level ("" where there is no room for it), `d` of an SVG path, and where to write the level.
        path: `points` of an SVG polyline.
        start, end, success: points; `success` may be missing.
        extent: the ends of both axes as text.
        target: name of the class aimed at.
        described: the drawing in words.
    """

    height: float
    areas: str
    areas_box: tuple[float, float, float, float]
    names: list[tuple[str, float, float]]
    contours: list[tuple[str, str, float, float]]
    path: str
    start: tuple[float, float]
    end: tuple[float, float]
    success: tuple[float, float] | None
    extent: tuple[str, str, str, str]
    target: str
    described: str


@final
@dataclass(frozen=True)
class LineDrawing:
    """Curves in the coordinates of their drawing.

    Attributes:
        curves: name ("" if not notable), `points` of an SVG polyline, height of the label at the right end.
        room: to be kept free for the labels.
        ends: the ends of the horizontal axis as text.
        x_label: what that axis is.
        described: the drawing in words.
    """

    curves: list[tuple[str, str, float]]
    room: float
    ends: tuple[str, str]
    x_label: str
    described: str


def draw_plane(plane: LatentPlane, class_names: Sequence[str]) -> PlaneDrawing:
    """Lay out a latent plane."""
    low_1, high_1, low_2, high_2 = plane.extent
    rows, columns = plane.classes.shape
    height = float(np.clip(PLANE_WIDTH * (high_2 - low_2) / (high_1 - low_1), PLANE_WIDTH / 2, PLANE_WIDTH * 1.25))

    def place(points: Float[np.ndarray, "T 2"]) -> Float[np.ndarray, "T 2"]:
        across = (points[:, 0] - low_1) / (high_1 - low_1) * PLANE_WIDTH
        down = (high_2 - points[:, 1]) / (high_2 - low_2) * height
        return np.stack([across, down], axis=1)

    step_x, step_y = PLANE_WIDTH / max(1, columns - 1), height / max(1, rows - 1)
    names = [
        (class_names[label], round(column * step_x, 1), round(height - row * step_y, 1))
        for label, row, column in area_labels(plane)
    ]
    path = place(plane.path.detach().cpu().double().numpy())
    success = None if plane.first_success is None else _point(path[plane.first_success])
    start, end = (class_names[int(_class_at(plane, path, i, height))] for i in (0, -1))
    return PlaneDrawing(
        height=round(height, 1),
        areas=data_uri(_areas_png(plane)),
        areas_box=(-step_x / 2, -step_y / 2, PLANE_WIDTH + step_x, height + step_y),
        names=names,
        contours=_contours(plane, height),
        path=_points(path),
        start=_point(path[0]),
        end=_point(path[-1]),
        success=success,
        extent=(number(low_1), number(high_1), number(low_2), number(high_2)),
        target=class_names[plane.target],
        described=(
            f"Latent plane. The search starts in the area of class {start} and ends in that of class {end}; "
            f"it aimed at class {class_names[plane.target]}."
        ),
    )


def draw_line(line: Line) -> LineDrawing:
    """Lay out curves; those that matter are named at the right end, moved apart if they would overlap."""
    x = line.x.detach().cpu().double().numpy()
    span = float(x.max() - x.min()) or 1.0
    across = (x - x.min()) / span * LINE_WIDTH
    curves = {name: values.detach().cpu().double().numpy() for name, values in line.curves.items()}
    notable = {name: values for name, values in curves.items() if np.nanmax(values) >= _NOTABLE}
    heights = _spread({name: (1 - float(values[-1])) * LINE_HEIGHT for name, values in notable.items()})
    drawn = [
        (
            name if name in notable else "",
            _points(np.stack([across, (1 - np.clip(values, 0, 1)) * LINE_HEIGHT], axis=1)),
            round(heights.get(name, 0.0), 1),
        )
        for name, values in sorted(curves.items(), key=lambda curve: -float(np.nanmax(curve[1])))
    ]
    words = "; ".join(f"{name} from {values[0]:.2f} to {values[-1]:.2f}" for name, values in notable.items())
    return LineDrawing(
        curves=drawn,
        room=max(_SMALLEST_ROOM, *(10 + _LETTER_WIDTH * len(name) for name, _, _ in drawn)),
        ends=(number(float(x.min())), number(float(x.max()))),
        x_label=line.x_label,
        described=f"Curves over {line.x_label}: {words}.",
    )


def data_uri(content: bytes, kind: str = "png") -> str:
    """Return a picture as a data URI."""
    mime = "svg+xml" if kind == "svg" else kind
    return f"data:image/{mime};base64,{base64.b64encode(content).decode()}"


def _areas_png(plane: LatentPlane) -> bytes:
    """Encode the class areas in tints with thin grey borders, a palette picture of one byte a pixel."""
    present, indices = np.unique(np.flipud(plane.classes.numpy()), return_inverse=True)
    finer = max(1, round(PLANE_WIDTH / max(plane.classes.shape)))
    shown = indices.reshape(plane.classes.shape).repeat(finer, axis=0).repeat(finer, axis=1)
    border = np.zeros(shown.shape, dtype=bool)
    border[:-1] |= shown[:-1] != shown[1:]
    border[:, :-1] |= shown[:, :-1] != shown[:, 1:]
    colours = [to_rgb(class_tint(int(label))) for label in present] + [to_rgb("#8c8c8c")]
    picture = Image.fromarray(np.where(border, len(present), shown).astype(np.uint8))
    picture.putpalette([round(255 * part) for colour in colours for part in colour])
    target = io.BytesIO()
    picture.save(target, format="PNG", optimize=True)
    return target.getvalue()


def _contours(plane: LatentPlane, height: float) -> list[tuple[str, str, float, float]]:
    rows, columns = plane.loss.shape
    if min(rows, columns) < 2:
        return []
    across, down = np.linspace(0, PLANE_WIDTH, columns), np.linspace(height, 0, rows)
    lines = contourpy.contour_generator(across, down, plane.loss.double().numpy())
    contours: list[tuple[str, str, float, float]] = []
    for level in LOSS_LEVELS:
        pieces = [_thinned(np.asarray(piece)) for piece in lines.lines(level)]
        if pieces:
            longest = max(pieces, key=len)
            x, y = _point(longest[len(longest) // 2])
            drawn = "".join(f"M{_points(piece)}" for piece in pieces)
            crowded = any(math.dist((x, y), other[2:]) < _LABEL_ROOM for other in contours)
            contours.append(("" if crowded else f"{level:.1f}", drawn, x, y))
    return contours


def _thinned(points: Float[np.ndarray, "T 2"]) -> Float[np.ndarray, "U 2"]:
    """Drop points nearer than `_CONTOUR_DETAIL` to the last one kept; both ends stay."""
    kept = [points[0]]
    for point in points[1:-1]:
        if math.dist(point, kept[-1]) >= _CONTOUR_DETAIL:
            kept.append(point)
    return np.array([*kept, points[-1]])


def _spread(heights: dict[str, float]) -> dict[str, float]:
    """Move labels apart, downwards and then back up from the lower edge, keeping their order."""
    placed: dict[str, float] = {}
    lowest = -math.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        lowest = placed[name] = max(height, lowest + _LABEL_HEIGHT)
    limit = LINE_HEIGHT
    for name in reversed(placed):
        limit = placed[name] = min(placed[name], limit)
        limit -= _LABEL_HEIGHT
    return placed


def _class_at(plane: LatentPlane, path: Float[np.ndarray, "T 2"], index: int, height: float) -> int:
    rows, columns = plane.classes.shape
    x, y = path[index]
    column = int(np.clip(round(x / PLANE_WIDTH * (columns - 1)), 0, columns - 1))
    row = int(np.clip(round((height - y) / height * (rows - 1)), 0, rows - 1))
    return int(plane.classes[row, column])


def _point(point: Float[np.ndarray, " 2"]) -> tuple[float, float]:
    return round(float(point[0]), 1), round(float(point[1]), 1)


def _points(points: Float[np.ndarray, "T 2"]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
