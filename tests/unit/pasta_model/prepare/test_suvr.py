# SPDX-License-Identifier: Apache-2.0
"""SUVR: uptake divided by its mean in the chosen region, and no guess where the PET does not reach."""

import numpy as np
import pytest

from pasta_model.data.grid import template
from pasta_model.data.metaroi import REFERENCES, reference_mask, region_masks
from pasta_model.data.volume import Volume
from pasta_model.errors import VolumeError
from pasta_model.prepare.suvr import reference_uptake, region_suvr

GRID = template(3.0).head


def pet_of(data: np.ndarray) -> Volume:
    return Volume(np.asarray(data, np.float32), GRID.affine)


def with_empty(name: str, share: float) -> tuple[Volume, int, int]:
    """Uptake 6 but in a share of the reference region; how many voxels are empty, and of how many."""
    data = np.full(GRID.shape, 6.0)
    voxels = np.argwhere(reference_mask(GRID, name))
    empty = int(share * len(voxels))
    data[tuple(voxels[:empty].T)] = 0.0
    return pet_of(data), empty, len(voxels)


@pytest.mark.parametrize("name", REFERENCES)
def test_uptake_is_the_mean_of_the_chosen_region_alone(name: str) -> None:
    mask = reference_mask(GRID, name)
    data = np.full(GRID.shape, 99.0)
    data[mask] = np.where(np.arange(mask.sum()) % 2, 3.0, 5.0)
    odd = mask.sum() // 2

    found = reference_uptake(pet_of(data), grid=GRID, reference=name)

    assert found == pytest.approx((3.0 * odd + 5.0 * (mask.sum() - odd)) / mask.sum())


@pytest.mark.parametrize("name", REFERENCES)
def test_a_region_that_the_pet_does_not_reach_is_refused_by_name(name: str) -> None:
    pet, empty, total = with_empty(name, 0.3)
    words = f"{100 * empty / total:.0f} % of the reference region {name} has no uptake"
    with pytest.raises(VolumeError, match=words):
        reference_uptake(pet, grid=GRID, reference=name)


def test_a_few_empty_voxels_are_borne_and_counted() -> None:
    pet, empty, total = with_empty("cerebellum", 0.09)
    assert empty > 0
    found = reference_uptake(pet, grid=GRID, reference="cerebellum")
    assert found == pytest.approx(6.0 * (total - empty) / total)


def test_a_large_uptake_keeps_its_digits() -> None:
    found = reference_uptake(pet_of(np.full(GRID.shape, 16777215.0)), grid=GRID, reference="cerebellum")
    assert found == 16777215.0  # Bq/ml; a sum in float32 would be off


def test_each_region_is_measured_against_the_uptake() -> None:
    data = np.zeros(GRID.shape)
    masks = region_masks(GRID)
    for number, mask in enumerate(masks.values(), start=1):
        data[mask] = 1000.0 * number

    found = region_suvr(pet_of(data), grid=GRID, uptake=2000.0)

    assert found == pytest.approx(dict(zip(masks, (0.5, 1.0, 1.5, 2.0, 2.5), strict=True)))
