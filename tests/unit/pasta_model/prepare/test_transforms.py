# SPDX-License-Identifier: Apache-2.0
"""Transforms against oracles: nibabel for points, SciPy for moved voxels, hand-made lists of files."""

from pathlib import Path

import ants
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pasta_model.data.grid import Grid
from pasta_model.data.volume import Volume
from pasta_model.prepare.transforms import (
    AFFINE,
    INVERSE_AFFINE,
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

POINT = np.array([12.0, -34.0, 56.0])
GRID = Grid((30, 32, 28), (-30.0, -40.0, -20.0), 2.0)
entries = st.lists(st.floats(-1, 1), min_size=12, max_size=12)


def affine_of(values: list[float]) -> np.ndarray:
    """Any affine near enough to the identity to have an inverse."""
    matrix = np.eye(4)
    matrix[:3] += np.reshape(values, (3, 4)) * [0.2, 0.2, 0.2, 150.0]
    return matrix


def blob(centre: tuple[float, float, float], *, sigma: float = 5.0) -> Volume:
    distance = np.linalg.norm(GRID.coordinates() - np.asarray(centre, np.float32), axis=-1)
    return Volume(np.exp(-0.5 * (distance / sigma) ** 2), GRID.affine)


def centre_of(volume: Volume) -> np.ndarray:
    return nib.affines.apply_affine(volume.affine, ndimage.center_of_mass(volume.data))


def names(paths: list[str]) -> list[str]:
    return [Path(p).name for p in paths]


@settings(max_examples=20)
@given(entries)
def test_itk_moves_a_point_as_the_matrix_does(tmp_path_factory: pytest.TempPathFactory, values: list) -> None:
    path = tmp_path_factory.mktemp("xfm") / "m.txt"
    write_matrix(path, affine_of(values))

    x, y, z = ants.read_transform(str(path)).apply_to_point((-POINT[0], -POINT[1], POINT[2]))

    assert np.allclose((-x, -y, z), nib.affines.apply_affine(affine_of(values), POINT), atol=1e-3)


def test_a_file_with_a_centre_of_rotation_is_read_right(tmp_path: Path) -> None:
    path = tmp_path / "centred.txt"
    path.write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        "Parameters: 0 -1 0 1 0 0 0 0 1 1 2 3\nFixedParameters: 10 20 30\n"
    )
    # LPS, by hand: a quarter turn about (10, 20, 30), then (1, 2, 3) further; p = (-12, 34, 56)
    # p - c = (-22, 14, 26) -> (-14, -22, 26) + c + t = (-3, 0, 59)
    found = nib.affines.apply_affine(matrix_of(path), POINT)
    assert np.allclose(found, (3.0, 0.0, 59.0), atol=1e-6)


def test_both_directions_are_written_and_undo_each_other(tmp_path: Path) -> None:
    matrix = affine_of([0.5, -0.3, 0.1, 0.4] * 3)
    write_both(tmp_path, matrix)
    assert np.allclose(matrix_of(tmp_path / AFFINE), matrix, atol=1e-6)
    assert np.allclose(matrix_of(tmp_path / INVERSE_AFFINE) @ matrix, np.eye(4), atol=1e-5)


@pytest.mark.parametrize("interpolator", ["linear", "bSpline"])
def test_a_blob_moves_by_exactly_the_shift_against_it(tmp_path: Path, interpolator: str) -> None:
    shift = np.eye(4)
    shift[:3, 3] = (3.0, -5.0, 4.6)
    write_matrix(tmp_path / "t.txt", shift)

    moved = resample(
        blob((0, -8, 8)), onto=grid_volume(GRID), transforms=[str(tmp_path / "t.txt")],
        interpolator=interpolator,
    )  # fmt: skip

    assert np.allclose(centre_of(moved), np.array([0, -8, 8]) - shift[:3, 3], atol=0.05)


