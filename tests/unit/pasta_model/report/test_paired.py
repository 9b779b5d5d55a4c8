# SPDX-License-Identifier: Apache-2.0
"""Paired differences: who is better, who is worse, and who cannot be told apart."""

from dataclasses import replace

import pytest

from pasta_model.evaluation.columns import METRICS
from pasta_model.evaluation.estimates import Estimate
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.report.paired import PairedRow, compare, paired_table, statement, summary

MAE, PSNR = METRICS[:2]


def _row(difference: Estimate, *, metric=MAE, other: str = "U-Net") -> PairedRow:
    return PairedRow("federated", other, metric, difference)


def test_by_hand(scores: list[SubjectScore]) -> None:
    rows = compare(scores, "federated", metrics=(MAE,))
    assert [row.other for row in rows] == ["alone", "mean PET"]
    # every subject's MAE is lower by 0.02, so the interval has no width
    assert rows[0].difference.value == pytest.approx(-0.02)
    assert rows[0].gain.low == pytest.approx(0.02)
    assert rows[0].mark == "yes"
    assert (
        statement(rows[0]).text == "MAE: federated is better than alone, by 0.0200 SUVR (0.0200 to 0.0200)."
    )


def test_the_other_way_round_it_is_worse(scores: list[SubjectScore]) -> None:
    said = statement(compare(scores, "alone", others=["federated"], metrics=(MAE,))[0])
    assert said.mark == "no"
    assert said.text == "MAE: alone is worse than federated, by 0.0200 SUVR (0.0200 to 0.0200)."


@pytest.mark.parametrize(("metric", "difference", "mark"), [
    (MAE, Estimate(-0.1, -0.2, -0.01), "yes"),
    (MAE, Estimate(0.1, 0.01, 0.2), "no"),
    (MAE, Estimate(-0.1, -0.2, 0.01), "open"),
    (PSNR, Estimate(0.1, 0.01, 0.2), "yes"),
    (PSNR, Estimate(-0.1, -0.2, -0.01), "no"),
    (MAE, Estimate(-0.1), "open"),
    (MAE, Estimate(None, why="no pair"), "open"),
    (MAE, Estimate(-0.1, -0.2, 0.0), "open"),
])  # fmt: skip
def test_marks(metric, difference: Estimate, mark: str) -> None:
    assert _row(difference, metric=metric).mark == mark


def test_an_interval_over_nothing_leaves_it_open() -> None:
    said = statement(_row(Estimate(-0.1, -0.2, 0.01)))
    assert said.text == (
        "MAE: federated and U-Net cannot be told apart: 0.1000 SUVR better (\u22120.0100 to 0.2000)."
    )
    said = statement(_row(Estimate(0.1, -0.01, 0.2)))
    assert said.text.endswith("0.1000 SUVR worse (\u22120.0100 to 0.2000).")


def test_without_an_interval_it_is_said() -> None:
    assert statement(_row(Estimate(0.1, why="one subject"))).text == (
        "MAE: federated is worse than U-Net by 0.1000 SUVR, without an interval: one subject."
    )
    assert statement(_row(Estimate(None, why="no pair"))).text == (
        "MAE: federated against U-Net: not compared, no pair."
    )


def test_many_rivals_in_one_sentence() -> None:
    rows = [
        _row(Estimate(-0.1, -0.2, -0.1), other="a"),
        _row(Estimate(0.1, 0.05, 0.2), other="b"),
        _row(Estimate(0.1, -0.05, 0.2), other="c"),
        _row(Estimate(0.3, 0.2, 0.4), other="d"),
    ]
    (said,) = summary(rows)
    assert said.text == "MAE: federated is better than a; worse than b, d; not told apart from c."
    assert said.mark == "no"
    assert summary(rows[:1])[0].mark == "yes"
    assert summary([rows[0], rows[2]])[0].mark == "open"


def test_a_metric_without_a_direction_is_not_compared(scores: list[SubjectScore]) -> None:
    assert compare(scores, "federated", metrics=(replace(MAE, higher_is_better=None),)) == []


def test_few_persons_are_not_compared(scores: list[SubjectScore]) -> None:
    three = [s for s in scores if s.person in {"p0", "p1", "p2"}]
    for row in compare(three, "federated", smallest=5):
        assert (row.difference.value, row.mark) == (None, "open")
        assert row.difference.why == "fewer than 5 subjects, too few to tell"
    assert all(row.difference.value is not None for row in compare(three, "federated", smallest=3))


def test_a_difference_does_not_tell_of_those_who_lack_it(scores: list[SubjectScore]) -> None:
    lacking = {"p0", "p1"}  # the mean of the other method is over the ten others
    some = [
        replace(s, values={**s.values, "mae": None}, why={"mae": "lost"})
        if s.method == "alone" and s.person in lacking
        else s
        for s in scores
    ]
    row, *others = compare(some, "federated", others=["alone"], smallest=3)
    assert row.difference.why == "would tell by difference of fewer than 3 subjects, too few to tell"
    assert all(other.difference.value is not None for other in others)
    assert compare(some, "federated", others=["alone"], smallest=2)[0].difference.value is not None


def test_a_table_of_differences(scores: list[SubjectScore]) -> None:
    table = paired_table(compare(scores, "federated"))
    assert [column.heading for column in table.columns][:2] == ["federated minus", "MAE (SUVR)"]
    first = table.rows[0].rows[0]
    assert [cell.text for cell in first[:3]] == ["alone", "\u22120.0200", "+1.00"]
