# SPDX-License-Identifier: Apache-2.0
"""The door for raw scans: what is refused, with its sentence, and what is taken as it is or mended."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pasta_model.errors import VolumeError
from pasta_model.prepare.records import RawScan
from pasta_model.prepare.scans import Scan, read_mri, read_pet

SIDE, VOXEL = 24, 4.0  # 96 mm: just enough for a head
READ = {"MRI": read_mri, "PET": read_pet}
both = pytest.mark.parametrize("kind", ["MRI", "PET"])


def tissue(*shape: int) -> np.ndarray:
    """Return random positive values, every one different."""
    return np.random.default_rng(1).uniform(1.0, 2.0, shape or (SIDE,) * 3).astype(np.float32)


def diagonal(*sizes: float) -> np.ndarray:
    return np.diag([*(sizes or (VOXEL,) * 3), 1.0])


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., RawScan]:
    """Write a NIfTI; by default sform and qform agree, and the unit is mm."""

    def run(data: np.ndarray, affine: np.ndarray | None = None, **changes: object) -> RawScan:
        affine = diagonal() if affine is None else affine
        image = nib.Nifti1Image(data, affine)
        image.set_sform(affine, code=changes.get("sform", 1))
        image.set_qform(changes.get("qform_affine", affine), code=changes.get("qform", 1))
        image.header.set_xyzt_units(changes.get("unit", "mm"))
        path = tmp_path / str(changes.get("name", "scan.nii.gz"))
        nib.save(image, path)
        about = {key: changes[key] for key in ("units", "frame_seconds") if key in changes}
        return RawScan(path, "ses-M000", **about)

    return run


def refusal(kind: str, scan: RawScan) -> str:
    """Return the one message of a scan that is refused; it begins with the file."""
    with pytest.raises(VolumeError) as error:
        READ[kind](scan)
    assert str(error.value).startswith(str(scan.path))
    return str(error.value)


@both
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_whole_scan_is_read_as_it_is(write, kind: str, name: str) -> None:
    found = READ[kind](write(tissue(), name=name))
    assert np.array_equal(found.volume.data, tissue())
    assert np.allclose(found.volume.affine, diagonal())
    assert (found.volume.stored, found.notes) == ("RAS", ())


def test_an_mri_of_several_volumes_is_refused(write) -> None:
    assert "found 4 dimensions (24, 24, 24, 2), wanted 3" in refusal(
        "MRI", write(tissue(SIDE, SIDE, SIDE, 2))
    )


@both
def test_a_fourth_axis_of_one_volume_is_no_fourth_axis(write, kind: str) -> None:
    data = tissue(SIDE, SIDE, SIDE, 1)
    assert np.array_equal(READ[kind](write(data)).volume.data, data[..., 0])


@both
@pytest.mark.parametrize("shape", [(SIDE, SIDE), (SIDE, SIDE, SIDE, 2, 2)])
def test_a_picture_and_five_dimensions_are_refused(write, kind: str, shape: tuple[int, ...]) -> None:
    assert f"found {len(shape)} dimensions" in refusal(kind, write(tissue(*shape)))


@both
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_counted_and_refused(write, kind: str, value: float) -> None:
    data = tissue()
    data[0, 0, :3] = value
    assert "3 of 13824 voxels are NaN or infinite" in refusal(kind, write(data))


def test_nan_in_one_frame_is_refused(write) -> None:
    data = tissue(SIDE, SIDE, SIDE, 3)
    data[1, 2, 3, 1] = np.nan
    assert "1 of 13824 voxels are NaN" in refusal("PET", write(data))


@both
def test_a_little_below_zero_is_set_to_zero_and_noted(write, kind: str) -> None:
    data = tissue()
    data[:1, :1, :10] = -1.0
    found = READ[kind](write(data))
    assert np.array_equal(found.volume.data, np.maximum(data, 0))
    assert "negative, set to 0" in found.notes[0]


@both
def test_much_below_zero_is_refused(write, kind: str) -> None:
    data = tissue()
    data[: SIDE // 2] *= -1
    message = refusal(kind, write(data))
    assert f"50 % of the {kind}'s intensity is negative" in message


def test_a_pet_may_have_more_noise_below_zero_than_an_mri(write) -> None:
    data = np.ones((SIDE,) * 3, np.float32)
    data.ravel()[:: SIDE * 2] = -1.0  # 2 % of the voxels
    assert "2 % of the MRI's intensity is negative" in refusal("MRI", write(data))
    assert read_pet(write(data)).volume.data.min() == 0


@both
def test_sform_and_qform_that_disagree_are_refused_with_the_distance(write, kind: str) -> None:
    moved = diagonal()
    moved[1, 3] = 5.0
    assert "sform and qform disagree by 5.0 mm" in refusal(kind, write(tissue(), qform_affine=moved))


def test_sform_and_qform_that_mirror_each_other_are_refused(write) -> None:
    mirrored = diagonal(-VOXEL, VOXEL, VOXEL)
    assert "disagree by 184.0 mm" in refusal("MRI", write(tissue(), qform_affine=mirrored))  # 2 * 23 * 4


def test_half_a_millimetre_between_sform_and_qform_is_rounding(write) -> None:
    moved = diagonal()
    moved[1, 3] = 0.5
    assert np.array_equal(read_mri(write(tissue(), qform_affine=moved)).volume.data, tissue())


@pytest.mark.parametrize("codes", [{"sform": 0}, {"qform": 0}])
def test_one_of_sform_and_qform_is_enough(write, codes: dict[str, int]) -> None:
    assert np.allclose(read_mri(write(tissue(), **codes)).volume.affine, diagonal())


@both
def test_without_any_code_left_may_be_right(write, kind: str) -> None:
    assert "neither sform nor qform" in refusal(kind, write(tissue(), sform=0, qform=0))


def test_a_qform_that_is_no_rotation_is_refused(write) -> None:
    scan = write(tissue(), name="scan.nii")
    header = bytearray(scan.path.read_bytes())
    header[256:268] = np.array([0.9, 0.9, 0.9], "<f4").tobytes()  # quatern_b, c, d: longer than 1
    scan.path.write_bytes(header)
    assert "qform" in refusal("MRI", scan)


@pytest.mark.parametrize("stored", ["LAS", "RPI", "PIR", "ASL"])
def test_flipped_and_swapped_axes_come_as_ras_and_the_stored_ones_are_kept(write, stored: str) -> None:
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(stored)
    )
    upright = nib.Nifti1Image(tissue(SIDE, SIDE + 1, SIDE + 2), diagonal(4.0, 3.9, 3.8))
    turned = upright.as_reoriented(turn)
    found = read_mri(write(np.asarray(turned.dataobj), turned.affine)).volume
    assert found.stored == stored
    assert np.array_equal(found.data, upright.get_fdata(dtype=np.float32))
    assert np.allclose(found.affine, upright.affine, atol=1e-4)


@both
def test_oblique_axes_are_accepted_and_every_voxel_stays_at_its_place(write, kind: str) -> None:
    angle = np.deg2rad(20.0)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = (-30.0, 12.0, 7.0)
    affine = turn @ diagonal(-VOXEL, VOXEL, VOXEL)
    data = tissue()
    data[5, 6, 7] = 99.0
    found = READ[kind](write(data, affine)).volume
    assert found.stored == "LAS"
    here = np.append(np.unravel_index(found.data.argmax(), found.data.shape), 1)
    assert np.allclose(found.affine @ here, affine @ (5, 6, 7, 1), atol=1e-3)


def test_anisotropic_voxels_are_accepted(write) -> None:
    affine = diagonal(1.0, 1.25, 4.0)
    assert np.allclose(read_mri(write(tissue(96, 80, SIDE), affine)).volume.affine, affine)


@pytest.mark.parametrize(("kind", "thick", "limit"), [("MRI", 5.0, 4), ("PET", 9.0, 8)])
def test_slices_too_thick_are_refused(write, kind: str, thick: float, limit: int) -> None:
    message = refusal(kind, write(tissue(), diagonal(VOXEL, VOXEL, thick)))
    assert f"voxels of 4 x 4 x {thick:g} mm, wanted 0.2 to {limit} mm" in message


def test_a_pets_slices_may_be_thicker_than_an_mris(write) -> None:
    assert read_pet(write(tissue(), diagonal(VOXEL, VOXEL, 5.0))).volume.data.shape == (SIDE,) * 3


@both
def test_a_header_in_metres_is_refused(write, kind: str) -> None:
    assert "unit of length is meter, wanted mm" in refusal(kind, write(tissue(), unit="meter"))


def test_metres_that_call_themselves_mm_are_refused(write) -> None:
    assert "voxels of 0.004 x 0.004 x 0.004 mm" in refusal("MRI", write(tissue(), diagonal(*[0.004] * 3)))


def test_a_header_that_names_no_unit_is_in_mm(write) -> None:
    assert np.allclose(read_mri(write(tissue(), unit="unknown")).volume.affine, diagonal())


@both
def test_too_small_a_field_of_view_is_no_head(write, kind: str) -> None:
    message = refusal(kind, write(tissue(SIDE, SIDE, 20)))
    assert "covers 80 mm along one axis, wanted 90: a whole head" in message


def test_all_that_is_wrong_with_the_header_is_told_at_once(write) -> None:
    scan = write(tissue(SIDE, SIDE, 20), unit="meter", sform=0, qform=0)
    message = refusal("MRI", scan)
    for word in ("3 problem(s)", "meter", "neither sform nor qform", "80 mm"):
        assert word in message


@both
@pytest.mark.parametrize("value", [0.0, 7.0])
def test_an_empty_volume_is_refused(write, kind: str, value: float) -> None:
    assert f"the {kind} is empty" in refusal(kind, write(np.full((SIDE,) * 3, value, np.float32)))


@both
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_gz_is_refused(write, kind: str, share: float) -> None:
    scan = write(tissue())
    os.truncate(scan.path, int(share * scan.path.stat().st_size))
    assert "may be truncated" in refusal(kind, scan)


def test_a_truncated_nifti_and_a_gz_that_is_none_are_refused(write) -> None:
    scan = write(tissue(), name="scan.nii")
    os.truncate(scan.path, scan.path.stat().st_size - 100)
    assert "may be truncated" in refusal("MRI", scan)
    lying = write(tissue())
    lying.path.write_bytes(gzip.decompress(lying.path.read_bytes()))
    assert "not a readable NIfTI" in refusal("MRI", lying)


@pytest.mark.parametrize("units", ["HU", "unitless", "Bq"])
def test_a_pet_in_another_unit_is_refused(write, units: str) -> None:
    assert f"the PET's unit is {units!r}" in refusal("PET", write(tissue(), units=units))


@pytest.mark.parametrize("units", ["", "Bq/mL", "bq/ml", "kBq/mL", "BQML", "SUV", "SUVR", "g/mL"])
def test_units_of_activity_are_accepted(write, units: str) -> None:
    assert np.array_equal(read_pet(write(tissue(), units=units)).volume.data, tissue())


def frames_of(*values: float) -> np.ndarray:
    """Return frames in which a block holds each frame's value, in a head of 1."""
    data = np.ones((SIDE, SIDE, SIDE, len(values)), np.float32)
    data[3:6, 3:6, 3:6] = values
    return data


