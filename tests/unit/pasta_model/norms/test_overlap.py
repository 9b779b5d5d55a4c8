# SPDX-License-Identifier: Apache-2.0
"""Hypometabolism kept, lost and invented, counted by hand; groups with intervals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, precision_score, recall_score

from pasta_model.errors import ConfigError, VolumeError
from pasta_model.norms.hypometabolism import THRESHOLDS
from pasta_model.norms.overlap import SubjectOverlap, overlap_of, summarise_overlaps

SHAPE = (24, 24, 24)
ALL = np.ones(SHAPE, bool)
A, B, C = (slice(2, 8),) * 3, (slice(12, 18),) * 3, (slice(20, 23),) * 3  # 216, 216 and 27 voxels


def z_of(*boxes, depth: float = -2.3) -> np.ndarray:
    """A z map that is 0.5, and below at boxes."""
    z = np.full(SHAPE, 0.5, np.float32)
    for box in boxes:
        z[box] = depth
    return z


def compare(real, synthetic, *, spacing: float = 3.0, **names) -> SubjectOverlap:
    (row,) = overlap_of(real, synthetic, brain=ALL, spacing=spacing, thresholds=[-2.0], **names)
    return row


def test_volumes_and_clusters_by_hand() -> None:
    moved = (slice(5, 11), *A[1:])  # half of A, and as much beside it
    row = compare(z_of(A, B), z_of(moved, C))
    ml = 27 / 1000
    assert row.real_ml == pytest.approx(432 * ml)
    assert row.synthetic_ml == pytest.approx((216 + 27) * ml)
    assert row.shared_ml == pytest.approx(108 * ml)
    assert row.invented_ml == pytest.approx((108 + 27) * ml)
    assert row.lost_ml == pytest.approx((432 - 108) * ml)
    assert row.dice == pytest.approx(2 * 108 / (432 + 243))
    assert row.sensitivity == pytest.approx(108 / 432)
    assert row.precision == pytest.approx(108 / 243)
    assert (row.real_clusters, row.kept_clusters) == (2, 1)  # A is kept, B lost
    assert (row.synthetic_clusters, row.true_clusters, row.invented_clusters) == (2, 1, 1)  # C invented


def test_a_cluster_is_of_half_a_millilitre() -> None:
    for spacing, clusters in ((3.0, 1), (2.6, 0)):  # 27 voxels are 0.729 and 0.475 ml
        row = compare(z_of(C), z_of(C), spacing=spacing)
        assert (row.real_clusters, row.synthetic_clusters) == (clusters, clusters)
        assert row.dice == 1


def test_a_touch_is_no_meeting() -> None:
    corner = (slice(7, 13),) * 3  # shares one voxel of 216 with A
    row = compare(z_of(A), z_of(corner))
    assert row.shared_ml > 0
    assert (row.kept_clusters, row.true_clusters) == (0, 0)


def test_every_threshold_has_its_row() -> None:
    rows = overlap_of(z_of(A, depth=-2.3), z_of(A, depth=-1.8), brain=ALL, spacing=3.0)
    assert [r.threshold for r in rows] == list(THRESHOLDS)
    assert [r.dice for r in rows] == [1.0, 0.0, None, None]
    assert [r.sensitivity for r in rows] == [1.0, 0.0, None, None]
    assert [r.precision for r in rows] == [1.0, None, None, None]


def test_only_the_brain_counts() -> None:
    brain = ALL.copy()
    brain[B] = False
    (row,) = overlap_of(z_of(A, B), z_of(A), brain=brain, spacing=3.0, thresholds=[-2])
    assert row.dice == 1


@given(arrays(np.float32, (2, 6, 6, 6), elements=st.floats(-4, 4, width=32)))
def test_shares_are_scikit_learns(z) -> None:
    real, synthetic = z
    brain = np.ones(real.shape, bool)
    if not (real.any() and synthetic.any()):
        return
    (row,) = overlap_of(real, synthetic, brain=brain, spacing=3.0, thresholds=[-2])
    pair = (real < -2).ravel(), (synthetic < -2).ravel()
    for found, oracle in (
        (row.dice, f1_score),
        (row.sensitivity, recall_score),
        (row.precision, precision_score),
    ):
        wanted = oracle(*pair, zero_division=np.nan)
        assert (found is None and np.isnan(wanted)) or found == pytest.approx(wanted)
    (back,) = overlap_of(synthetic, real, brain=brain, spacing=3.0, thresholds=[-2])
    assert (back.dice, back.sensitivity, back.precision) == (row.dice, row.precision, row.sensitivity)
    assert (back.real_clusters, back.true_clusters) == (row.synthetic_clusters, row.kept_clusters)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"z_synthetic": np.ones((3, 3, 3))}, "one 3D shape"),
        ({"z_real": np.full(SHAPE, np.nan)}, "the real z map has 13824 voxels"),
        ({"brain": np.zeros(SHAPE, bool)}, "not empty"),
        ({"brain": np.ones(SHAPE)}, "must be boolean"),
        ({"z_synthetic": np.zeros(SHAPE)}, "synthetic z map is 0 in the whole mask"),
    ],
)
def test_maps_that_do_not_fit_are_refused(change, said) -> None:
    given = {"z_real": z_of(A), "z_synthetic": z_of(A), "brain": ALL} | change
    with pytest.raises(VolumeError, match=said):
        overlap_of(given["z_real"], given["z_synthetic"], brain=given["brain"], spacing=3.0)


def test_thresholds_are_below_0() -> None:
    for thresholds in ([], [2.0], [-2.0, 0.0]):
        with pytest.raises(ConfigError, match="wanted z below 0"):
            overlap_of(z_of(A), z_of(A), brain=ALL, spacing=3.0, thresholds=thresholds)


def people(method: str = "PASTA") -> list[SubjectOverlap]:
    """Two healthy people, one of whom gets a cluster that is not there, and two ill ones."""
    maps = {
        "cn1": ("CN", z_of(), z_of()),
        "cn2": ("CN", z_of(), z_of(C)),
        "ad1": ("Dementia", z_of(A, B), z_of(A)),
        "ad2": ("Dementia", z_of(A), z_of(A)),
    }
    return [compare(r, s, person=p, diagnosis=d, method=method) for p, (d, r, s) in maps.items()]


def test_groups_by_hand() -> None:
    healthy, ill, everybody = summarise_overlaps(people())
    assert [r.diagnosis for r in (healthy, ill, everybody)] == ["CN", "Dementia", "all"]
    assert [r.subjects for r in (healthy, ill, everybody)] == [2, 2, 4]
    assert healthy.dice.value == 0  # of the one for whom it is defined
    assert healthy.cluster_specificity.value == 0.5
    assert everybody.cluster_specificity == ill.cluster_specificity  # of everybody it would tell the normal
    assert everybody.cluster_specificity.why == "of cognitively normal subjects only"
    assert healthy.kept_ml.value == 0
    assert ill.kept_ml.value == pytest.approx(216 * 27 / 1000)
    assert healthy.invented_ml.value == pytest.approx(27 * 27 / 2000)
    assert ill.dice.value == pytest.approx((2 / 3 + 1) / 2)
    assert ill.cluster_sensitivity.value == pytest.approx(2 / 3)
    assert ill.cluster_precision.value == 1
    assert ill.lost_ml.value == pytest.approx(216 * 27 / 2000)
    assert everybody.cluster_precision.value == pytest.approx(2 / 3)


def test_what_is_not_defined_says_why() -> None:
    healthy, ill, _ = summarise_overlaps(people())
    assert (healthy.sensitivity.value, healthy.sensitivity.why) == (
        None,
        "z is nowhere below -2 in the real maps",
    )
    assert healthy.cluster_sensitivity.why == "no cluster of 0.5 ml in the real maps"
    assert (ill.cluster_specificity.value, ill.cluster_specificity.why) == (
        None,
        "of cognitively normal subjects only",
    )
    (empty, _) = summarise_overlaps([o for o in people() if o.person == "cn1"])
    assert (empty.dice.value, empty.dice.why) == (None, "z is nowhere below -2 in either map")
    assert empty.real_ml.value == 0
    assert empty.cluster_specificity.value == 1


def test_rows_come_by_method_diagnosis_and_threshold() -> None:
    both = [
        replace(o, method=m, threshold=t)
        for m in ("z", "a")
        for t in (-3.0, -2.0)
        for o in people()
        if o.real_ml
    ]
    rows = summarise_overlaps(both)
    order = [(m, d, t) for m in ("z", "a") for d in ("Dementia", "all") for t in (-2.0, -3.0)]
    assert [(r.method, r.diagnosis, r.threshold) for r in rows] == order


def groups_of(**sizes: int) -> list[SubjectOverlap]:
    """Groups of so many people, each with one cluster kept."""
    row = compare(z_of(A), z_of(A), method="PASTA")
    return [replace(row, person=f"{d}{k}", diagnosis=d) for d, size in sizes.items() for k in range(size)]


def test_a_small_group_is_not_told_by_the_others() -> None:
    rows = {r.diagnosis: r for r in summarise_overlaps(groups_of(CN=6, MCI=9, Dementia=2), smallest=5)}
    assert {name for name, row in rows.items() if row.real_ml.value is None} == {"CN", "Dementia"}
    assert rows["Dementia"].real_ml.why == "fewer than 5 subjects, too few to tell"
    assert rows["CN"].real_ml.why.startswith("would tell by difference")
    assert rows["all"].real_ml.value is not None
    assert [rows[d].count for d in ("CN", "MCI", "Dementia", "all")] == [
        "not shown", "9", "fewer than 5", "17"
    ]  # fmt: skip


def test_too_few_people_are_not_shown_together_either() -> None:
    rows = summarise_overlaps(groups_of(CN=2, MCI=1), smallest=5)
    assert {(row.count, row.dice.value) for row in rows} == {("fewer than 5", None)}


def test_people_without_a_diagnosis_have_no_row_and_are_not_told_by_the_others() -> None:
    rows = summarise_overlaps([replace(o, diagnosis="") if o.person == "CN0" else o
                               for o in groups_of(CN=7, MCI=9)], smallest=5)  # fmt: skip
    assert {r.diagnosis: r.hidden[:10] for r in rows} == {"CN": "would tell", "MCI": "", "all": ""}


def test_a_mean_over_too_few_people_is_hidden() -> None:
    healthy, _, everybody = summarise_overlaps(people(), smallest=2)
    assert (healthy.count, healthy.invented_ml.value) == ("2", pytest.approx(27 * 27 / 2000))
    assert healthy.dice.value is None  # defined for one of the two
    assert healthy.dice.why == "fewer than 2 subjects, too few to tell"
    assert everybody.dice.value is not None


def test_intervals_are_over_persons() -> None:
    alone = summarise_overlaps([replace(o, person="one") for o in people()])[-1]
    assert (alone.subjects, alone.real_ml.low) == (1, None)
    several = summarise_overlaps(people())[-1]
    assert several.real_ml.low < several.real_ml.value < several.real_ml.high
    assert summarise_overlaps(people())[-1] == several


def test_nobody_gives_no_row() -> None:
    assert summarise_overlaps([]) == []
