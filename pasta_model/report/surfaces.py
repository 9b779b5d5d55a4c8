# SPDX-License-Identifier: Apache-2.0
"""The picture of a subject's hypometabolism: z maps of PETs on the eight views of the brain's surface.

Shapes: a view is (rows, columns), from the bottom of the picture upwards, pixels of 1 mm.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from pasta_model.data.volume import Volume
from pasta_model.errors import ConfigError, VolumeError
from pasta_model.norms.projections import DEPTH, project
from pasta_model.norms.resolution import Floats
from pasta_model.norms.surface import VIEWS, Surface, surface
from pasta_model.report.style import NIGHT, figure_style, to_png

Z_LIMITS = (-5.0, -1.65)
"""z of the brightest colour, and where colours begin; the same in every picture."""
_FADE = 0.35  # z over which the first colour fades in
_COLOURS = LinearSegmentedColormap.from_list(
    "hypometabolism", ["#fff7c9", "#ffd75e", "#ff9a2e", "#ee4e2b", "#b3163e", "#5f0f55"]
)
_LIGHT, _DIM, _LETTER = "#e4e7eb", "#9aa5b1", "#ffd166"
_WIDTH, _ROW, _ABOVE, _BELOW = 13.6, 1.74, 0.78, 0.74  # inches
_LEFT, _RIGHT = 0.034, 0.996
_GAP = 4  # mm around a brain


def surface_picture(
    maps: Mapping[str, Volume], *, title: str, limits: tuple[float, float] = Z_LIMITS
) -> bytes:
    """Draw the most negative z below each point of the surface: a row a PET, a column a view.

    Parameters
    ----------
    maps
        Name of the row ("Real PET", a method) -> z map of the same subject, in MNI space.
    limits
        z of the brightest colour, and the z below which there is colour; above it the brain is grey.

    Returns
    -------
    bytes
        A PNG.

    Raises
    ------
    VolumeError
        When there is no map, or one is not a z map.
    ConfigError
        When the limits are not two numbers below 0, the stronger one first.
    """
    other = {name: volume.unit for name, volume in maps.items() if volume.unit != "z"}
    if not maps or other:
        raise VolumeError(f"surfaces show z maps, at least one; found {len(maps)}, of other units: {other}")
    if not limits[0] < limits[1] <= 0:
        raise ConfigError(f"found limits {limits}, wanted such as {Z_LIMITS}: the stronger one first")
    with figure_style():
        height = _ABOVE + _BELOW + _ROW * len(maps)
        figure = Figure(figsize=(_WIDTH, height), facecolor=NIGHT)
        axes = _frames(figure, rows=len(maps), height=height)
        for places, (name, volume) in zip(axes, maps.items(), strict=True):
            lowest = project(volume, take="lowest")
            for place, view in zip(places, VIEWS, strict=True):
                place.imshow(
                    _painted(surface(view), lowest[view.name], limits),
                    origin="lower",
                    interpolation="bilinear",
                )
            _name(places[0], name)
        _head(axes)
        _explain(figure, title, limits, height)
        return to_png(figure)


def _frames(figure: Figure, *, rows: int, height: float) -> list[list[Axes]]:
    """Make axes in which a millimetre is equally long in every view."""
    shapes = [surface(view).shade.shape for view in VIEWS]
    tallest = max(shape[0] for shape in shapes) + _GAP
    grid = figure.add_gridspec(
        rows, len(VIEWS), width_ratios=[shape[1] + _GAP for shape in shapes], left=_LEFT, right=_RIGHT,
        top=1 - _ABOVE / height, bottom=_BELOW / height, wspace=0, hspace=0,
    )  # fmt: skip
    axes = [[figure.add_subplot(grid[r, c]) for c in range(len(VIEWS))] for r in range(rows)]
    for row in axes:
        for place, (high, wide) in zip(row, shapes, strict=True):
            place.set_axis_off()
            place.set_xlim((wide - 1) / 2 - (wide + _GAP) / 2, (wide - 1) / 2 + (wide + _GAP) / 2)
            place.set_ylim((high - 1) / 2 - tallest / 2, (high - 1) / 2 + tallest / 2)
            place.set_autoscale_on(False)
    return axes


def _painted(seen: Surface, lowest: Floats, limits: tuple[float, float]) -> Floats:
    """Lay the colours of z on the shaded brain, (rows, columns, RGBA)."""
    strong, weak = limits
    z = np.where(seen.seen, lowest, 0)
    colours = np.asarray(_COLOURS((z - strong) / (weak - strong)))[..., :3]
    cover = np.clip((weak - z) / _FADE, 0, 1)[..., None]
    shade = seen.shade[..., None]
    grey = 0.12 + 0.55 * shade
    painted = (1 - cover) * grey + cover * colours * (0.45 + 0.55 * shade)
    return np.asarray(np.concatenate([painted, seen.seen[..., None]], axis=-1), np.float32)


def _name(place: Axes, name: str) -> None:
    place.text(
        -0.03, 0.5, name, color=_LIGHT, rotation=90, transform=place.transAxes,
        ha="right", va="center", fontsize=10.5,
    )  # fmt: skip


def _head(axes: list[list[Axes]]) -> None:
    for place, view in zip(axes[0], VIEWS, strict=True):
        place.set_title(view.name.capitalize(), color=_LIGHT, loc="center", fontsize=10.5, pad=2)
    for place, view in zip(axes[-1], VIEWS, strict=True):
        for x, letter in zip((0.05, 0.95), view.sides, strict=True):
            place.text(
                x, 0.06, letter, color=_LETTER, transform=place.transAxes, ha="center", va="center",
                fontsize=9.5, fontweight="bold",
            )  # fmt: skip


def _explain(figure: Figure, title: str, limits: tuple[float, float], height: float) -> None:
    figure.text(_LEFT, 1 - 0.16 / height, title, color="white", fontsize=12.5, fontweight="bold", va="top")
    note = (
        f"Most negative z within {DEPTH:g} mm below the surface, after Minoshima et al. 1995;"
        f" grey: z above {limits[1]:g}.\nz: standard deviations from healthy people of that age."
        " Same colours in every picture. L, R: the subject's left and right."
    )
    figure.text(_LEFT, 0.16 / height, note, color=_DIM, fontsize=8.5, linespacing=1.45)
    place = figure.add_axes((0.70, 0.42 / height, 0.27, 0.13 / height))
    bar = figure.colorbar(
        ScalarMappable(Normalize(*limits), _COLOURS), cax=place, orientation="horizontal", extend="min"
    )
    bar.outline.set_visible(False)
    place.grid(visible=False)
    place.tick_params(colors=_LIGHT, labelsize=8.5)
    place.text(
        -0.08, 0.5, "z", color=_LIGHT, fontsize=10, fontstyle="italic", transform=place.transAxes,
        ha="right", va="center",
    )  # fmt: skip
