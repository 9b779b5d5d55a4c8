# SPDX-License-Identifier: Apache-2.0
"""The two grids of the project."""

import numpy as np
import pytest

from pasta_model.data.grid import Grid, template, template_of
from pasta_model.errors import ConfigError, VolumeError


def box(grid: Grid) -> np.ndarray:
    """Outer faces in mm, (2, 3)."""
    low = np.array(grid.origin) - grid.spacing / 2
    return np.stack([low, low + grid.spacing * np.array(grid.shape)])


def test_both_crops_cover_the_same_box_of_the_head() -> None:
    np.testing.assert_allclose(box(template(1.5).crop), box(template(3.0).crop), atol=1e-9)


def test_published_sizes() -> None:
    assert template(1.5).head.shape == (113, 137, 113)
    assert template(1.5).size == (96, 112, 96)
    assert template(3.0).size == (48, 56, 48)


@pytest.mark.parametrize("spacing", [1.5, 3.0])
class TestTemplate:
    def test_crop_lies_in_the_head_where_its_affine_says(self, spacing: float) -> None:
        grid = template(spacing)
        inside = grid.head.coordinates()[grid.slices]
        assert inside.shape[:3] == grid.size
        np.testing.assert_allclose(inside, grid.crop.coordinates(), atol=1e-4)

    def test_coordinates_follow_the_affine(self, spacing: float) -> None:
        head = template(spacing).head
        np.testing.assert_allclose(head.coordinates()[3, 5, 7], (head.affine @ [3, 5, 7, 1])[:3], atol=1e-4)

    def test_there_and_back(self, spacing: float) -> None:
        grid = template(spacing)
        data = np.random.default_rng(0).normal(size=grid.head.shape).astype(np.float32)
        network = grid.to_network(data)
        assert network.shape == (grid.size[2], grid.size[0], grid.size[1])
        assert network.flags["C_CONTIGUOUS"]
        # The first axis is the axial slice.
        np.testing.assert_array_equal(network[0], data[:, :, grid.start[2]][grid.slices[:2]])
        back = grid.to_head(network, fill=-7.0)
        inside = np.zeros(grid.head.shape, bool)
        inside[grid.slices] = True
        np.testing.assert_array_equal(back[inside], data[inside])
        assert np.all(back[~inside] == -7)

    def test_is_recognised(self, spacing: float) -> None:
        head = template(spacing).head
        assert template_of(head.shape, head.affine + 1e-3) is template(spacing)

    @pytest.mark.parametrize(
        ("row", "column", "change"), [(0, 3, 3.0), (1, 1, 0.1), (0, 1, 0.2), (2, 2, -6.0)]
    )
    def test_other_affine_is_refused(self, spacing: float, row: int, column: int, change: float) -> None:
        head = template(spacing).head
        affine = head.affine.copy()
        affine[row, column] += change
        with pytest.raises(VolumeError, match=r"wanted MNI152 RAS\+ with \(113, 137, 113\).*\(56, 68, 56\)"):
            template_of(head.shape, affine)

    def test_other_shape_is_refused(self, spacing: float) -> None:
        head = template(spacing).head
        with pytest.raises(VolumeError, match="found"):
            template_of((*head.shape[:2], head.shape[2] + 1), head.affine)


def test_unknown_spacing() -> None:
    with pytest.raises(ConfigError, match=r"2\.0 mm; choose one of"):
        template(2.0)
