"""How things are drawn: figures that a result offers, and the building blocks they are drawn with."""

from failscape.figures.bar_panels import bar_panels
from failscape.figures.collages import collage
from failscape.figures.colours import diverging
from failscape.figures.curves import curves_with_bands, histogram_pair, rate_bars
from failscape.figures.effects import effect_matrix, histogram_grid, signed_effects
from failscape.figures.figure import (
    Case,
    Figure,
    Finding,
    Gallery,
    LatentPlane,
    Line,
    Panel,
    PictureGroup,
    PictureMatrix,
    Plot,
    percent,
)
from failscape.figures.files import png_bytes, save_plot
from failscape.figures.grids import difference_map, image_grid
from failscape.figures.heat_table import heat_tables
from failscape.figures.maps import latent_maps
from failscape.figures.matrices import picture_matrix
from failscape.figures.multiples import small_multiples
from failscape.figures.paths import path_drawing
from failscape.figures.planes import latent_plane
from failscape.figures.rankings import ranking
from failscape.figures.reliability import reliability_diagram
from failscape.figures.requests import requested_against_obtained
from failscape.figures.strips import strips
from failscape.figures.style import house_style

__all__ = [
    "Case",
    "Figure",
    "Finding",
    "Gallery",
    "LatentPlane",
    "Line",
    "Panel",
    "PictureGroup",
    "PictureMatrix",
    "Plot",
    "bar_panels",
    "collage",
    "curves_with_bands",
    "difference_map",
    "diverging",
    "effect_matrix",
    "heat_tables",
    "histogram_grid",
    "histogram_pair",
    "house_style",
    "image_grid",
    "latent_maps",
    "latent_plane",
    "path_drawing",
    "percent",
    "picture_matrix",
    "png_bytes",
    "ranking",
    "rate_bars",
    "reliability_diagram",
    "requested_against_obtained",
    "save_plot",
    "signed_effects",
    "small_multiples",
    "strips",
]