def test_of_a_list_the_first_transform_is_met_first(tmp_path: Path) -> None:
    stretch, shift = np.diag([0.5, 1.0, 1.0, 1.0]), np.eye(4)
    shift[0, 3] = 6.0
    write_matrix(tmp_path / "stretch.txt", stretch)
    write_matrix(tmp_path / "shift.txt", shift)
    paths = [str(tmp_path / name) for name in ("shift.txt", "stretch.txt")]

    moved = resample(blob((5, -8, 8), sigma=3.0), onto=grid_volume(GRID), transforms=paths)

    # 0.5 (x + 6) = 5; the other way round, 0.5 x + 6 = 5, it would be -2
    assert centre_of(moved)[0] == pytest.approx(4.0, abs=0.1)


def test_a_spline_never_rings_below_zero_and_identity_leaves_voxels(tmp_path: Path) -> None:
    box = np.zeros(GRID.shape, np.float32)
    box[10:20, 10:20, 10:20] = 1000.0
    half = np.eye(4)
    half[:3, 3] = 1.0
    write_matrix(tmp_path / "half.txt", half)
    volume = Volume(box, GRID.affine)

    moved = resample(
        volume, onto=volume, transforms=[str(tmp_path / "half.txt")], interpolator="bSpline"
    ).data

    raw = ants.apply_transforms(
        to_ants(volume), to_ants(volume), [str(tmp_path / "half.txt")], interpolator="bSpline"
    ).numpy()
    assert raw.min() < -10  # it would ring
    assert moved.min() == 0
    for interpolator in ("linear", "bSpline", "nearestNeighbor"):
        same = resample(volume, onto=volume, transforms=[], interpolator=interpolator).data
        assert np.allclose(same, box, atol=0.01)


def test_the_voxels_are_of_one_the_unit_of_the_other() -> None:
    moving = Volume(np.ones((5, 5, 5), np.float32), np.eye(4), "SUVR", "RAS")
    onto = Volume(np.zeros((4, 6, 7), np.float32), np.diag([2.0, 2.0, 2.0, 1.0]), "arbitrary", "LPS")
    found = resample(moving, onto=onto, transforms=[])
    assert (found.data.shape, found.unit, found.stored) == ((4, 6, 7), "SUVR", "LPS")
    assert np.array_equal(found.affine, onto.affine)
    assert found.data[3, 5, 6] == 0  # outside


def test_an_oblique_scan_lands_where_nibabel_puts_it() -> None:
    turn = nib.eulerangles.euler2mat(0.2, -0.15, 0.3)
    shape, axes = (60, 50, 28), turn @ np.diag([1.0, 1.3, 2.1])
    affine = nib.affines.from_matvec(axes, np.array([0, -8, 8]) - axes @ np.array(shape) / 2)
    there = nib.affines.apply_affine(affine, np.stack(np.indices(shape), axis=-1))
    distance = np.linalg.norm(there - (2.0, -6.0, 9.0), axis=-1)
    oblique = Volume(np.exp(-0.5 * (distance / 4.0) ** 2).astype(np.float32), affine)

    found = resample(oblique, onto=grid_volume(GRID), transforms=[])

    assert np.allclose(centre_of(found), (2.0, -6.0, 9.0), atol=0.1)


def test_scans_that_came_registered_need_no_warp_and_an_mri_alone_no_rigid(tmp_path: Path) -> None:
    write_both(tmp_path, np.eye(4))
    for bent in (False, True):
        alone = Alignment(tmp_path, bent=bent)
        lists = (alone.to_mri, alone.atlas_to_mri, alone.to_pet, alone.atlas_to_pet)
        assert [names(found) for found in lists] == [[AFFINE]] * 4
        assert names(alone.from_mri) == names(alone.atlas_from_mri) == [INVERSE_AFFINE]


def test_a_bent_alignment_goes_back_the_way_it_came(tmp_path: Path) -> None:
    for name in (AFFINE, INVERSE_AFFINE, WARP, INVERSE_WARP, RIGID):
        (tmp_path / name).write_bytes(b"")
    bent, straight = Alignment(tmp_path, bent=True), Alignment(tmp_path)
    assert names(bent.to_mri) == [WARP, AFFINE]
    assert names(bent.from_mri) == [INVERSE_AFFINE, INVERSE_WARP]
    assert names(bent.atlas_to_pet) == names(straight.atlas_to_pet) == [WARP, AFFINE, RIGID]
    assert names(straight.to_mri) == [AFFINE]
