# SPDX-License-Identifier: Apache-2.0
"""Registration with ANTs: the T1 to the MNI152 template, the PET to the T1, a brain mask by atlas.

The template has no skull, a raw scan has one. The similarity is therefore looked at inside the template's
brain and a rim around it only: in the rim the template is dark, and so are fluid and skull. A coarse
search from several starting heights finds the brain above any length of neck.

Mutual information (Mattes) where scans differ in contrast, local correlation for the deformation. ANTs runs
on one thread and with a seed: the same scans give the same bytes.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pasta_model.data.grid import Grid, template
from pasta_model.data.volume import Volume
from pasta_model.errors import VolumeError
from pasta_model.prepare.template import TemplateBrain, template_brain
from pasta_model.prepare.transforms import (
    AFFINE,
    INVERSE_WARP,
    RIGID,
    WARP,
    Alignment,
    grid_volume,
    matrix_of,
    resample,
    to_ants,
    write_both,
    write_matrix,
)

COARSE = Grid((48, 56, 48), (-94.0, -130.0, -80.0), 4.0)  # a rim of MNI space, for the search
MIDDLE = template(3.0).head  # for the atlas's deformation
RIM = 6.0  # mm around the brain where the similarity is looked at
HEIGHTS = (0.0, 25.0, 50.0)  # mm above the head's centre of mass where the search starts
LEAST_LIKENESS = 0.6  # correlation with the template; upside down or back to front it is up to 0.57


def register_mri(mri: Volume, folder: Path, *, grid: Grid, bent: bool, seed: int) -> Alignment:
    """Register a T1 to the template and fit the atlas to the head; write the transforms to `folder`.

    Parameters
    ----------
    mri
        With or without skull, any pose, any voxel size.
    grid
        Where the fine registration looks: the head grid of the prepared scans.
    bent
        Whether the scans are to go through the deformation; it is then found on `grid`, and otherwise,
        for the atlas alone, on a coarser one.

    Raises
    ------
    VolumeError
        When no brain is found: what comes out does not look like the template.
    """
    with _scratch(folder) as scratch:
        start, likeness = _search(mri, scratch, seed=seed)
        if likeness < LEAST_LIKENESS:
            raise VolumeError(
                f"the scan does not look like a T1 of a head: correlation {likeness:.2f} with the MNI152"
                f" template after registration, wanted {LEAST_LIKENESS:g} or more; look at the scan"
            )
        fine = _register(template_brain(grid), mri, "Affine", scratch, start=start, seed=seed)
        write_both(folder, matrix_of(Path(fine["fwdtransforms"][0])))
        _deform(mri, folder, scratch, grid=grid if bent else MIDDLE, seed=seed)
    return Alignment(folder, bent=bent)


def write_identity(folder: Path) -> Alignment:
    """Write the transforms of scans that are in MNI space already."""
    write_both(folder, np.eye(4))
    write_matrix(folder / RIGID, np.eye(4))
    return Alignment(folder)


def brain_mask(mri: Volume, alignment: Alignment) -> Volume:
    """Return the atlas's brain mask in the T1's own space, 0 or 1."""
    brain = template_brain(template(1.5).head)
    soft = resample(grid_volume(brain.grid, brain.mask), onto=mri, transforms=alignment.atlas_from_mri)
    return replace(soft, data=(soft.data > 0.5).astype(np.float32))


def register_pet(pet: Volume, mri: Volume, mask: Volume, folder: Path, *, seed: int) -> None:
    """Register a PET rigidly to its T1; write the transform to the alignment's folder.

    The search starts where the scanners' coordinates put the PET, and where the middle of what is bright in
    it meets the brain, at two heights; the best end is kept.
    """
    fixed, inside = _isotropic(mri, mask, 2.0)
    rim = replace(inside, data=_dilated(inside.data > 0.5, RIM / 2.0).astype(np.float32))
    with _scratch(folder) as scratch:
        ends = []
        for number, shift in enumerate(_pet_starts(pet, inside)):
            start = scratch / f"start-{number}.txt"
            write_matrix(start, shift)
            found = _ants_registration(fixed, pet, "Rigid", rim, scratch, start=start, seed=seed)
            ends.append((_information(found["warpedmovout"], to_ants(fixed), rim), number, found))
        best = min(ends, key=lambda end: end[:2])[2]
        write_matrix(folder / RIGID, matrix_of(Path(best["fwdtransforms"][0])))


def pet_stretch(pet: Volume, mri: Volume, mask: Volume, folder: Path, *, seed: int) -> float:
    """How much a PET had to be stretched to fit the MRI better still: largest over smallest scale, 1 or more.

    One head in two scanners needs no stretching; another person's head does.
    """
    fixed, inside = _isotropic(mri, mask, 3.0)
    rim = replace(inside, data=_dilated(inside.data > 0.5, RIM / 3.0).astype(np.float32))
    with _scratch(folder) as scratch:
        found = _ants_registration(
            fixed, pet, "Affine", rim, scratch, start=folder / RIGID, seed=seed, aff_iterations=(60, 30),
            aff_shrink_factors=(2, 1), aff_smoothing_sigmas=(1, 0),
        )  # fmt: skip
        scales = np.linalg.svd(matrix_of(Path(found["fwdtransforms"][0]))[:3, :3], compute_uv=False)
    return float(scales.max() / scales.min())


def without_shading(mri: Volume, mask: Volume) -> Volume:
    """Divide a T1 by its bias field (N4), estimated inside the mask on voxels of 4 mm; its mean is kept."""
    import ants

    low, inside = _isotropic(mri, mask, 4.0)
    core = replace(inside, data=(inside.data > 0.5).astype(np.float32))
    field = ants.n4_bias_field_correction(
        to_ants(low), mask=to_ants(core), shrink_factor=1, return_bias_field=True,
        convergence={"iters": [30, 30, 20], "tol": 1e-4},
    )  # fmt: skip
    near = replace(low, data=np.asarray(field.numpy(), np.float32))
    spread = resample(near, onto=mri, transforms=[]).data
    gain = spread / float(spread[mask.data > 0.5].mean(dtype=np.float64))
    return replace(mri, data=np.where(gain > 0.05, mri.data / np.maximum(gain, 0.05), 0).astype(np.float32))


def likeness(volume: Volume, brain: TemplateBrain) -> float:
    """Correlation with the template's T1 in the brain and the rim around it, -1..1."""
    near = _dilated(brain.mask, RIM / brain.grid.spacing)
    inside = volume.data[near].astype(np.float64)
    if inside.std() == 0:
        return 0.0
    return float(np.corrcoef(inside, brain.t1[near])[0, 1])


