# SPDX-License-Identifier: Apache-2.0
"""Scores counted by hand, and beside scikit-learn's; visits, pairs, resamples without a class."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from pasta_model.diagnosis.results import Prediction
from pasta_model.diagnosis.scores import (
    Readings,
    auc,
    auc_difference,
    auc_differences,
    balanced_accuracy,
    macro_f1,
    readings_of,
    row_of,
    unavailable_row,
)
from pasta_model.errors import ManifestError

TWO = "CN / Dementia"
THREE = "CN / MCI / Dementia"


def predictions(
    diagnoses: Sequence[str], ill: Sequence[float], *, people: Sequence[str] = (), method: str = "real PET"
) -> list[Prediction]:
    names = people or [f"p{n}" for n in range(len(ill))]
    return [
        Prediction(TWO, "network", method, method, 0, name, f"s{n}", "A", diagnosis, (1 - p, p))
        for n, (name, diagnosis, p) in enumerate(zip(names, diagnoses, ill, strict=True))
    ]


def test_by_hand() -> None:
    row = row_of(
        predictions(["CN", "CN", "CN", "Dementia", "Dementia"], [0.1, 0.2, 0.7, 0.4, 0.9]),
        seed=0,
        resamples=50,
    )
    # 2 of 3 and 1 of 2 are recognised; F1 is 4/6 and 2/4; of 6 pairs 5 are in order.
    assert row.balanced_accuracy.value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert row.f1.value == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert row.auc.value == pytest.approx(5 / 6)
    assert row.subjects == 5


@pytest.mark.parametrize("classes", [2, 3])
def test_resamples_like_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.permutation(np.arange(60) % classes)
    found = rng.integers(1, 6, (60, classes)).astype(float)  # with ties
    found /= found.sum(axis=1, keepdims=True)
    readings = Readings(("",) * 60, labels, found)
    for rows in (np.arange(60), *rng.integers(0, 60, (8, 60))):
        wanted, answers = labels[rows], found[rows].argmax(axis=1)
        ranks = found[rows, 1] if classes == 2 else found[rows]
        assert auc(readings)(rows) == pytest.approx(roc_auc_score(wanted, ranks, multi_class="ovr"))
        assert balanced_accuracy(readings)(rows) == pytest.approx(balanced_accuracy_score(wanted, answers))
        assert macro_f1(readings)(rows) == pytest.approx(f1_score(wanted, answers, average="macro"))


def test_a_class_that_is_never_named_has_f1_of_zero() -> None:
    readings = Readings(("a", "b", "c"), np.array([0, 0, 1]), np.array([[0.9, 0.1]] * 3))
    assert macro_f1(readings)(np.arange(3)) == pytest.approx(0.8 / 2)


def test_visits_of_a_person_are_averaged_by_state() -> None:
    found = readings_of(
        predictions(["CN", "Dementia", "Dementia", "CN"], [0.2, 0.6, 0.8, 0.1], people=["a", "a", "a", "b"])
    )
    assert found.people == ("a", "a", "b")
    assert found.labels.tolist() == [0, 1, 0]
    np.testing.assert_allclose(found.probabilities[:, 1], [0.2, 0.7, 0.1])


def test_interval_holds_the_value_and_narrows_with_more_people() -> None:
    rng = np.random.default_rng(7)

    def width(count: int) -> float:
        diagnoses = ["CN", "Dementia"] * (count // 2)
        ill = np.clip(0.5 + 0.2 * rng.normal(size=count) + np.tile([-0.1, 0.1], count // 2), 0, 1)
        row = row_of(predictions(diagnoses, ill.tolist()), seed=1, resamples=400)
        assert row.auc.low < row.auc.value < row.auc.high
        return row.auc.high - row.auc.low

    assert width(160) < 0.8 * width(24)


def test_resamples_without_a_class_are_left_out() -> None:
    # One of three is ill: of the resamples, (2/3)^3 have nobody ill, too many for an interval.
    row = row_of(predictions(["CN", "CN", "Dementia"], [0.1, 0.2, 0.9]), seed=0, resamples=400)
    assert (row.auc.value, row.auc.low) == (1.0, None)
    assert row.auc.why == "too few subjects for an interval"


def test_paired_difference() -> None:
    diagnoses = ["CN", "Dementia"] * 20
    rng = np.random.default_rng(9)
    good = np.tile([0.3, 0.7], 20) + rng.uniform(-0.25, 0.25, 40)
    one = predictions(diagnoses, good.tolist())
    other = predictions(diagnoses, rng.uniform(0, 1, 40).tolist(), method="coin")
    same = [replace(p, trained_on="twin", applied_to="twin") for p in one]
    kinds = {name: (TWO, "network", name, name) for name in ("real PET", "coin", "twin")}
    found = auc_difference(
        [*one, *other], kinds["real PET"], kinds["coin"], seed=0, resamples=400
    )  # everything against chance
    rows = [row_of(each, seed=0, resamples=2).auc.value for each in (one, other)]
    assert found.value == pytest.approx(rows[0] - rows[1])
    assert 0 < found.low < found.value < found.high
    nothing = auc_difference([*one, *same], kinds["twin"], kinds["real PET"], seed=0, resamples=20)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


def test_a_difference_needs_pairs() -> None:
    one = predictions(["CN", "Dementia"] * 2, [0.1, 0.9] * 2)
    other = predictions(["CN", "Dementia"], [0.1, 0.9], method="b")
    kinds = [(TWO, "network", name, name) for name in ("real PET", "b", "c")]
    with pytest.raises(ManifestError, match="not of the same task and sessions"):
        auc_difference([*one, *other], kinds[0], kinds[1], seed=0)
    with pytest.raises(ManifestError, match=r"no predictions of .*'c'"):
        auc_difference(one, kinds[0], kinds[2], seed=0)


def test_every_input_is_laid_beside_the_references() -> None:
    diagnoses, rng = ["CN", "Dementia"] * 10, np.random.default_rng(3)
    found = [
        p for name in ("MRI", "real PET", "m")
        for p in predictions(diagnoses, rng.uniform(0, 1, 20).tolist(), method=name)
    ]  # fmt: skip
    found += [replace(p, trained_on="real PET") for p in found if p.trained_on == "m"]
    found = [*found, *predictions(diagnoses[:4], [0.1, 0.9, 0.2, 0.8], method="few")]
    rows = auc_differences(found, seed=0, resamples=50)
    assert [(r.trained_on, r.applied_to, r.against) for r in rows] == [
        ("MRI", "MRI", "real PET"), ("real PET", "real PET", "MRI"), ("m", "m", "real PET"),
        ("m", "m", "MRI"), ("real PET", "m", "real PET"), ("real PET", "m", "MRI"),
        ("few", "few", "real PET"), ("few", "few", "MRI"),
    ]  # fmt: skip
    kinds = {name: (TWO, "network", name, name) for name in ("MRI", "real PET", "m")}
    assert rows[2].difference == auc_difference(found, kinds["m"], kinds["real PET"], seed=0, resamples=50)
    assert rows[0].difference.value == pytest.approx(-rows[1].difference.value)
    assert rows[-1].difference.why.startswith("not of the same sessions")


def test_a_row_that_cannot_be_had_says_why() -> None:
    row = unavailable_row((THREE, "regions", "MRI", "MRI"), subjects=9, why="only CN and MCI are there")
    assert {e.text() for e in (row.auc, row.f1, row.balanced_accuracy)} == {"not available"}
    assert row.auc.why == "only CN and MCI are there"