def block(found: Scan) -> float:
    return float(found.volume.data[4, 4, 4])


def test_frames_are_weighted_by_their_length(write) -> None:
    found = read_pet(write(frames_of(2.0, 4.0, 9.0), frame_seconds=(60.0, 120.0, 300.0)))
    assert block(found) == pytest.approx((60 * 2 + 120 * 4 + 300 * 9) / 480)  # 6.875
    assert found.volume.data[0, 0, 0] == pytest.approx(1.0)
    assert found.notes == ("mean of 3 frames, weighted by their length",)


def test_frames_of_unknown_length_count_alike(write) -> None:
    found = read_pet(write(frames_of(2.0, 4.0, 9.0)))
    assert block(found) == pytest.approx(5.0)
    assert "not known" in found.notes[0]


def test_as_many_lengths_as_frames_are_wanted(write) -> None:
    message = refusal("PET", write(frames_of(2.0, 4.0, 9.0), frame_seconds=(60.0, 120.0)))
    assert "found 3 frames and 2 frame lengths" in message


@pytest.mark.parametrize("length", [0.0, -60.0, np.nan])
def test_a_frame_takes_time(write, length: float) -> None:
    scan = write(frames_of(2.0, 4.0), frame_seconds=(60.0, length))
    assert "wanted seconds above 0" in refusal("PET", scan)


@both
def test_a_colour_picture_is_refused(write, tmp_path: Path, kind: str) -> None:
    colours = np.zeros((SIDE,) * 3, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colours, diagonal()), tmp_path / "rgb.nii.gz")
    assert "not a readable NIfTI" in refusal(kind, RawScan(tmp_path / "rgb.nii.gz", "ses-M000"))


@both
def test_whole_numbers_with_a_slope_are_read_in_their_unit(write, tmp_path: Path, kind: str) -> None:
    image = nib.Nifti1Image(np.arange(SIDE**3, dtype=np.int16).reshape((SIDE,) * 3), diagonal())
    image.set_qform(diagonal(), code=1)
    image.header.set_slope_inter(0.5, 1.0)
    nib.save(image, tmp_path / "whole.nii.gz")
    found = READ[kind](RawScan(tmp_path / "whole.nii.gz", "ses-M000")).volume
    assert found.data[0, 0, 2] == pytest.approx(2.0)