def _search(mri: Volume, scratch: Path, *, seed: int) -> tuple[Path, float]:
    """Find the brain coarsely: the best of affine registrations from several heights."""
    brain = template_brain(COARSE)
    low = _smoothed(mri, 4.0)
    heavy = np.asarray(ndimage.center_of_mass(low.data))
    head = low.affine[:3, :3] @ heavy + low.affine[:3, 3]
    centre = np.asarray(ndimage.center_of_mass(brain.mask)) * brain.grid.spacing + brain.grid.origin
    ends = []
    for number, height in enumerate(HEIGHTS):
        shift = np.eye(4)
        shift[:3, 3] = head - centre + (0.0, 0.0, height)
        start = scratch / f"start-{number}.txt"
        write_matrix(start, shift)
        found = _register(
            brain, low, "Affine", scratch, start=start, seed=seed,
            aff_iterations=(200, 100), aff_shrink_factors=(2, 1), aff_smoothing_sigmas=(1, 0),
            aff_random_sampling_rate=0.5,
        )  # fmt: skip
        warped = grid_volume(brain.grid, found["warpedmovout"].numpy())
        end = scratch / f"end-{number}.txt"
        write_matrix(end, matrix_of(Path(found["fwdtransforms"][0])))
        ends.append((-likeness(warped, brain), number, end))
    best = min(ends)
    return best[2], -best[0]


def _register(brain: TemplateBrain, moving: Volume, kind: str, scratch: Path, **how: Any) -> dict[str, Any]:
    near = _dilated(brain.mask, RIM / brain.grid.spacing)
    rim = grid_volume(brain.grid, near)
    return _ants_registration(grid_volume(brain.grid, brain.t1), moving, kind, rim, scratch, **how)


