# SPDX-License-Identifier: Apache-2.0
"""The truth of a registration: where the template's structures lie in a head that was bent by known rules."""

import numpy as np
import pytest

from pasta_model.data.grid import template
from pasta_model.data.metaroi import METAROI_REGIONS, reference_mask, region_masks
from simulation.twins.landmarks import anatomical_suvr, landmarks, locate

GRID = template(3.0).head
WHERE = GRID.coordinates().astype(np.float64)
CENTRES = np.array([region.centre for region in METAROI_REGIONS])


def bent(points: np.ndarray) -> np.ndarray:
    """Template mm for head mm: a smooth deformation of up to 7 mm."""
    x, y, z = np.moveaxis(np.asarray(points, np.float64), -1, 0)
    shift = [5 * np.sin(y / 30), 4 * np.cos(z / 35) - 2, 6 * np.sin((x + y) / 45)]
    return np.stack([x + shift[0], y + shift[1], z + shift[2]], axis=-1)


BENT = bent(WHERE).astype(np.float32)


def test_an_undeformed_head_has_everything_in_its_place() -> None:
    assert np.allclose(locate(CENTRES, WHERE.astype(np.float32), GRID), CENTRES, atol=1e-3)


def test_a_smooth_deformation_is_inverted_to_a_tenth_of_a_millimetre() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform((-50, -80, -40), (50, 50, 50), (200, 3))  # of the head

    found = locate(bent(truth), BENT, GRID)

    assert np.linalg.norm(bent(truth) - truth, axis=1).max() > 5
    assert np.linalg.norm(found - truth, axis=1).max() < 0.1


def test_landmarks_are_the_places_that_the_deformation_sends_to_the_centres() -> None:
    found = landmarks(BENT, GRID)
    assert list(found) == [region.name for region in METAROI_REGIONS]
    assert np.allclose(bent(np.array(list(found.values()))), CENTRES, atol=0.1)


def test_a_shifted_head_has_its_landmarks_on_the_other_side_of_the_shift() -> None:
    shift = np.array([4.0, -3.0, 2.0])
    found = landmarks((WHERE + shift).astype(np.float32), GRID)
    assert np.allclose(list(found.values()), CENTRES - shift, atol=1e-2)


def test_a_constant_pet_has_suvr_one_everywhere() -> None:
    found = anatomical_suvr(np.full(GRID.shape, 8000.0, np.float32), BENT, GRID)
    assert found == pytest.approx(dict.fromkeys(region_masks(GRID), 1.0), abs=1e-5)


def test_suvr_is_read_where_the_structure_lies_and_not_where_the_template_has_it() -> None:
    """Uptake is a plane of the template's mm; a bent head carries it along."""
    pet = (200.0 + BENT[..., 1]).astype(np.float32)
    found = anatomical_suvr(pet, BENT, GRID)
    reference = 200.0 + WHERE[reference_mask(GRID)][:, 1].mean()
    for name, mask in region_masks(GRID).items():
        assert found[name] == pytest.approx((200.0 + WHERE[mask][:, 1].mean()) / reference, abs=2e-3), name
