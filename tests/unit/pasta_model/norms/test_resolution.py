# SPDX-License-Identifier: Apache-2.0
"""PETs at a common resolution: no dim rim, any template grid, clear refusals."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from pasta_model.data.grid import template
from pasta_model.data.volume import Volume
from pasta_model.errors import ConfigError, VolumeError
from pasta_model.norms.resolution import common_resolution, on_crop
from pasta_model.prepare.template import template_brain

KNOWN = template(3.0)
BRAIN = template_brain(KNOWN.crop).mask
HEAD_BRAIN = template_brain(KNOWN.head).mask


def pet_on(grid, values) -> Volume:
    return Volume(np.asarray(values, np.float32), grid.affine, "SUVR")


def test_a_constant_brain_stays_constant_up_to_its_rim() -> None:
    smooth = common_resolution(pet_on(KNOWN.crop, np.where(BRAIN, 1.3, 0)), spacing=3.0, fwhm=8.0)
    np.testing.assert_allclose(smooth[BRAIN], 1.3, rtol=1e-4)
    assert not smooth[~BRAIN].any()


def test_deep_inside_it_is_scipys_gaussian_of_that_fwhm() -> None:
    values = np.where(BRAIN, np.random.default_rng(0).uniform(1, 2, KNOWN.crop.shape), 0)
    found = common_resolution(pet_on(KNOWN.crop, values), spacing=3.0, fwhm=8.0)
    sigma = 8.0 / 2.3548200450309493 / 3.0
    deep = ndimage.binary_erosion(BRAIN, iterations=8)
    np.testing.assert_allclose(found[deep], ndimage.gaussian_filter(values, sigma)[deep], rtol=1e-3)


def test_without_smoothing_the_pet_stays_as_it_is() -> None:
    values = np.where(BRAIN, np.random.default_rng(0).uniform(1, 2, KNOWN.crop.shape), 0).astype(np.float32)
    np.testing.assert_array_equal(common_resolution(pet_on(KNOWN.crop, values), spacing=3.0, fwhm=0), values)


def test_head_and_crop_give_the_same() -> None:
    values = np.where(HEAD_BRAIN, np.random.default_rng(0).uniform(1, 2, KNOWN.head.shape), 0)
    head, crop = pet_on(KNOWN.head, values), pet_on(KNOWN.crop, values[KNOWN.slices])
    masks = HEAD_BRAIN, HEAD_BRAIN[KNOWN.slices]
    found = [
        common_resolution(pet, spacing=3.0, fwhm=8.0, brain=mask)
        for pet, mask in zip((head, crop), masks, strict=True)
    ]
    np.testing.assert_array_equal(*found)


def test_with_a_brain_what_lies_outside_does_not_count_and_what_is_missing_inside_does() -> None:
    clean = np.where(BRAIN, 1.3, 0)
    glowing, holed = np.where(BRAIN, 1.3, 0.8), clean.copy()
    holed[20:28, 20:28, 20:28] = 0
    kept, seen = (
        common_resolution(pet_on(KNOWN.crop, v), spacing=3.0, fwhm=8.0, brain=BRAIN) for v in (glowing, holed)
    )
    np.testing.assert_allclose(kept[BRAIN], 1.3, rtol=1e-4)
    assert seen[24, 24, 24] < 0.1


def test_where_a_person_has_no_tissue_the_nearest_counts() -> None:
    shrunk = ndimage.binary_erosion(BRAIN, iterations=2)
    found = common_resolution(
        pet_on(KNOWN.crop, np.where(shrunk, 1.3, 0)), spacing=3.0, fwhm=8.0, brain=shrunk
    )
    np.testing.assert_allclose(found[BRAIN], 1.3, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unit": "arbitrary"}, "unit 'arbitrary', wanted SUVR"),
        ({"affine": np.diag([3.0, 3.0, 3.0, 1.0])}, "register and resample the PET first"),
        ({"data": np.full(KNOWN.crop.shape, np.nan, np.float32)}, "NaN or infinite"),
        ({"data": np.zeros(KNOWN.crop.shape, np.float32)}, "covers 0% of the template's brain"),
        ({"data": np.full(KNOWN.crop.shape, 900, np.float32)}, "is it in SUVR"),
    ],
)
def test_other_pets_are_refused(change, said) -> None:
    pet = replace(pet_on(KNOWN.crop, np.where(BRAIN, 1.3, 0)), **change)
    with pytest.raises(VolumeError, match=said):
        common_resolution(pet, spacing=3.0, fwhm=8.0)


def test_a_mask_of_another_grid_is_refused() -> None:
    pet = pet_on(KNOWN.crop, np.where(BRAIN, 1.3, 0))
    for mask in (HEAD_BRAIN, np.zeros(BRAIN.shape, bool)):
        with pytest.raises(VolumeError, match="wanted a mask of the PET's"):
            common_resolution(pet, spacing=3.0, fwhm=8.0, brain=mask)


def test_another_spacing_is_refused() -> None:
    pet = pet_on(KNOWN.crop, np.where(BRAIN, 1.3, 0))
    with pytest.raises(VolumeError, match=r"MNI152 1\.5 mm"):
        on_crop(pet, spacing=1.5)
    with pytest.raises(ConfigError, match="no template"):
        on_crop(pet, spacing=2.0)
