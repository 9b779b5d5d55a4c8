# SPDX-License-Identifier: Apache-2.0
"""A volume: array, affine and unit together; the two doors to NIfTI files."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import OrientationError
from nibabel.spatialimages import HeaderDataError, SpatialImage
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from pasta_model.errors import VolumeError
from pasta_model.files import atomic_path

Space = Literal["mni", "scanner"]


@dataclass(frozen=True)
class Volume:
    """A scan in memory.

    Attributes
    ----------
    data
        (x, y, z) float32, in `unit`, RAS+ orientation.
    affine
        (4, 4) voxel index to mm.
    unit
        "SUVR" for a PET, "arbitrary" for an MRI.
    stored
        Axis codes of the file ("LAS" where x runs from right to left); writing keeps them.
    """

    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    unit: str = "arbitrary"
    stored: str = "RAS"


def read_volume(path: Path, *, unit: str = "arbitrary") -> Volume:
    """Read a three-dimensional NIfTI file whole and bring it to RAS+.

    Raises
    ------
    VolumeError
        When the file is missing, truncated, not NIfTI, not 3D, or holds NaN or infinity.
    """
    found = read_image(path)
    image = nib.as_closest_canonical(found)
    data = image.get_fdata(dtype=np.float32)
    if data.ndim != 3:
        raise VolumeError(f"{path}: found {data.ndim} dimensions {data.shape}, wanted 3")
    bad = int(data.size - np.isfinite(data).sum())
    if bad:
        raise VolumeError(f"{path}: {bad} of {data.size} voxels are NaN or infinite; wanted none")
    return Volume(data, np.asarray(image.affine, dtype=np.float64), unit, axis_codes(found))


def axis_codes(image: SpatialImage) -> str:
    """Return where an image's axes run to, such as "LAS"."""
    return "".join(str(code) for code in nib.aff2axcodes(image.affine))


def read_image(path: Path) -> SpatialImage:
    """Read a NIfTI file of any number of dimensions whole; float32 in memory, header and axes as in the file.

    Raises
    ------
    VolumeError
        When the file is missing, truncated or not NIfTI.
    """
    if not path.is_file():
        raise VolumeError(f"{path}: no such file; check its path")
    try:
        found = _load(path)
        if None in nib.aff2axcodes(found.affine):
            raise ValueError("its affine leaves out an axis")
        found.get_fdata(dtype=np.float32)  # kept by the image
    except (
        ImageFileError,
        HeaderDataError,
        WrapStructError,
        OrientationError,
        EOFError,
        OSError,
        TypeError,  # a picture in colours
        ValueError,
        zlib.error,
    ) as error:
        reason = " ".join(str(error).split())
        raise VolumeError(
            f"{path}: not a readable NIfTI ({type(error).__name__}: {reason});"
            " the file may be truncated: copy or export it again"
        ) from error
    return found


def _load(path: Path) -> SpatialImage:
    """Read a file whole: a gzip's checksum stands at its end."""
    if path.suffix != ".gz":
        return cast("SpatialImage", nib.load(path))
    payload = gzip.decompress(path.read_bytes())
    version_2 = payload[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")  # size of the header, 540
    return (nib.Nifti2Image if version_2 else nib.Nifti1Image).from_bytes(payload)


def write_volume(path: Path, volume: Volume, *, description: str = "", space: Space = "mni") -> None:
    """Write a volume as float32 NIfTI, atomically, with the same sform and qform, axes as in its file.

    Parameters
    ----------
    description
        Free text for the header, at most 79 bytes; longer text is refused.
    space
        What the affine leads to, as the header's codes say: "mni" or "scanner".
    """
    encoded = description.encode()
    if len(encoded) > 79:
        raise VolumeError(f"a NIfTI description holds 79 bytes, found {len(encoded)}: shorten it")
    ras = nib.Nifti1Image(np.asarray(volume.data, dtype=np.float32), volume.affine)
    axes = nib.orientations.ornt_transform(
        nib.io_orientation(volume.affine), nib.orientations.axcodes2ornt(tuple(volume.stored))
    )
    image = ras.as_reoriented(axes)
    image.set_sform(image.affine, code=space)
    image.set_qform(image.affine, code=space)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = encoded
    with atomic_path(path) as temporary:
        # A gzip header holds the time of writing; without it the same seed gives the same bytes.
        payload = image.to_bytes()
        if path.name.endswith(".gz"):
            payload = gzip.compress(payload, compresslevel=6, mtime=0)
        temporary.write_bytes(payload)
