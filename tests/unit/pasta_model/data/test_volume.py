# SPDX-License-Identifier: Apache-2.0
"""The two doors to NIfTI files: what comes in unharmed, what is refused."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pasta_model.data.grid import template
from pasta_model.data.volume import Volume, read_volume, write_volume
from pasta_model.errors import VolumeError

AFFINE = np.array([[3, 0, 0, -30.5], [0, 3, 0, -40], [0, 0, 3, 12.25], [0, 0, 0, 1.0]])


def random_volume(shape: tuple[int, ...] = (5, 6, 7)) -> Volume:
    return Volume(np.random.default_rng(1).normal(size=shape).astype(np.float32), AFFINE, "SUVR")


@pytest.mark.parametrize("name", ["pet.nii", "pet.nii.gz"])
class TestRoundTrip:
    def test_values_affine_and_unit(self, tmp_path: Path, name: str) -> None:
        volume = random_volume()
        write_volume(tmp_path / name, volume, description="synthetic")
        found = read_volume(tmp_path / name, unit="SUVR")
        assert found.data.dtype == np.float32
        np.testing.assert_array_equal(found.data, volume.data)
        np.testing.assert_allclose(found.affine, AFFINE, rtol=0, atol=1e-5)
        assert found.unit == "SUVR"

    def test_header_places_the_volume_twice_and_says_mm(self, tmp_path: Path, name: str) -> None:
        write_volume(tmp_path / name, random_volume(), description="synthetic é")
        header = nib.load(tmp_path / name).header
        np.testing.assert_allclose(header.get_sform(), AFFINE, atol=1e-5)
        np.testing.assert_allclose(header.get_qform(), AFFINE, atol=1e-5)
        assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 4)  # MNI152
        assert header.get_xyzt_units()[0] == "mm"
        assert header["descrip"].item().decode() == "synthetic é"

    def test_same_volume_same_bytes(self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        write_volume(tmp_path / name, random_volume())
        first = (tmp_path / name).read_bytes()
        monkeypatch.setattr("time.time", lambda: 4e8)
        write_volume(tmp_path / name, random_volume())
        assert (tmp_path / name).read_bytes() == first

    @pytest.mark.parametrize("kept", [0.0, 0.05, 0.5, 0.9])
    def test_truncated(self, tmp_path: Path, name: str, kept: float) -> None:
        write_volume(tmp_path / name, random_volume((20, 20, 20)))
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(kept * len(whole))])
        with pytest.raises(VolumeError, match="may be truncated"):
            read_volume(tmp_path / name)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_not_finite(self, tmp_path: Path, name: str, value: float) -> None:
        volume = random_volume()
        volume.data[1, 2, 3] = value
        write_volume(tmp_path / name, volume)
        with pytest.raises(VolumeError, match="1 of 210 voxels are NaN or infinite"):
            read_volume(tmp_path / name)


def test_message_about_a_truncated_file_is_one_line(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii", random_volume())
    (tmp_path / "a.nii").write_bytes((tmp_path / "a.nii").read_bytes()[:500])
    with pytest.raises(VolumeError) as error:
        read_volume(tmp_path / "a.nii")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("shape", [(4, 4, 4, 2), (4, 4, 4, 1)])
def test_four_dimensions(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nib.Nifti1Image(np.zeros(shape, np.float32), AFFINE).to_filename(tmp_path / "a.nii")
    with pytest.raises(VolumeError, match="found 4 dimensions"):
        read_volume(tmp_path / "a.nii")


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="no such file"):
        read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize("content", [b"", b"DICM" * 200, b"\x00" * 400])
def test_not_nifti(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(VolumeError, match="not a readable NIfTI"):
        read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize("offset", [40, 70])  # `dim` and `datatype` of the NIfTI header
def test_damaged_header(tmp_path: Path, offset: int) -> None:
    write_volume(tmp_path / "a.nii", random_volume())
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[offset : offset + 2] = b"\x77\x77"
    (tmp_path / "a.nii").write_bytes(bytes(content))
    with pytest.raises(VolumeError, match="not a readable NIfTI"):
        read_volume(tmp_path / "a.nii")


def test_las_comes_in_as_ras_with_every_voxel_at_its_place(tmp_path: Path) -> None:
    ras = random_volume()
    flipped = AFFINE.copy()
    flipped[0] = [-3, 0, 0, AFFINE[0, 3] + 3 * (ras.data.shape[0] - 1)]
    nib.Nifti1Image(ras.data[::-1].copy(), flipped).to_filename(tmp_path / "las.nii")
    found = read_volume(tmp_path / "las.nii")
    np.testing.assert_array_equal(found.data, ras.data)
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-5)


def test_integers_with_a_slope_are_scaled(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.full((2, 2, 2), 3, np.int16), AFFINE)
    image.header.set_slope_inter(0.5, 1.0)
    image.to_filename(tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[352:] = np.full(8, 3, "<i2").tobytes()  # nibabel rescales when it writes
    (tmp_path / "a.nii").write_bytes(bytes(content))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").data, 2.5)


def test_long_description_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="79 bytes"):
        write_volume(tmp_path / "a.nii", random_volume(), description="é" * 40)
    assert not list(tmp_path.iterdir())


def test_affine_of_the_template_survives(tmp_path: Path) -> None:
    grid = template(1.5).head
    write_volume(tmp_path / "a.nii", Volume(np.zeros((2, 2, 2), np.float32), grid.affine))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").affine, grid.affine)
