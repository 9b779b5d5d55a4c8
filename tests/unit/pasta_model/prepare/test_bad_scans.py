# SPDX-License-Identifier: Apache-2.0
"""The door for raw scans: each bad input of a hospital has its own message; odd but good ones come in."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pasta_model.errors import VolumeError
from pasta_model.prepare.records import RawScan
from pasta_model.prepare.scans import read_mri, read_pet

SHAPE, VOXEL = (24, 26, 25), 4.0


def data(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 100, SHAPE).astype(np.float32)


def save(
    path: Path, array: np.ndarray, affine: np.ndarray | None = None, *, codes=(1, 1), unit="mm"
) -> RawScan:
    image = nib.Nifti1Image(array, np.diag([VOXEL] * 3 + [1.0]) if affine is None else affine)
    affine = image.affine
    image.set_sform(affine, code=codes[0], update_affine=False)
    image.set_qform(affine, code=codes[1], update_affine=False)
    image.header.set_xyzt_units(unit)
    image.to_filename(path)
    return RawScan(path, "ses-M000")


def refused(scan: RawScan, read=read_mri) -> str:
    with pytest.raises(VolumeError) as error:
        read(scan)
    return str(error.value)


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_both_kinds_of_nifti_are_read(tmp_path, name):
    found = read_mri(save(tmp_path / name, data()))
    assert np.allclose(found.volume.data, data())


def test_a_4d_mri_is_refused_but_one_frame_is_a_volume(tmp_path):
    four = np.stack([data(), data(1)], axis=-1)
    assert "4 dimensions" in refused(save(tmp_path / "four.nii", four))
    assert read_mri(save(tmp_path / "one.nii", four[..., :1])).volume.data.shape == SHAPE


def test_nan_is_counted(tmp_path):
    holed = data()
    holed[:2, 0, 0] = np.nan
    assert f"2 of {holed.size} voxels are NaN" in refused(save(tmp_path / "nan.nii", holed))


def test_small_negative_values_become_zero_and_large_ones_are_refused(tmp_path):
    little, much = data(), data()
    little[0, 0, 0] = -5.0
    much[:12] *= -1
    found = read_mri(save(tmp_path / "little.nii", little))
    assert found.volume.data[0, 0, 0] == 0
    assert "negative" in found.notes[0]
    assert "negative" in refused(save(tmp_path / "much.nii", much))


def test_sform_and_qform_that_disagree_are_refused_with_the_distance(tmp_path):
    image = nib.Nifti1Image(data(), np.diag([VOXEL] * 3 + [1.0]))
    image.set_qform(image.affine, code=1)
    moved = image.affine.copy()
    moved[0, 3] = 7.0
    image.set_sform(moved, code=2)
    nib.save(image, tmp_path / "two.nii")
    assert "disagree by 7.0 mm" in refused(RawScan(tmp_path / "two.nii", ""))


def test_without_an_orientation_left_may_be_right(tmp_path):
    scan = save(tmp_path / "none.nii", data())
    whole = bytearray(scan.path.read_bytes())
    whole[252:256] = bytes(4)  # qform_code and sform_code; nibabel would not write it
    scan.path.write_bytes(whole)
    assert "left may be right" in refused(scan)


@pytest.mark.parametrize("codes", [(1, 0), (0, 1)])
def test_one_code_is_enough(tmp_path, codes):
    assert read_mri(save(tmp_path / "one.nii", data(), codes=codes)).volume.stored == "RAS"


def test_oblique_and_flipped_axes_keep_their_place_in_space(tmp_path):
    angle = np.deg2rad(15)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-VOXEL, VOXEL, VOXEL])
    affine[:3, 3] = (50, -40, -30)
    found = read_mri(save(tmp_path / "oblique.nii", data(), affine)).volume

    assert found.stored == "LAS"
    index = np.array([3, 4, 5])
    mirrored = np.array([SHAPE[0] - 1 - 3, 4, 5])
    assert np.allclose(
        found.affine[:3, :3] @ mirrored + found.affine[:3, 3], affine[:3, :3] @ index + affine[:3, 3]
    )
    assert found.data[tuple(mirrored)] == data()[tuple(index)]


def test_thick_slices_and_wrong_units_of_length_are_refused(tmp_path):
    assert "voxels of 4 x 4 x 6 mm" in refused(save(tmp_path / "thick.nii", data(), np.diag([4, 4, 6, 1.0])))
    assert read_mri(save(tmp_path / "anisotropic.nii", data(), np.diag([4, 3.8, 4, 1.0])))
    assert "meter" in refused(save(tmp_path / "metre.nii", data(), unit="meter"))
    assert "voxels of 0.004" in refused(save(tmp_path / "metres.nii", data(), np.diag([0.004] * 3 + [1.0])))


def test_less_than_a_head_is_refused(tmp_path):
    assert "a whole head" in refused(save(tmp_path / "part.nii", data()[:, :, :10]))


def test_an_empty_scan_and_a_truncated_one_are_refused(tmp_path):
    assert "empty" in refused(save(tmp_path / "empty.nii", np.zeros(SHAPE, np.float32)))
    save(tmp_path / "whole.nii.gz", data())
    whole = (tmp_path / "whole.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refused(RawScan(tmp_path / "cut.nii.gz", ""))
    raw = gzip.decompress(whole)
    (tmp_path / "cut.nii").write_bytes(raw[: len(raw) // 2])
    assert "truncated" in refused(RawScan(tmp_path / "cut.nii", ""))


def test_frames_are_weighted_by_their_length(tmp_path):
    scan = save(tmp_path / "pet.nii", np.stack([data(), data(1)], axis=-1))
    long = RawScan(scan.path, "", frame_seconds=(300.0, 100.0), units="Bq/mL")
    found = read_pet(long)
    assert np.allclose(found.volume.data, 0.75 * data() + 0.25 * data(1), rtol=1e-5)
    assert "weighted" in found.notes[0]
    assert np.allclose(read_pet(scan).volume.data, (data() + data(1)) / 2, rtol=1e-5)
    assert "3 frame lengths" in refused(RawScan(scan.path, "", frame_seconds=(1.0, 2.0, 3.0)), read_pet)


def test_a_pet_in_hounsfield_units_is_no_pet(tmp_path):
    scan = save(tmp_path / "ct.nii", data())
    assert "'HU'" in refused(RawScan(scan.path, "", units="HU"), read_pet)
    assert read_pet(RawScan(scan.path, "", units="BQ/ML"))
