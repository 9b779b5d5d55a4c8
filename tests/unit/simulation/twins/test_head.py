# SPDX-License-Identifier: Apache-2.0
"""The head around a twin: layers in their order, and a brain that keeps its values."""

import numpy as np
import pytest
from scipy import ndimage

from pasta_model.data.grid import template
from simulation.twins.head import Head, bare_head, build_head

INNER = template(3.0).head


def twin_scans() -> tuple[np.ndarray, np.ndarray]:
    """An egg of white matter with an uptake of 1."""
    offset = (INNER.coordinates() - np.array([0, -16, 5])) / np.array([66, 84, 66])
    egg = (np.linalg.norm(offset, axis=-1) < 1).astype(np.float32)
    return 300 * egg, egg


@pytest.fixture(scope="module")
def head() -> Head:
    return build_head(np.random.default_rng(0), *twin_scans(), spacing=3.0)


def along(head: Head, data: np.ndarray, direction: tuple[int, int, int], depths: np.ndarray) -> np.ndarray:
    """Values from the middle of the egg outwards, at mm beyond its surface."""
    radius = {(1, 0, 0): 66, (0, -1, 0): 84, (0, 0, 1): 66}[direction]
    points = np.array([0, -16, 5]) + np.outer(radius + depths, direction)
    index = (points - np.asarray(head.grid.origin)) / head.grid.spacing
    return ndimage.map_coordinates(data, index.T, order=1)


def test_brain_keeps_its_values_in_the_middle_of_more_room(head: Head) -> None:
    mri, pet = twin_scans()
    bare = bare_head(mri, pet, spacing=3.0)
    inside = bare.t1 > 0
    np.testing.assert_array_equal(head.t1[inside], 1.0)
    assert np.argwhere(inside).mean(axis=0) * 3.0 + bare.grid.origin == pytest.approx([0, -16, 5], abs=0.8)
    assert head.suvr[inside].mean() == pytest.approx(1.0, abs=0.03)
    assert bare.suvr.sum() == pet.sum()


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, -1, 0), (0, 0, 1)])
def test_layers_lie_in_their_order(head: Head, direction: tuple[int, int, int]) -> None:
    profile = along(head, head.t1, direction, np.arange(0.0, 40.0))
    dark = profile[3:13].min()
    bright = 8 + int(profile[8:25].argmax())
    assert dark < 0.2  # fluid and bone
    assert profile[bright] > 0.7  # fat
    assert 9 <= bright <= 20
    assert profile[-8:].max() < 0.01  # air
    uptake = along(head, head.suvr, direction, np.arange(0.0, 40.0))
    assert 0.05 < uptake[bright] < 0.4
    assert uptake[-4:].max() < 0.02


def test_face_and_neck_lie_in_front_and_below(head: Head) -> None:
    def tissue(x: float, y: float, z: float) -> float:
        index = np.rint((np.array([x, y, z]) - head.grid.origin) / head.grid.spacing).astype(int)
        around = tuple(slice(i - 2, i + 3) for i in index)
        return float(head.t1[around].mean())

    assert tissue(20, 66, -92) > 0.15  # face
    assert tissue(30, -40, -140) > 0.15  # neck
    assert tissue(0, -100, -140) < 0.02  # air behind the neck
    assert tissue(30, -20, -156) > 0.15  # down to the border


def test_seed_decides(head: Head) -> None:
    same, other = (build_head(np.random.default_rng(seed), *twin_scans(), spacing=3.0) for seed in (0, 1))
    np.testing.assert_array_equal(head.t1, same.t1)
    assert np.abs(head.t1 - other.t1).max() > 0.1