def _deform(mri: Volume, folder: Path, scratch: Path, *, grid: Grid, seed: int) -> None:
    """Bend the template to a T1 from its affine on (SyN); write both warps to `folder`."""
    found = _register(
        template_brain(grid), mri, "SyNOnly", scratch, start=folder / AFFINE, seed=seed,
        syn_metric="CC", syn_sampling=2, reg_iterations=(60, 40, 20) if grid.spacing < 3 else (40, 20, 10),
    )  # fmt: skip
    for direction, name in (("fwdtransforms", WARP), ("invtransforms", INVERSE_WARP)):
        shutil.copy(next(p for p in found[direction] if p.endswith(".nii.gz")), folder / name)


def _ants_registration(
    fixed: Volume,
    moving: Volume,
    kind: str,
    rim: Volume,
    scratch: Path,
    *,
    start: Path,
    seed: int,
    **how: Any,
) -> dict[str, Any]:
    import ants

    ants.config.set_ants_deterministic(on=True, seed_value=seed)  # its argument random_seed does nothing
    found: dict[str, Any] = ants.registration(
        to_ants(fixed), to_ants(moving), kind, initial_transform=str(start), mask=to_ants(rim),
        outprefix=tempfile.mkdtemp(dir=scratch) + "/", aff_metric="mattes", **how,
    )  # fmt: skip
    return found


def _information(warped: Any, fixed: Any, rim: Volume) -> float:
    """Return the negative mutual information inside the rim: lower is more alike."""
    import ants

    return float(
        ants.image_similarity(fixed, warped, metric_type="MattesMutualInformation", fixed_mask=to_ants(rim))
    )


def _pet_starts(pet: Volume, inside: Volume) -> Iterator[NDArray[np.float64]]:
    """Yield shifts from T1 to PET: none if they are near, and those that bring the centres together."""
    centres = []
    for volume, data in (
        (inside, inside.data),
        (pet, np.where(pet.data > np.quantile(pet.data, 0.9), pet.data, 0)),
    ):
        index = np.asarray(ndimage.center_of_mass(data))
        centres.append(volume.affine[:3, :3] @ index + volume.affine[:3, 3])
    apart = centres[1] - centres[0]
    if np.linalg.norm(apart) < 60.0:  # mm; scanner coordinates may be shared
        yield np.eye(4)
    for height in (0.0, 25.0):
        shift = np.eye(4)
        shift[:3, 3] = apart + np.array([0.0, 0.0, height])
        yield shift


def _isotropic(mri: Volume, mask: Volume, spacing: float) -> tuple[Volume, Volume]:
    """Cut the T1 to its brain and bring it to cubic voxels; the mask likewise."""
    found = np.argwhere(mask.data > 0.5)
    corners = np.array([found.min(axis=0), found.max(axis=0) + 1])
    sizes = np.linalg.norm(mri.affine[:3, :3], axis=0)
    pad = 12.0 / sizes  # mm around the brain
    low = corners[0] - pad
    shape = tuple(int(n) for n in np.ceil((corners[1] - corners[0] + 2 * pad) * sizes / spacing))
    affine = mri.affine.copy()
    affine[:3, :3] = mri.affine[:3, :3] / sizes * spacing
    affine[:3, 3] = mri.affine[:3, :3] @ low + mri.affine[:3, 3]
    onto = Volume(np.zeros(shape, np.float32), affine)
    low_mri = resample(_smoothed(mri, spacing), onto=onto, transforms=[])
    return low_mri, resample(mask, onto=onto, transforms=[])


def _smoothed(volume: Volume, spacing: float) -> Volume:
    """Smooth against aliasing before a coarser grid of `spacing` mm, and leave out voxels likewise."""
    sizes = np.linalg.norm(volume.affine[:3, :3], axis=0)
    sigma = 0.35 * np.sqrt(np.maximum((spacing / sizes) ** 2 - 1.0, 0.0))
    return replace(volume, data=ndimage.gaussian_filter(volume.data, sigma, truncate=3.0))


def _dilated(mask: NDArray[np.bool_], voxels: float) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = ndimage.distance_transform_edt(~mask) <= voxels
    return near


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Yield a folder for what ANTs leaves behind; it is removed.

    It lies in the folder of the transforms, so that whoever removes that after a kill removes it too.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="scratch-") as name:
        yield Path(name)
