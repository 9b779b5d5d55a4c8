# SPDX-License-Identifier: Apache-2.0
"""One session from the hospital's scans to MNI space, in memory; files and tables are `site`.

A stranger's script needs `prepare_scans(mri, pet, folder)`, where `folder` receives the transforms.
Order of the steps: the MRI to the template, the atlas's mask to the head, shading inside the mask, the
PET to the MRI, both to MNI space in one interpolation each, SUVR.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from pasta_model.data.grid import Grid, template
from pasta_model.data.volume import Volume
from pasta_model.errors import VolumeError
from pasta_model.prepare import registration
from pasta_model.prepare.quality import mri_figures, pet_figures, refuse_elsewhere, refuse_mismatch
from pasta_model.prepare.scans import Scan
from pasta_model.prepare.settings import PrepareSettings
from pasta_model.prepare.suvr import reference_uptake, region_suvr
from pasta_model.prepare.template import NAME, template_brain
from pasta_model.prepare.transforms import Alignment, grid_volume, resample

PACKAGES = ("pasta-federated", "antspyx", "nibabel", "nilearn", "numpy", "scipy")
LARGEST_STRIPPED = 1.3  # of the atlas's mask: what is above 0 in a skull-stripped MRI
LEAST_INSIDE = 0.9  # share of the template's brain that lies in the MRI's field of view


@dataclass
class Steps:
    """The log of a session: each step with its seconds and what it has to say."""

    lines: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, **words: Any) -> Iterator[dict[str, Any]]:
        """Time a step; the block may add to the words that are yielded."""
        start = time.monotonic()
        yield words
        self.lines.append({"step": name, "seconds": round(time.monotonic() - start, 2), **words})

    def skip(self, name: str, why: str) -> None:
        """Note a step that was not needed."""
        self.lines.append({"step": name, "skipped": why})


@dataclass(frozen=True)
class Prepared:
    """A session in MNI space.

    Attributes
    ----------
    mri
        Skull-stripped, without shading, on the head grid; scanner units.
    pet
        SUVR inside the brain, 0 outside; None for an MRI alone.
    mask
        The brain, 0 or 1, on the head grid.
    head
        The MRI with its skull, on the head grid: for a person's eyes.
    native
        The MRI as it came: what a result goes back to.
    alignment
        The transforms.
    uptake
        Mean uptake of the reference region in the PET's own unit: what SUVR 1 is.
    regions
        Mean SUVR of each MetaROI region, measured on the atlas fitted to this head.
    figures
        How well it all fits together (see `quality`).
    steps
        The log.
    """

    mri: Volume
    pet: Volume | None
    mask: Volume
    head: Volume
    native: Volume
    alignment: Alignment
    uptake: float | None
    regions: dict[str, float]
    figures: dict[str, float]
    steps: list[dict[str, Any]]


def prepare_scans(
    mri: Scan, pet: Scan | None, folder: Path, *, settings: PrepareSettings | None = None
) -> Prepared:
    """Bring an MRI, and its PET if there is one, to MNI space.

    Parameters
    ----------
    folder
        Receives the transforms; must exist, and must stay while the result is used.

    Raises
    ------
    VolumeError
        When no brain is found, the MRI's field of view cuts it, or the PET does not reach the reference
        region.
    """
    settings = settings or PrepareSettings()
    steps = Steps()
    with steps.step("read", mri=list(mri.notes), pet=list(pet.notes) if pet else None):
        grid = template(settings.spacing).head
    alignment = _align_mri(mri.volume, folder, grid, settings, steps)
    mask, corrected = _brain(mri.volume, alignment, grid, settings, steps)
    with steps.step("MRI to MNI space", interpolation="linear"):
        there = resample(mask, onto=grid_volume(grid), transforms=alignment.to_mri)
        inside = replace(there, data=(there.data > 0.5).astype(np.float32))
        stripped = replace(corrected, data=corrected.data * mask.data)
        moved = resample(stripped, onto=grid_volume(grid), transforms=alignment.to_mri)
        moved = replace(moved, data=moved.data * inside.data)
        head = resample(corrected, onto=grid_volume(grid), transforms=alignment.to_mri)
    figures = mri_figures(moved, inside, grid=grid, alignment=alignment)
    refuse_elsewhere(figures)
    made = Prepared(moved, None, inside, head, mri.volume, alignment, None, {}, figures, steps.lines)
    if pet is None:
        return made
    return _with_pet(made, pet.volume, mri=corrected, mask=mask, grid=grid, settings=settings, steps=steps)


def versions() -> dict[str, str]:
    """Return the versions of what the preparation is made with, and its template."""
    return {**{name: version(name) for name in PACKAGES}, "template": NAME}


def _align_mri(mri: Volume, folder: Path, grid: Grid, settings: PrepareSettings, steps: Steps) -> Alignment:
    if settings.registration == "none" or _on(mri, grid):
        why = "the scan lies on the template's grid" if _on(mri, grid) else "registration = none"
        steps.skip("MRI to template", why)
        return registration.write_identity(folder)
    with steps.step("MRI to template", kind=settings.registration, template=NAME, seed=settings.seed):
        bent = settings.registration == "deformable"
        return registration.register_mri(mri, folder, grid=grid, bent=bent, seed=settings.seed)


def _brain(
    mri: Volume, alignment: Alignment, grid: Grid, settings: PrepareSettings, steps: Steps
) -> tuple[Volume, Volume]:
    """Return the brain's mask in the MRI's own space, and the MRI without shading."""
    _refuse_cut(mri, alignment, grid)
    with steps.step("brain mask", by="atlas") as words:
        mask = registration.brain_mask(mri, alignment)
        filled = ndimage.binary_fill_holes(mri.data > 0)
        stripped = bool(filled.sum() < LARGEST_STRIPPED * mask.data.sum())
        if stripped:
            words["by"] = "the MRI itself: it is skull-stripped"
            mask = replace(mri, data=filled.astype(np.float32))
    if stripped or not settings.bias_correction:
        steps.skip("bias correction", "a skull-stripped MRI is taken as corrected" if stripped else "off")
        return mask, mri
    with steps.step("bias correction", method="N4 (Tustison 2010), inside the mask"):
        return mask, registration.without_shading(mri, mask)


def _refuse_cut(mri: Volume, alignment: Alignment, grid: Grid) -> None:
    everywhere = replace(mri, data=np.ones_like(mri.data))
    covered = resample(everywhere, onto=grid_volume(grid), transforms=alignment.to_mri).data > 0.5
    inside = float(np.mean(covered[template_brain(grid).mask]))
    if inside < LEAST_INSIDE:
        raise VolumeError(
            f"only {100 * inside:.0f} % of the brain lies in the MRI's field of view,"
            f" wanted {100 * LEAST_INSIDE:.0f} %; take a scan of the whole head"
        )


def _with_pet(
    made: Prepared,
    pet: Volume,
    *,
    mri: Volume,
    mask: Volume,
    grid: Grid,
    settings: PrepareSettings,
    steps: Steps,
) -> Prepared:
    fit: dict[str, float] = {}
    if settings.registration == "none" or (_on(pet, grid) and _on(made.native, grid)):
        steps.skip("PET to MRI", "both lie in MNI space")
    else:
        with steps.step("PET to MRI", kind="rigid", seed=settings.seed):
            folder = made.alignment.folder
            registration.register_pet(pet, mri, mask, folder, seed=settings.seed)
            fit["pet_stretch"] = registration.pet_stretch(pet, mri, mask, folder, seed=settings.seed)
    with steps.step("PET to MNI space", interpolation="cubic spline"):
        moved, fitted = (
            resample(pet, onto=grid_volume(grid), transforms=transforms, interpolator="bSpline")
            for transforms in (made.alignment.to_pet, made.alignment.atlas_to_pet)
        )
    with steps.step("SUVR", reference=settings.reference) as words:
        uptake = reference_uptake(fitted, grid=grid, reference=settings.reference)
        words["uptake"] = uptake
        suvr = moved.data / np.float32(uptake) * made.mask.data
        regions = region_suvr(fitted, grid=grid, uptake=uptake)
    figures = {**made.figures, **fit, **pet_figures(moved, made.mri, made.mask, uptake=uptake)}
    refuse_mismatch(figures)
    return replace(
        made, pet=Volume(suvr, grid.affine, "SUVR"), uptake=uptake, regions=regions, figures=figures
    )


def _on(volume: Volume, grid: Grid) -> bool:
    """Tell whether a volume lies on the prepared scans' grid already."""
    return volume.data.shape == grid.shape and bool(np.allclose(volume.affine, grid.affine, atol=1e-2))
