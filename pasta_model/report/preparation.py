# SPDX-License-Identifier: Apache-2.0
"""Pictures of a prepared session, for a person's eyes.

Is the mask on the brain, the PET on the MRI? Rows: the mask's outline on the MRI with its skull; the PET
over the MRI; a checkerboard of MRI and template; the PET with the reference region and the MetaROI. Three
cuts each.
Neurological convention: left of the picture is left of the head.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pasta_model.data.grid import Grid
from pasta_model.report.panels import Cut, cut_of
from pasta_model.report.style import NIGHT, figure_style, to_png

Array = NDArray[Any]
CUTS = (
    Cut("axial", 2, 12.0, ("L", "R")),
    Cut("coronal", 1, -30.0, ("L", "R")),
    Cut("sagittal", 0, 1.0, ("P", "A")),
)
LOW_CUTS = (Cut("axial", 2, -30.0, ("L", "R")), Cut("coronal", 1, -40.0, ("L", "R")), CUTS[2])
FIELD = 18.0  # mm: a field of the checkerboard
_TITLES = (
    "brain mask on the MRI",
    "PET over the MRI",
    "MRI and template, in fields",
    "reference region and MetaROI",
)
_COLOURS = ("#5ef2c2", "#5ef2c2", "#5ef2c2", "#3aa0ff")


def preparation_panel(
    head: Array,
    mask: Array,
    pet: Array | None,
    *,
    template: Array,
    reference: Array,
    metaroi: Array,
    grid: Grid,
    title: str,
) -> bytes:
    """Draw a session's four rows of pictures.

    Parameters
    ----------
    head
        The MRI with its skull, (x, y, z) like all others.
    pet
        SUVR; None leaves out the rows of a PET.
    reference, metaroi
        Soft or hard masks; their outline is drawn at 0.5.

    Returns
    -------
    bytes
        A PNG.
    """
    mri = head / max(float(np.quantile(head[mask > 0.5], 0.99)), 1e-6)
    rows: list[tuple[str, Array, Array | None, list[tuple[Array, str]]]] = [
        (_TITLES[0], mri, None, [(mask, _COLOURS[0])]),
        (
            _TITLES[2],
            _checkerboard(mri * mask, template / np.quantile(template[template > 0], 0.99), grid),
            None,
            [],
        ),
    ]
    if pet is not None:
        rows.insert(1, (_TITLES[1], mri, pet, []))
        rows.append((_TITLES[3], np.zeros_like(mri), pet, [(reference, "#5ef2c2"), (metaroi, "#3aa0ff")]))
    with figure_style():
        figure = Figure(figsize=(9.4, 3.05 * len(rows) + 0.4), facecolor=NIGHT)
        for number, (name, under, over, outlines) in enumerate(rows):
            cuts = LOW_CUTS if name == _TITLES[3] else CUTS
            for column, cut in enumerate(cuts):
                axes = figure.add_subplot(len(rows), 3, 3 * number + column + 1)
                _draw(axes, cut, grid, under=under, over=over, outlines=outlines)
                axes.set_title(
                    f"{name}   {'xyz'[cut.axis]} = {cut.position:+.0f}", color="#e4e7eb", fontsize=8.5
                )
        figure.suptitle(title, color="white", fontsize=12, x=0.02, ha="left")
        top = 1 - 0.6 / figure.get_figheight()
        figure.subplots_adjust(left=0.01, right=0.99, top=top, bottom=0.01, wspace=0.02, hspace=0.12)
        return to_png(figure)


def _draw(
    axes: Axes, cut: Cut, grid: Grid, *, under: Array, over: Array | None, outlines: list[tuple[Array, str]]
) -> None:
    axes.set_axis_off()
    axes.imshow(cut_of(under, cut, grid), origin="lower", cmap="gray", vmin=0, vmax=1.05)
    if over is not None:
        plane = cut_of(over, cut, grid)
        alpha = 0.62 if under.any() else 1.0
        axes.imshow(
            np.ma.masked_less(plane, 0.25), origin="lower", cmap="inferno", vmin=0, vmax=2.0, alpha=alpha
        )
    for mask, colour in outlines:
        outline = cut_of(mask, cut, grid)
        if outline.max() > 0.5 > outline.min():
            axes.contour(outline, levels=[0.5], colors=[colour], linewidths=0.9)
    for place, letter in zip((0.03, 0.97), cut.sides, strict=True):
        axes.text(place, 0.5, letter, color="#ffd166", transform=axes.transAxes, ha="center", fontsize=9)


def _checkerboard(a: Array, b: Array, grid: Grid) -> Array:
    fields = np.indices(a.shape) // max(1, round(FIELD / grid.spacing))
    board: Array = np.where(fields.sum(axis=0) % 2 == 0, a, b)
    return board
