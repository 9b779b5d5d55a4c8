# SPDX-License-Identifier: Apache-2.0
"""The picture of one subject: three cuts through the MetaROI; MRI, synthetic, real, difference.

Shapes: volumes are (x, y, z), RAS+. Neurological convention: left of the picture is left of the
head; the sagittal cut looks to the right.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from pasta_model.data.grid import Grid
from pasta_model.data.metaroi import metaroi_map
from pasta_model.errors import VolumeError
from pasta_model.report.style import NIGHT, figure_style, to_png

Array = NDArray[Any]

PET_LIMITS = (0.0, 2.0)
DIFFERENCE_LIMIT = 0.4
# Black where the PETs agree; blue where the synthetic one is too low, red where it is too high.
DIFFERENCE = LinearSegmentedColormap.from_list(
    "difference", ["#b8f3ff", "#3aa0ff", "#0b3a75", "#000000", "#7d1d10", "#ff6a3d", "#ffe3a8"]
)
_LIGHT = "#e4e7eb"
_OUTLINE = "#5ef2c2"


@dataclass(frozen=True)
class Cut:
    """A plane: its axis, where it lies in MNI mm, and the letters at the picture's sides."""

    name: str
    axis: int
    position: float
    sides: tuple[str, str]


# Together they meet all five MetaROI regions.
CUTS = (
    Cut("axial", 2, 31.0, ("L", "R")),  # angular gyri, posterior cingulate
    Cut("coronal", 1, -46.0, ("L", "R")),  # temporal gyri, posterior cingulate
    Cut("sagittal", 0, 1.0, ("P", "A")),  # posterior cingulate
)


def subject_panel(
    mri: Array,
    synthetic: Array,
    real: Array,
    *,
    grid: Grid,
    title: str,
    pet_limits: tuple[float, float] = PET_LIMITS,
    difference_limit: float = DIFFERENCE_LIMIT,
) -> bytes:
    """Draw MRI, synthetic PET, real PET and their difference in three planes.

    Parameters
    ----------
    mri
        (x, y, z), arbitrary unit, 0 outside the brain.
    synthetic, real
        (x, y, z) in SUVR.
    grid
        Where the voxels lie, in MNI mm.
    pet_limits, difference_limit
        Fixed colour limits in SUVR, so that pictures of different subjects can be compared.

    Returns
    -------
    bytes
        A PNG.
    """
    shapes = {volume.shape for volume in (mri, synthetic, real)}
    if shapes != {grid.shape}:
        raise VolumeError(f"a picture needs volumes of {grid.shape} voxels, found {sorted(shapes)}")
    roi = metaroi_map(grid)
    low, high = pet_limits
    columns: tuple[tuple[str, Array, str | Colormap, tuple[float, float]], ...] = (
        ("MRI", mri, "gray", (0.0, _bright(mri))),
        ("Synthetic PET", synthetic, "inferno", (low, high)),
        ("Real PET", real, "inferno", (low, high)),
        ("Synthetic minus real", synthetic - real, DIFFERENCE, (-difference_limit, difference_limit)),
    )
    with figure_style():
        figure = Figure(figsize=(9.4, 8.5), facecolor=NIGHT)
        axes = _frames(figure, grid)
        for column, (name, volume, colours, limits) in enumerate(columns):
            for row, cut in enumerate(CUTS):
                plane, outline = (cut_of(v, cut, grid) for v in (volume, roi))
                image = _draw(axes[row][column], plane, outline, colours=colours, limits=limits)
            axes[0][column].set_title(name, color=_LIGHT, loc="center", pad=7)
            if column:
                _colour_bar(figure, image, axes[-1][column], difference=column == 3)
        _letter(axes)
        figure.text(0.045, 0.968, title, color="white", fontsize=12.5, fontweight="bold", va="top")
        note = "Neurological view: left is left. Green outline: MetaROI. Same colour limits in every picture."
        figure.text(0.045, 0.014, note, color="#9aa5b1", fontsize=8.5)
        return to_png(figure)


def _bright(mri: Array) -> float:
    inside = mri[mri > 0]
    return float(np.percentile(inside, 99.5)) if inside.size else 1.0


def cut_of(volume: Array, cut: Cut, grid: Grid) -> Array:
    """Cut a plane, (rows, columns), from the bottom of the picture upwards."""
    index = round((cut.position - grid.origin[cut.axis]) / grid.spacing)
    plane: Array = np.take(volume, min(max(index, 0), volume.shape[cut.axis] - 1), axis=cut.axis)
    return plane.T


def _frames(figure: Figure, grid: Grid) -> list[list[Axes]]:
    x, y, z = grid.shape
    rows = figure.add_gridspec(
        3, 4, height_ratios=(y / x, z / x, z / y), left=0.045, right=0.985, top=0.895, bottom=0.115,
        wspace=0.02, hspace=0.02,
    )  # fmt: skip
    return [[figure.add_subplot(rows[r, c]) for c in range(4)] for r in range(3)]


def _draw(
    axes: Axes, plane: Array, outline: Array, *, colours: str | Colormap, limits: tuple[float, float]
) -> AxesImage:
    axes.set_axis_off()
    if outline.max() > 0.5 > outline.min():
        axes.contour(outline, levels=[0.5], colors=[_OUTLINE], linewidths=0.8, alpha=0.8)
    return axes.imshow(
        plane, origin="lower", cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="bilinear"
    )


def _letter(axes: list[list[Axes]]) -> None:
    for row, cut in zip(axes, CUTS, strict=True):
        name = f"{cut.name}  {'xyz'[cut.axis]} = {cut.position:+.0f} mm"
        row[0].text(
            -0.03, 0.5, name, color=_LIGHT, rotation=90, transform=row[0].transAxes,
            ha="right", va="center", fontsize=9.5,
        )  # fmt: skip
        for place, letter in zip((0.03, 0.97), cut.sides, strict=True):
            row[0].text(
                place, 0.5, letter, color="#ffd166", transform=row[0].transAxes,
                ha="center", va="center", fontsize=9.5, fontweight="bold",
            )  # fmt: skip


def _colour_bar(figure: Figure, image: AxesImage, below: Axes, *, difference: bool) -> None:
    box = below.get_position()
    place = figure.add_axes((box.x0 + 0.02, 0.082, box.width - 0.04, 0.014))
    bar = figure.colorbar(image, cax=place, orientation="horizontal")
    place.grid(visible=False)
    place.tick_params(colors=_LIGHT, labelsize=8.5)
    bar.outline.set_visible(False)
    bar.set_label("difference (SUVR)" if difference else "SUVR", color=_LIGHT, fontsize=9)
