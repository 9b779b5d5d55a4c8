# SPDX-License-Identifier: Apache-2.0
"""The door for raw scans: what a hospital's MRI and PET may and may not be.

Orientation is trusted only where the file is sure of it: without a code, or with two codes that
disagree, left may be right, and no later step would notice.
"""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from pasta_model.data.grid import template
from pasta_model.data.volume import Volume, axis_codes, read_image
from pasta_model.errors import Problems, VolumeError
from pasta_model.prepare.published_hdf5 import read_array
from pasta_model.prepare.records import RawScan

LARGEST_VOXEL = {"MRI": 4.0, "PET": 8.0}  # mm along any axis
SMALLEST_VOXEL = 0.2  # mm: below, the unit is not mm
LEAST_EXTENT = 90.0  # mm along any axis: a head does not fit into less
LARGEST_NEGATIVE = {"MRI": 0.01, "PET": 0.05}  # share of the absolute sum that may be negative
LARGEST_DISAGREEMENT = 1.0  # mm at a corner between sform and qform
PET_UNITS = ("bq/ml", "kbq/ml", "bqml", "suv", "suvr", "g/ml", "kbqml", "counts", "cnts", "propcps")


@dataclass(frozen=True)
class Scan:
    """A raw scan in memory.

    Attributes
    ----------
    volume
        3D, RAS+, nothing negative; a dynamic PET is averaged over its frames.
    notes
        What was mended on the way, for the log.
    """

    volume: Volume
    notes: tuple[str, ...] = ()


def read_mri(scan: RawScan) -> Scan:
    """Read a T1 MRI.

    Raises
    ------
    VolumeError
        With a line for everything that keeps the scan from being used.
    """
    data, affine, stored = _read(scan, "MRI")
    return _checked(scan, "MRI", data, affine, stored, notes=())


def read_pet(scan: RawScan) -> Scan:
    """Read an FDG-PET; of a dynamic one, take the mean over its frames, weighted by their length.

    Raises
    ------
    VolumeError
        With a line for everything that keeps the scan from being used.
    """
    if scan.units and scan.units.lower().replace(" ", "") not in PET_UNITS:
        raise VolumeError(
            f"{scan.path}: the PET's unit is {scan.units!r}; wanted one of activity, such as Bq/mL or SUVR:"
            " is this the reconstructed PET?"
        )
    data, affine, stored = _read(scan, "PET")
    notes: tuple[str, ...] = ()
    if data.ndim == 4:
        data, note = _frame_mean(scan, data)
        notes = (note,)
    return _checked(scan, "PET", data, affine, stored, notes=notes)


def _read(scan: RawScan, kind: str) -> tuple[NDArray[np.float32], NDArray[np.float64], str]:
    if scan.inside:  # the published files hold arrays on the published grid, without an affine
        data = read_array(scan.path, scan.inside)
        head = template(1.5).head
        if data.shape != head.shape:
            raise VolumeError(f"{scan.path}: {scan.inside} has shape {data.shape}, wanted {head.shape}")
        return data, head.affine, "RAS"
    found = read_image(scan.path)
    if len(found.shape) < 3:
        raise _dimensions(scan, found.shape)
    _check_geometry(scan, found, kind)
    image = nib.as_closest_canonical(found)
    return image.get_fdata(dtype=np.float32), np.asarray(image.affine, np.float64), axis_codes(found)


def _dimensions(scan: RawScan, shape: tuple[int, ...]) -> VolumeError:
    return VolumeError(
        f"{scan.path}: found {len(shape)} dimensions {shape}, wanted 3; give one volume: is this a T1 MRI?"
    )


