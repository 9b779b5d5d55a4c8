# SPDX-License-Identifier: Apache-2.0
"""Back to the patient: on the raw voxels, where the raw scan has its structures."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec
from nibabel.eulerangles import euler2mat
from scipy import ndimage

from pasta_model.data.grid import template
from pasta_model.data.metaroi import METAROI_REGIONS, region_masks
from pasta_model.data.volume import Volume
from pasta_model.native import native_name, region_rows, to_native, write_native
from pasta_model.prepare.session import Prepared
from pasta_model.prepare.transforms import Alignment, grid_volume, resample, write_both
from pasta_model.synthesis import SyntheticPet

GRID = template(3.0).head
NAMES = [region.name for region in METAROI_REGIONS]
TO_MRI = from_matvec(1.04 * euler2mat(0.2, -0.1, 0.15), (12.0, -25.0, 31.0))  # MNI mm to the scanner's
PET_NAME = "sub-1_ses-a_space-MNI152_trc-18FFDG_desc-synthetic_pet.nii.gz"


def raw_scan() -> Volume:
    """Voxels of 2 x 2.2 x 2.5 mm that hold the whole head, axes LAS in the file."""
    shape, sizes = (120, 130, 110), np.array([2.0, 2.2, 2.5])
    centre = apply_affine(TO_MRI, (0.0, -17.0, 13.0))
    axes = euler2mat(0.1, 0.05, -0.1) @ np.diag(sizes)
    affine = from_matvec(axes, centre - axes @ (np.array(shape) / 2))
    return Volume(np.zeros(shape, np.float32), affine, "arbitrary", "LAS")


def prepared_with(folder: Path, matrix: np.ndarray, native: Volume) -> Prepared:
    folder.mkdir(exist_ok=True)
    write_both(folder, matrix)
    empty = grid_volume(GRID)
    return Prepared(empty, None, empty, empty, native, Alignment(folder), None, {}, {}, [])


def smooth(seed: int = 0) -> Volume:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(GRID.shape), 2.5)
    reach = GRID.coordinates() / np.array([70.0, 85.0, 65.0])
    inside = np.clip(3 - 3 * np.linalg.norm(reach - reach.mean(axis=(0, 1, 2)), axis=-1), 0, 1)
    return Volume((inside * (1.0 + 0.2 * noise / noise.std())).astype(np.float32), GRID.affine, "SUVR")


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return prepared_with(tmp_path / "xfm", TO_MRI, raw_scan())


def test_a_spot_of_mni_space_lies_where_the_patient_has_it(prepared: Prepared) -> None:
    spot = np.array([30.0, -40.0, 20.0])
    distance = np.linalg.norm(GRID.coordinates() - spot, axis=-1)
    pet = Volume(np.exp(-0.5 * (distance / 6.0) ** 2).astype(np.float32), GRID.affine, "SUVR")

    found = to_native(pet, prepared)

    there = apply_affine(found.affine, ndimage.center_of_mass(found.data))
    assert np.allclose(there, apply_affine(TO_MRI, spot), atol=0.2)
    assert found.data.shape == prepared.native.data.shape
    assert np.array_equal(found.affine, prepared.native.affine)


def test_there_and_back_is_the_same_pet(prepared: Prepared) -> None:
    pet = smooth()
    back = resample(
        to_native(pet, prepared), onto=grid_volume(GRID), transforms=prepared.alignment.to_mri
    ).data
    some = pet.data > 0
    assert np.corrcoef(back[some], pet.data[some])[0, 1] > 0.98
    assert back[some].mean() == pytest.approx(pet.data[some].mean(), rel=0.02)


def test_regions_are_measured_where_they_lie(prepared: Prepared) -> None:
    data = np.ones(GRID.shape, np.float32)
    spread = np.full(GRID.shape, 0.25, np.float32)
    for number, mask in enumerate(region_masks(GRID).values(), start=1):
        data[ndimage.binary_dilation(mask, iterations=2)] = number
    made = SyntheticPet(Volume(data, GRID.affine), Volume(spread, GRID.affine))

    rows = region_rows(made, prepared)

    assert [name for name, _, _ in rows] == [*NAMES, "metaroi"]
    means = [mean for _, mean, _ in rows]
    assert means[:5] == pytest.approx([1, 2, 3, 4, 5], rel=0.05)
    assert means[5] == pytest.approx(np.mean(means[:5]))
    assert [spread for _, _, spread in rows] == pytest.approx([0.25] * 6, rel=1e-3)


def test_one_sample_has_no_spread(prepared: Prepared) -> None:
    rows = region_rows(SyntheticPet(smooth(), None), prepared)
    assert [spread for _, _, spread in rows] == [None] * 6


def test_the_identity_measures_what_is_there(tmp_path: Path) -> None:
    pet = smooth()
    found = region_rows(SyntheticPet(pet, None), prepared_with(tmp_path, np.eye(4), grid_volume(GRID)))
    for (name, mean, _), mask in zip(found, region_masks(GRID).values(), strict=False):
        assert mean == pytest.approx(float(pet.data[mask].mean()), rel=1e-4), name


def test_files_lie_on_the_raw_voxels_and_say_what_they_are(prepared: Prepared, tmp_path: Path) -> None:
    spread = Volume(np.full(GRID.shape, 0.1, np.float32), GRID.affine, "SUVR")
    words = ("synthetic FDG-PET", "its spread")

    files = write_native(tmp_path / PET_NAME, SyntheticPet(smooth(), spread), prepared, words=words)

    start = "sub-1_ses-a_space-T1w_trc-18FFDG_desc-synthetic"
    assert [f.name for f in files] == [
        f"{start}_pet.nii.gz", f"{start}Spread_pet.nii.gz", f"{start}_metaroi.tsv"
    ]  # fmt: skip
    for path, text in zip(files[:2], words, strict=True):
        image = nib.load(path)
        assert "".join(nib.aff2axcodes(image.affine)) == "LAS"
        assert np.allclose(nib.as_closest_canonical(image).affine, prepared.native.affine, atol=1e-4)
        assert image.header["descrip"].item().decode() == text
        assert int(image.header["sform_code"]) == 1  # the scanner's space
    assert np.allclose(
        nib.as_closest_canonical(nib.load(files[0])).get_fdata(),
        to_native(smooth(), prepared).data,
        atol=1e-5,
    )


def test_the_table_has_a_row_a_region_and_their_mean(prepared: Prepared, tmp_path: Path) -> None:
    files = write_native(tmp_path / PET_NAME, SyntheticPet(smooth(), None), prepared, words=("a", "b"))

    assert len(files) == 2
    head, *rows = [line.split("\t") for line in files[-1].read_text().splitlines()]
    assert head == ["region", "synthetic_suvr", "spread"]
    assert [row[0] for row in rows] == [*NAMES, "metaroi"]
    assert {row[2] for row in rows} == {"n/a"}
    assert float(rows[5][1]) == pytest.approx(np.mean([float(row[1]) for row in rows[:5]]), abs=1e-4)


def test_a_name_changes_its_space_alone() -> None:
    assert native_name(PET_NAME) == PET_NAME.replace("MNI152", "T1w")
    assert "space-MNI152" not in native_name(PET_NAME)
