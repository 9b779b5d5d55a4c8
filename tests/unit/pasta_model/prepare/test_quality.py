# SPDX-License-Identifier: Apache-2.0
"""The limits of the figures of quality, met exactly; and the figures of heads that are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import mutual_info_score

from pasta_model.data.grid import template
from pasta_model.data.volume import Volume
from pasta_model.errors import VolumeError
from pasta_model.prepare import quality
from pasta_model.prepare.quality import (
    FIGURES,
    LARGEST_STRETCH,
    LEAST_COHORT,
    LEAST_OVERLAP,
    dice,
    doubts,
    mri_figures,
    outliers,
    pet_figures,
    refuse_elsewhere,
    refuse_mismatch,
)
from pasta_model.prepare.registration import LEAST_LIKENESS
from pasta_model.prepare.template import template_brain
from pasta_model.prepare.transforms import Alignment, write_both

GRID = template(3.0).head
BRAIN = template_brain(GRID)
MASK = Volume(BRAIN.mask.astype(np.float32), GRID.affine)
MRI = Volume(np.where(BRAIN.mask, BRAIN.t1, 0).astype(np.float32), GRID.affine)
LITTLE = 1e-6


def pet_like(mask: np.ndarray) -> Volume:
    soft = ndimage.gaussian_filter(np.where(mask, 1.0 + 0.2 * (BRAIN.t1 > 0.6), 0.0), 0.8)
    return Volume((5000.0 * soft).astype(np.float32), GRID.affine)


def test_dice_of_boxes_that_share_a_third() -> None:
    a, b = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    a[:2], b[1:3] = True, True
    assert dice(a, b) == 0.5
    assert dice(a, a) == 1.0
    assert dice(a, ~a) == 0.0


@given(st.integers(0, 2**16), st.integers(2, 32), st.floats(0, 3))
def test_mutual_information_is_scikit_learns_on_equally_full_bins(seed: int, bins: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(600)
    b = a**2 + noise * rng.standard_normal(600)
    edges = [np.quantile(x, np.linspace(0, 1, bins + 1))[1:-1] for x in (a, b)]
    ranks = [np.searchsorted(inner, x, "right") for inner, x in zip(edges, (a, b), strict=True)]
    assert quality._information(a, b, bins=bins) == pytest.approx(mutual_info_score(*ranks) / np.log(2))


def test_what_is_flat_tells_nothing() -> None:
    assert quality._information(np.ones(100, np.float32), np.arange(100, dtype=np.float32)) == 0.0


def test_the_smallest_cohort_has_an_outlier_and_one_less_has_none() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 100.0]
    assert len(values) == LEAST_COHORT
    # median 4.5; deviations 3.5, 2.5, 1.5, .5, .5, 1.5, 2.5, 95.5, their median 2; far is 3.5 x 2.9652 = 10.4
    flags = outliers([{"x": v} for v in values], ["x"])
    assert flags == [[]] * 7 + [["x 100, cohort 4.5"]]
    assert outliers([{"x": v} for v in values[1:]], ["x"]) == [[]] * 7


@pytest.mark.parametrize(("value", "far"), [(14.87, False), (14.89, True), (-5.87, False), (-5.89, True)])
def test_far_begins_where_the_arithmetic_says(value: float, far: bool) -> None:
    # median 4.5, deviations 2 of most: 4.5 +- 3.5 x 1.4826 x 2 = 14.878 and -5.878
    rows = [{"x": v} for v in (2.5, 2.5, 2.5, 2.5, 6.5, 6.5, 6.5, 6.5, 4.5, 4.5, value)]
    assert bool(outliers(rows, ["x"])[-1]) is far


def test_a_missing_figure_and_a_constant_one_flag_nobody() -> None:
    rows = [{"same": 1.0, "x": float(n)} for n in range(9)] + [{"same": 1.0}]
    assert not any(outliers(rows, ["same", "x", "absent"]))
    odd = [{"same": 1.0}] * 19 + [{"same": 5.0}]  # no spread to measure by
    assert not any(outliers(odd, ["same"]))


@pytest.mark.parametrize(
    ("overlap", "stretch"),
    [(LEAST_OVERLAP - LITTLE, 1.0), (1.0, LARGEST_STRETCH + LITTLE)],
)
def test_just_beyond_a_limit_is_refused_with_both_numbers(overlap: float, stretch: float) -> None:
    with pytest.raises(VolumeError, match=rf"overlap by {overlap:.2f}.* by {100 * (stretch - 1):.0f} %"):
        refuse_mismatch({"pet_overlap": overlap, "pet_stretch": stretch})


def test_the_limits_themselves_are_taken() -> None:
    refuse_mismatch({"pet_overlap": LEAST_OVERLAP, "pet_stretch": LARGEST_STRETCH})
    refuse_mismatch({"pet_overlap": LEAST_OVERLAP})  # nothing was registered
    refuse_elsewhere({"template_likeness": LEAST_LIKENESS})
    with pytest.raises(VolumeError, match="axis flipped"):
        refuse_elsewhere({"template_likeness": LEAST_LIKENESS - LITTLE})


def test_the_template_itself_is_perfect(tmp_path) -> None:
    write_both(tmp_path, np.diag([1.1, 1.1, 1.1, 1.0]))
    found = mri_figures(MRI, MASK, grid=GRID, alignment=Alignment(tmp_path))
    assert found["mask_overlap"] == 1.0
    assert found["template_likeness"] > 0.97
    assert found["head_scale"] == pytest.approx(1.1, abs=1e-5)


def test_a_head_upside_down_is_not_like_the_template(tmp_path) -> None:
    write_both(tmp_path, np.eye(4))
    flipped = Volume(np.ascontiguousarray(MRI.data[:, :, ::-1]), GRID.affine)
    found = mri_figures(flipped, MASK, grid=GRID, alignment=Alignment(tmp_path))
    with pytest.raises(VolumeError, match="does not lie on the MNI152"):
        refuse_elsewhere(found)


def test_a_pet_fits_its_own_head_and_no_pet_that_is_cut() -> None:
    own = pet_figures(pet_like(BRAIN.mask), MRI, MASK, uptake=5000.0)
    half = BRAIN.mask.copy()
    half[: GRID.shape[0] // 2] = False
    cut = pet_figures(pet_like(half), MRI, MASK, uptake=5000.0)

    refuse_mismatch(own)
    assert own["pet_overlap"] > 0.95
    with pytest.raises(VolumeError, match="is it of this subject"):
        refuse_mismatch(cut)
    assert own["pet_mri_information"] > cut["pet_mri_information"]


def test_the_pets_unit_does_not_matter() -> None:
    pet = pet_like(BRAIN.mask)
    scaled = Volume(pet.data / 5000.0, pet.affine)
    first, second = (pet_figures(p, MRI, MASK, uptake=u) for p, u in ((pet, 5000.0), (scaled, 1.0)))
    assert first == pytest.approx(second, abs=1e-3)
    assert set(first) <= set(FIGURES)


def test_doubts_are_told_whatever_the_cohort() -> None:
    assert doubts({"template_likeness": 0.9, "mask_overlap": 0.97, "pet_stretch": 1.009}) == []
    assert doubts({}) == []
    (stretch,) = doubts({"pet_stretch": 1.02})
    assert "whose PET is it?" in stretch
    assert doubts({"template_likeness": 0.6, "pet_overlap": 0.9}) == [
        "template_likeness 0.6, usual is above 0.7",
        "pet_overlap 0.9, usual is above 0.92",
    ]
