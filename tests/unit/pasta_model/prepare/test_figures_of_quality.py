# SPDX-License-Identifier: Apache-2.0
"""Figures that tell a person where to look."""

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from pasta_model.errors import VolumeError
from pasta_model.prepare import quality
from pasta_model.prepare.quality import dice, doubts, outliers, refuse_mismatch


def test_dice_by_hand():
    a, b = np.array([1, 1, 1, 0], bool), np.array([0, 1, 1, 1], bool)
    assert dice(a, b) == pytest.approx(2 * 2 / 6)
    assert dice(~a & a, ~b & b) == 0


def test_mutual_information_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    a = rng.standard_normal(5000).astype(np.float32)
    b = (a + rng.standard_normal(5000)).astype(np.float32)
    found = quality._information(a, b, bins=8)
    bins = [np.searchsorted(np.quantile(x, np.linspace(0, 1, 9))[1:-1], x, side="right") for x in (a, b)]
    assert found == pytest.approx(mutual_info_score(*bins) / np.log(2), abs=1e-3)


def test_who_is_far_from_the_median_is_named():
    rows = [{"suvr": 1.0 + 0.01 * n} for n in range(9)] + [{"suvr": 2.0}]
    flags = outliers(rows, ["suvr"])
    # median 1.045, MAD 0.025: 3.5 x 1.4826 x 0.025 = 0.13
    assert [bool(f) for f in flags] == [False] * 9 + [True]
    assert "cohort 1.04" in flags[-1][0]


def test_nobody_is_an_outlier_of_a_few_or_of_equals():
    few = [{"x": 1.0}] * 6 + [{"x": 9.0}]
    assert not any(outliers(few, ["x"]))
    assert not any(outliers([{"x": 1.0}] * 20, ["x"]))


@pytest.mark.parametrize(
    ("overlap", "stretch", "fits"),
    [(0.98, 1.01, True), (0.85, 1.04, True), (0.84, 1.0, False), (0.98, 1.05, False)],
)
def test_a_pet_that_does_not_fit_is_refused(overlap, stretch, fits):
    figures = {"pet_overlap": overlap, "pet_stretch": stretch}
    if fits:
        refuse_mismatch(figures)
        return
    with pytest.raises(VolumeError, match="of this subject"):
        refuse_mismatch(figures)


def test_doubts_are_told_whatever_the_cohort():
    assert doubts({"template_likeness": 0.9, "mask_overlap": 0.97, "pet_stretch": 1.009}) == []
    assert "whose PET" in doubts({"pet_stretch": 1.02})[0]
    assert "template_likeness 0.6" in doubts({"template_likeness": 0.6})[0]
