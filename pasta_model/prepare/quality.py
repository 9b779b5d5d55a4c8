# SPDX-License-Identifier: Apache-2.0
"""Numbers that tell a person where to look: of one session, and against the cohort."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pasta_model.data.grid import Grid
from pasta_model.data.volume import Volume
from pasta_model.errors import VolumeError
from pasta_model.prepare.registration import LEAST_LIKENESS, likeness
from pasta_model.prepare.template import template_brain
from pasta_model.prepare.transforms import AFFINE, Alignment, matrix_of

FIGURES: Mapping[str, str] = {
    "template_likeness": "correlation of the MRI with the template",
    "mask_overlap": "Dice of the brain mask with the template's",
    "head_scale": "size of the head to the template's",
    "pet_overlap": "Dice of the PET's brain with the MRI's",
    "pet_stretch": "how much the PET could be stretched to fit the MRI better",
    "pet_mri_information": "mutual information of PET and MRI in the brain, bits",
    "reference_uptake": "mean uptake of the reference region, SUVR 1, in the PET's own unit",
}
LEAST_OVERLAP = 0.85  # Dice of the PET's brain with the MRI's
LARGEST_STRETCH = 1.04  # one head in two scanners: below 1.01 in twins; two heads: 1.02 to 1.12
DOUBTFUL = {"template_likeness": 0.7, "mask_overlap": 0.9, "pet_overlap": 0.92}  # below: to look at
DOUBTFUL_STRETCH = 1.015
OUTLIER = 3.5  # robust standard deviations from the cohort's median (Iglewicz and Hoaglin 1993)
LEAST_COHORT = 8  # sessions below which nobody is an outlier
PET_EDGE = 0.45  # of the PET's bright tissue: where the brain ends


def mri_figures(mri: Volume, mask: Volume, *, grid: Grid, alignment: Alignment) -> dict[str, float]:
    """Figures of an MRI in MNI space."""
    brain = template_brain(grid)
    matrix = matrix_of(alignment.folder / AFFINE)
    return {
        "template_likeness": likeness(mri, brain),
        "mask_overlap": dice(mask.data > 0.5, brain.mask),
        "head_scale": float(np.cbrt(abs(np.linalg.det(matrix[:3, :3])))),
    }


def pet_figures(pet: Volume, mri: Volume, mask: Volume, *, uptake: float) -> dict[str, float]:
    """Figures of a PET in MNI space, skull and all, against its MRI."""
    inside = mask.data > 0.5
    smooth = ndimage.gaussian_filter(pet.data / np.float32(uptake), 1.5)
    bright = float(np.quantile(smooth[inside], 0.8))
    return {
        "pet_overlap": dice(_largest(smooth > PET_EDGE * bright), inside),
        "pet_mri_information": _information(smooth[inside], mri.data[inside]),
    }


def refuse_elsewhere(figures: Mapping[str, float]) -> None:
    """Refuse an MRI that was said to lie in MNI space and does not: shifted, or with an axis flipped.

    Raises
    ------
    VolumeError
        Saying how little it is like the template.
    """
    if figures["template_likeness"] < LEAST_LIKENESS:
        raise VolumeError(
            f"the MRI does not lie on the MNI152 template: correlation {figures['template_likeness']:.2f},"
            f" wanted {LEAST_LIKENESS:g} or more; is an axis flipped, or is it not registered?"
        )


def refuse_mismatch(figures: Mapping[str, float]) -> None:
    """Refuse a PET that does not fit its MRI's brain, whatever was tried.

    Raises
    ------
    VolumeError
        Saying how badly they fit.
    """
    overlap, stretch = figures["pet_overlap"], figures.get("pet_stretch", 1.0)
    if overlap >= LEAST_OVERLAP and stretch <= LARGEST_STRETCH:
        return
    raise VolumeError(
        f"after registration the PET does not fit the MRI: their brains overlap by {overlap:.2f} (Dice,"
        f" wanted {LEAST_OVERLAP:g} or more), and stretched by {100 * (stretch - 1):.0f} % it would fit"
        f" better (wanted at most {100 * (LARGEST_STRETCH - 1):.0f} %): is it of this subject, and of the"
        " brain?"
    )


def doubts(figures: Mapping[str, float]) -> list[str]:
    """Name what a person should look at, whatever the cohort."""
    found = [
        f"{name} {figures[name]:.3g}, usual is above {least:g}"
        for name, least in DOUBTFUL.items()
        if figures.get(name, 1.0) < least
    ]
    stretch = figures.get("pet_stretch", 1.0)
    if stretch > DOUBTFUL_STRETCH:
        found.append(f"pet_stretch {stretch:.3g}, usual is below {DOUBTFUL_STRETCH:g}: whose PET is it?")
    return found


def outliers(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> list[list[str]]:
    """Name, for each session, the figures that are far from the cohort's median.

    Far is `OUTLIER` robust standard deviations (1.4826 times the median absolute deviation).
    """
    flags: list[list[str]] = [[] for _ in rows]
    if len(rows) < LEAST_COHORT:
        return flags
    for name in names:
        values = np.array([row.get(name, np.nan) for row in rows], dtype=np.float64)
        if np.isfinite(values).sum() < LEAST_COHORT:
            continue
        middle = np.nanmedian(values)
        spread = 1.4826 * np.nanmedian(np.abs(values - middle))
        for flag, value in zip(flags, values, strict=True):
            if spread > 0 and abs(value - middle) > OUTLIER * spread:
                flag.append(f"{name} {value:.3g}, cohort {middle:.3g}")
    return flags


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Overlap of two masks, 0..1."""
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else 0.0


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected part of a mask, its holes filled."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(labels == int(np.argmax(sizes))) & mask.any()
    return filled


def _information(a: NDArray[np.float32], b: NDArray[np.float32], *, bins: int = 32) -> float:
    """Mutual information of two samples in bits, from a joint histogram of equally full bins."""
    edges = [np.unique(np.quantile(x, np.linspace(0, 1, bins + 1))) for x in (a, b)]
    if min(len(e) for e in edges) < 3:
        return 0.0
    joint, _, _ = np.histogram2d(a, b, bins=edges)
    p = joint / joint.sum()
    outer = p.sum(axis=1, keepdims=True) @ p.sum(axis=0, keepdims=True)
    some = p > 0
    return float((p[some] * np.log2(p[some] / outer[some])).sum())
