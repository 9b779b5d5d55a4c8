# SPDX-License-Identifier: Apache-2.0
"""Between our volumes and ANTs: nothing is mirrored, shifted or lost on the way."""

from pathlib import Path

import ants
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pasta_model.data.volume import Volume
from pasta_model.prepare.transforms import (
    AFFINE,
    INVERSE_AFFINE,
    INVERSE_WARP,
    RIGID,
    WARP,
    Alignment,
    matrix_of,
    resample,
    to_ants,
    write_both,
    write_matrix,
)

numbers = st.lists(st.floats(-0.2, 0.2), min_size=12, max_size=12)


@settings(max_examples=25, deadline=None)
@given(numbers)
def test_a_matrix_survives_its_file(tmp_path_factory, values):
    matrix = np.eye(4)
    matrix[:3] += np.reshape(values, (3, 4)) * [1, 1, 1, 200]
    path = tmp_path_factory.mktemp("xfm") / "m.txt"
    write_matrix(path, matrix)
    assert np.allclose(matrix_of(path), matrix, atol=1e-5)


def test_an_oblique_voxel_lies_where_its_affine_says():
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.2, 1.0, 2.0])
    affine[:3, 3] = (5, -7, 11)
    image = to_ants(Volume(np.zeros((6, 7, 8), np.float32), affine))
    x, y, z = affine[:3, :3] @ [2, 3, 4] + affine[:3, 3]
    assert np.allclose(ants.transform_index_to_physical_point(image, [2, 3, 4]), (-x, -y, z), atol=1e-5)


def test_a_transform_pulls_and_a_spline_rings_not_below_zero(tmp_path: Path):
    data = np.zeros((12, 12, 12), np.float32)
    data[6, 5, 4] = 1.0
    volume = Volume(data, np.diag([2.0, 2.0, 2.0, 1.0]), "SUVR", "LAS")
    shift = np.eye(4)
    shift[:3, 3] = (4.0, 0.0, -2.0)  # the value at x comes from x + 4 mm
    write_matrix(tmp_path / "t.txt", shift)

    moved = resample(volume, onto=volume, transforms=[str(tmp_path / "t.txt")])
    smooth = resample(volume, onto=volume, transforms=[str(tmp_path / "t.txt")], interpolator="bSpline")

    assert np.unravel_index(moved.data.argmax(), data.shape) == (4, 5, 5)
    assert smooth.data.min() >= 0
    assert (moved.unit, moved.stored) == ("SUVR", "LAS")
    assert np.allclose(resample(volume, onto=volume, transforms=[]).data, data)


def test_only_a_bent_alignment_sends_the_scans_through_the_warp(tmp_path: Path):
    write_both(tmp_path, np.diag([2.0, 2.0, 2.0, 1.0]))
    for name in (WARP, INVERSE_WARP, RIGID):
        (tmp_path / name).write_bytes(b"")
    names = {bent: [Path(p).name for p in Alignment(tmp_path, bent=bent).to_pet] for bent in (False, True)}
    assert names == {False: [AFFINE, RIGID], True: [WARP, AFFINE, RIGID]}
    straight = Alignment(tmp_path)
    assert [Path(p).name for p in straight.atlas_to_mri] == [WARP, AFFINE]
    assert [Path(p).name for p in straight.from_mri] == [INVERSE_AFFINE]
    assert [Path(p).name for p in straight.atlas_from_mri] == [INVERSE_AFFINE, INVERSE_WARP]
    assert np.allclose(matrix_of(tmp_path / INVERSE_AFFINE), np.diag([0.5, 0.5, 0.5, 1.0]))
