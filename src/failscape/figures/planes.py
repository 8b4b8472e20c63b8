"""A plane of the latent space: which class lies where, how far the target is, and the way that was taken."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure as Drawing
from matplotlib.patheffects import withStroke
from torch import Tensor

from failscape.figures.colours import class_tint
from failscape.figures.figure import LatentPlane
from failscape.figures.style import house_style, new_drawing

# Cross-entropy is minus the logarithm of the target's probability; these are 90, 50, 10, 1 and 0.01 %.
LOSS_LEVELS: Mapping[float, str] = {
    0.105: "90 %",
    0.693: "50 %",
    2.303: "10 %",
    4.605: "1 %",
    9.21: "0.01 %",
}

_PATH_COLOURS = ("#000000", "#8a3b00", "#00517f", "#5c2a5c")
_PATH_STYLES = ("-", "--", "-.", ":")


def latent_plane(
    plane: LatentPlane,
    class_names: Sequence[str],
    *,
    path_name: str = "search",
    more_paths: Mapping[str, Float[Tensor, "T 2"]] | None = None,
    axis_labels: tuple[str, str] = ("first latent coordinate", "second latent coordinate"),
) -> Drawing:
    """Draw a plane large: tinted class areas with their names, cross-entropy contours, and paths.

    A triangle marks where a path starts, a dot where it first succeeded, a star where it ends.

    Args:
        plane: the areas, the contours and the first path.
        class_names: K names.
        path_name: what to call the plane's own path when there are others.
        more_paths: name to points, drawn on the same plane to compare searches.
        axis_labels: what the two coordinates are.
    """
    low_1, high_1, low_2, high_2 = plane.extent
    rows, columns = plane.classes.shape
    first, second = np.linspace(low_1, high_1, columns), np.linspace(low_2, high_2, rows)
    classes, loss = plane.classes.numpy(), plane.loss.double().numpy()
    with house_style():
        drawing = new_drawing(5.6, 5.2)
        ax = drawing.subplots()
        ax.grid(False)
        count = len(class_names)
        tints = ListedColormap([class_tint(label) for label in range(count)])
        ax.pcolormesh(
            first, second, classes, cmap=tints, norm=BoundaryNorm(np.arange(count + 1) - 0.5, count),
            shading="nearest", rasterized=True,
        )  # fmt: skip
        if min(rows, columns) > 1:
            _draw_borders(ax, first, second, classes)
            _draw_loss(ax, first, second, loss)
        for label, row, column in area_labels(plane):
            ax.text(
                first[column], second[row], class_names[label], ha="center", va="center", fontsize=15,
                color="#333333", path_effects=[withStroke(linewidth=3, foreground=class_tint(label))],
            )  # fmt: skip
        paths = {path_name: plane.path} | dict(more_paths or {})
        for i, (name, path) in enumerate(paths.items()):
            _draw_path(ax, path, name, i, plane.first_success if i == 0 else None)
        ax.set(xlim=(low_1, high_1), ylim=(low_2, high_2), xlabel=axis_labels[0], ylabel=axis_labels[1])
        ax.set_title(f"aimed at: {class_names[plane.target]}")
        if len(paths) > 1:
            drawing.legend(loc="outside lower center", ncols=len(paths))
    return drawing


def area_labels(plane: LatentPlane) -> list[tuple[int, int, int]]:
    """Return where to write the names of the class areas, as `(class, row, column)`.

    A name stands where its area is widest and free of the path, so it is always inside; a class gets another
    name where it has ample room far from the first, and none when it has no room at all.
    """
    grid = plane.classes.numpy()
    depth = np.minimum(_depth(grid), _distance_to_path(plane))
    apart = max(grid.shape) / 2.5
    places = []
    for label in np.unique(grid):
        left = np.where(grid == label, depth, 0)
        room = max(1, min(grid.shape) // 33)
        while left.max() >= room:
            # Of the many widest points of a long area, the one nearest their middle looks best.
            widest = np.argwhere(left == left.max())
            row, column = widest[((widest - widest.mean(axis=0)) ** 2).sum(axis=1).argmin()]
            places.append((int(label), int(row), int(column)))
            near_row = (np.arange(grid.shape[0]) - row) ** 2
            near_column = (np.arange(grid.shape[1]) - column) ** 2
            left[near_row[:, None] + near_column < apart**2] = 0
            room = max(1, min(grid.shape) // 12)
    return places


def _distance_to_path(plane: LatentPlane) -> Int[np.ndarray, "R S"]:
    """Return how many grid steps each point is from the nearest of a few points of the path."""
    rows, columns = plane.classes.shape
    low_1, high_1, low_2, high_2 = plane.extent
    few = plane.path[:: max(1, len(plane.path) // 8)].double().numpy()
    few = np.concatenate([few, plane.path[-1:].double().numpy()])
    across = (few[:, 0] - low_1) / (high_1 - low_1) * (columns - 1)
    up = (few[:, 1] - low_2) / (high_2 - low_2) * (rows - 1)
    squared = (np.arange(rows)[:, None] - up) ** 2
    distance = np.sqrt((squared[:, None] + (np.arange(columns)[:, None] - across) ** 2).min(axis=2))
    nearest: Int[np.ndarray, "R S"] = distance.astype(np.int64)
    return nearest


def _depth(grid: Int[np.ndarray, "R S"]) -> Int[np.ndarray, "R S"]:
    """Return how many steps each point is from another class or the edge of the plane, starting at 0."""
    alive = np.zeros(grid.shape, dtype=bool)
    inner = grid[1:-1, 1:-1]
    sides = (grid[:-2, 1:-1], grid[2:, 1:-1], grid[1:-1, :-2], grid[1:-1, 2:])
    alive[1:-1, 1:-1] = np.logical_and.reduce([inner == side for side in sides])
    depth = np.zeros(grid.shape, dtype=np.int64)
    while alive.any():
        depth += alive
        shrunk = np.zeros_like(alive)
        shrunk[1:-1, 1:-1] = alive[1:-1, 1:-1] & alive[:-2, 1:-1] & alive[2:, 1:-1] & alive[1:-1, :-2] & alive[1:-1, 2:]
        alive = shrunk
    return depth


def _draw_borders(ax: Axes, first: np.ndarray, second: np.ndarray, classes: np.ndarray) -> None:
    for label in np.unique(classes):
        inside = (classes == label).astype(float)
        if inside.min() < inside.max():
            ax.contour(first, second, inside, levels=[0.5], colors="#8c8c8c", linewidths=0.7)


def _draw_loss(ax: Axes, first: np.ndarray, second: np.ndarray, loss: np.ndarray) -> None:
    levels = [level for level in LOSS_LEVELS if loss.min() < level < loss.max()]
    if levels:
        lines = ax.contour(first, second, loss, levels=levels, colors="#555555", linewidths=0.8, linestyles="dotted")
        ax.clabel(lines, fmt=lambda level: f"{level:.1f}", fontsize=7)


def _draw_path(ax: Axes, path: Tensor, name: str, index: int, first_success: int | None) -> None:
    points = path.detach().cpu().double().numpy()
    colour = _PATH_COLOURS[index % len(_PATH_COLOURS)]
    style = _PATH_STYLES[index % len(_PATH_STYLES)]
    edge: dict[str, Any] = {
        "markeredgecolor": colour,
        "markeredgewidth": 1.2,
        "linestyle": "none",
        "zorder": 5,
    }
    ax.plot(*points.T, color=colour, linestyle=style, linewidth=1.4, label=name, zorder=4)
    ax.plot(*points[0], marker="^", markersize=9, markerfacecolor="white", **edge)
    if first_success is not None:
        ax.plot(*points[first_success], marker="o", markersize=6, markerfacecolor=colour, **edge)
    ax.plot(*points[-1], marker="*", markersize=15, markerfacecolor="#ffd54a", **edge)