def _check_geometry(scan: RawScan, image: SpatialImage, kind: str) -> None:
    """Refuse what the header says wrongly about space."""
    problems = Problems(f"{scan.path}: this {kind} cannot be used")
    header = image.header
    sizes = np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0)
    extent = sizes * np.asarray(image.shape[:3])
    words = " x ".join(f"{size:.4g}" for size in sizes)
    if isinstance(header, nib.Nifti1Header):
        unit = header.get_xyzt_units()[0]
        if unit not in ("mm", "unknown"):
            problems.add(
                f"the header's unit of length is {unit}, wanted mm; export it again, or mend the header"
            )
        try:
            disagreement = _disagreement(header, image.shape[:3])
        except ValueError as error:
            disagreement = 0.0
            problems.add(f"its qform is no rotation ({error}); copy the sform over it")
        if disagreement is None:
            problems.add(
                "neither sform nor qform says how the scan lies: left may be right;"
                " convert it again from DICOM (dcm2niix)"
            )
        elif disagreement > LARGEST_DISAGREEMENT:
            problems.add(
                f"sform and qform disagree by {disagreement:.1f} mm: one of them is wrong;"
                " find out which, and copy it over the other"
            )
    if sizes.min() < SMALLEST_VOXEL or sizes.max() > LARGEST_VOXEL[kind]:
        problems.add(
            f"voxels of {words} mm, wanted {SMALLEST_VOXEL:g} to {LARGEST_VOXEL[kind]:g} mm along each axis;"
            " take the 3D series, or mend the unit"
        )
    elif extent.min() < LEAST_EXTENT:
        problems.add(f"covers {extent.min():.0f} mm along one axis, wanted {LEAST_EXTENT:.0f}: a whole head")
    problems.raise_if_any(VolumeError)


def _disagreement(header: nib.Nifti1Header, shape: tuple[int, ...]) -> float | None:
    """Return mm between the places that sform and qform give a corner; 0 of one alone, None of none."""
    sform, qform = header.get_sform(coded=True), header.get_qform(coded=True)
    if not sform[1] and not qform[1]:
        return None
    if not sform[1] or not qform[1]:
        return 0.0
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
    corners[:, :3] *= np.asarray(shape) - 1
    apart = corners @ (np.asarray(sform[0]) - np.asarray(qform[0])).T
    return float(np.linalg.norm(apart[:, :3], axis=1).max())


def _frame_mean(scan: RawScan, data: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
    frames = data.shape[3]
    if scan.frame_seconds and len(scan.frame_seconds) != frames:
        raise VolumeError(
            f"{scan.path}: found {frames} frames and {len(scan.frame_seconds)} frame lengths in its metadata;"
            " wanted as many"
        )
    seconds = np.asarray(scan.frame_seconds or np.ones(frames), dtype=np.float64)
    if not (np.isfinite(seconds).all() and (seconds > 0).all()):
        raise VolumeError(f"{scan.path}: frame lengths {seconds.tolist()}, wanted seconds above 0")
    mean = np.tensordot(data, (seconds / seconds.sum()).astype(np.float32), axes=(3, 0))
    how = "weighted by their length" if scan.frame_seconds else "all alike: their lengths are not known"
    return np.asarray(mean, np.float32), f"mean of {frames} frames, {how}"


def _checked(
    scan: RawScan,
    kind: str,
    data: NDArray[np.float32],
    affine: NDArray[np.float64],
    stored: str,
    *,
    notes: tuple[str, ...],
) -> Scan:
    """Refuse what the voxels cannot be; clip small negative values."""
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise _dimensions(scan, data.shape)
    bad = int(data.size - np.isfinite(data).sum())
    if bad:
        raise VolumeError(
            f"{scan.path}: {bad} of {data.size} voxels are NaN or infinite; wanted none: export it again,"
            " or set them to 0 if they lie outside the scanned box"
        )
    if float(data.max()) <= 0 or float(data.std()) == 0:
        raise VolumeError(f"{scan.path}: the {kind} is empty (one value everywhere); export it again")
    negative = float(-data[data < 0].sum(dtype=np.float64) / np.abs(data).sum(dtype=np.float64))
    if negative > LARGEST_NEGATIVE[kind]:
        raise VolumeError(
            f"{scan.path}: {100 * negative:.0f} % of the {kind}'s intensity is negative, wanted at most"
            f" {100 * LARGEST_NEGATIVE[kind]:.0f} %; is it a {kind}, and not a z map or CT?"
        )
    if negative:
        notes = (*notes, f"{100 * negative:.2g} % of the intensity was negative, set to 0")
    clipped = np.clip(data, 0, None) if negative else data
    return Scan(Volume(clipped, affine, "arbitrary", stored), notes)
