# SPDX-License-Identifier: Apache-2.0
"""Tables hold the values with their intervals, mark the best, and say why a value is missing."""

import pytest

from pasta_model.diagnosis.results import DiagnosisRow
from pasta_model.evaluation.agreement import RegionRow, agreement
from pasta_model.evaluation.columns import ALL_METRICS, METRICS
from pasta_model.evaluation.estimates import Estimate
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import GroupRow, summarise
from pasta_model.evaluation.uncertainty import CoverageRow, SpreadRow
from pasta_model.norms.overlap import OverlapRow
from pasta_model.report.findings import coverage_table, diagnosis_table, overlap_tables, spread_table
from pasta_model.report.page import Table
from pasta_model.report.tables import estimate_cell, family_tables, group_table, region_table

ONE = Estimate(0.5, 0.4, 0.6)
NONE = Estimate(None, why="one class only")


def _texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for group in table.rows for row in group.rows]


def _row(method: str, mae: Estimate, kind: str = "all", group: str = "all sites") -> GroupRow:
    return GroupRow(kind, group, method, 9, {metric.name: mae for metric in METRICS})


def test_an_estimate_and_its_interval() -> None:
    cell = estimate_cell(Estimate(0.1234, 0.1, 0.2, why="2 lack it"), 2)
    assert (cell.text, cell.detail, cell.note, cell.missing) == ("0.12", "0.10 to 0.20", "2 lack it", False)


def test_a_missing_estimate_has_its_reason() -> None:
    cell = estimate_cell(NONE, 2)
    assert (cell.text, cell.note, cell.missing, cell.detail) == ("not available", "one class only", True, "")
    assert estimate_cell(Estimate(None), 2).note


@pytest.mark.parametrize(("value", "sign", "text"), [
    (-0.5, False, "\u22120.50"), (0.5, True, "+0.50"), (-0.001, True, "0.00"), (0.001, True, "0.00"),
])  # fmt: skip
def test_signs_are_as_printed_and_nothing_has_none(value: float, sign: bool, text: str) -> None:
    assert estimate_cell(Estimate(value), 2, sign=sign).text == text


def test_the_best_is_marked_in_its_direction() -> None:
    table = group_table([_row("a", Estimate(0.2)), _row("b", Estimate(0.1))], kind="all")
    best = {row[0].text: [cell.best for cell in row[2:]] for group in table.rows for row in group.rows}
    # MAE, PSNR, SSIM, MetaROI error: of the second and the third, higher is better
    assert best == {"a": [False, True, True, False], "b": [True, False, False, True]}


def test_values_shown_as_equal_are_equally_good() -> None:
    table = group_table([_row("a", Estimate(0.10001)), _row("b", Estimate(0.10002))], kind="all")
    assert all(cell.best for group in table.rows for row in group.rows for cell in row[2:])


def test_alone_nobody_is_the_best() -> None:
    rows = [_row("a", Estimate(0.2)), _row("b", NONE)]
    table = group_table(rows, kind="all")
    assert not any(cell.best for group in table.rows for row in group.rows for cell in row)
    assert "Bold" not in table.caption


def test_a_table_by_site_ends_with_all_and_the_mean(scores: list[SubjectScore]) -> None:
    table = group_table(summarise(scores), kind="site")
    assert [group.heading for group in table.rows] == ["A", "B", "all sites", "mean over sites"]
    assert _texts(table)[0][:3] == ["federated", "6", "0.1050"]


def test_suppressed_groups_stand_there_with_the_reason(scores: list[SubjectScore]) -> None:
    rows = summarise([s for s in scores if s.site == "A" or s.subject == "s01"], smallest=3)
    table = group_table(rows, kind="site")
    hidden = [cell for group in table.rows[:2] for row in group.rows for cell in row[2:]]
    assert {cell.text for cell in hidden} == {"not available"}
    assert any("fewer than 3 subjects" in note for note in table.notes)
    assert {row[1].text for group in table.rows[:2] for row in group.rows} == {"not shown", "fewer than 3"}


def test_other_kinds_hold_their_own_rows_only(scores: list[SubjectScore]) -> None:
    rows = summarise(scores, by=("site", "diagnosis"))
    assert [g.heading for g in group_table(rows, kind="diagnosis").rows] == ["CN", "MCI", "Dementia"]
    assert [g.heading for g in group_table(rows, kind="all").rows] == ["all sites"]


def test_families_leave_out_what_is_shown_and_what_is_not_measured(scores: list[SubjectScore]) -> None:
    rows = summarise(scores)
    tables = family_tables(rows, kind="all", metrics=ALL_METRICS)
    headings = [column.heading for table in tables for column in table.columns]
    assert "MetaROI, real PET (SUVR)" in headings
    assert "MAE (SUVR)" not in headings
    assert not any("volume" in heading for heading in headings)


def test_regions_have_names_that_people_use(scores: list[SubjectScore]) -> None:
    table = region_table(agreement(scores))
    names = [group.heading for group in table.rows]
    assert names[0] == "left angular gyrus"
    assert names[-1] == "MetaROI, all five"
    assert table.notes == ["not measured"]


def test_a_bias_has_its_sign() -> None:
    row = RegionRow("federated", "metaroi", 3, *[Estimate(0.05, -0.01, 0.1)] * 5)
    bias = region_table([row]).rows[0].rows[0][2]
    assert (bias.text, bias.detail) == ("+0.050", "\u22120.010 to +0.100")


def test_diagnosis_by_task_and_reader() -> None:
    rows = [
        DiagnosisRow("CN / Dementia", reader, "MRI", "MRI", 9, ONE, ONE, NONE)
        for reader in ("network", "regions")
    ]
    table = diagnosis_table(rows)
    assert [group.heading for group in table.rows] == ["CN / Dementia, network", "CN / Dementia, regions"]
    assert _texts(table)[0] == ["MRI", "MRI", "9", "0.500", "0.500", "not available"]
    assert table.notes == ["one class only"]


def test_overlap_as_shares_and_as_volumes() -> None:
    values = [Estimate(k / 10) for k in range(1, 6)]
    row = OverlapRow("federated", "CN", -2.0, 9, *values, Estimate(7.0), Estimate(8.0), Estimate(9.0))
    shares, sizes = overlap_tables([row])
    assert _texts(shares) == [["federated", "\u22122", "9", "0.10", "0.20", "0.30", "0.40", "0.50"]]
    assert _texts(sizes) == [["federated", "\u22122", "9", "7.0", "8.0", "9.0"]]
    assert shares.columns[4].heading == "Dice"
    assert sizes.columns[-1].direction == "lower"


def test_uncertainty() -> None:
    coverage = coverage_table([CoverageRow("federated", 0.95, 9, Estimate(0.9), Estimate(0.2))])
    assert coverage.rows[0].heading == "federated"
    assert _texts(coverage) == [["95%", "9", "0.900", "0.200"]]
    spread = spread_table([SpreadRow("federated", 9, Estimate(-0.3), Estimate(0.1), Estimate(0.2))])
    assert _texts(spread) == [["federated", "9", "\u22120.30", "0.1000", "0.2000"]]
