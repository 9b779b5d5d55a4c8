# SPDX-License-Identifier: Apache-2.0
"""Tables hold the values with their intervals, mark the best, and say why a value is missing."""

from dataclasses import replace

import pytest

from pasta_model.diagnosis.results import AucDifference, DiagnosisRow
from pasta_model.evaluation.agreement import RegionRow, agreement
from pasta_model.evaluation.columns import ALL_METRICS, METRICS, PAPER
from pasta_model.evaluation.estimates import Estimate
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import GroupRow, summarise
from pasta_model.evaluation.uncertainty import CoverageRow, SpreadRow
from pasta_model.norms.overlap import OverlapRow
from pasta_model.report.findings import (
    auc_table,
    coverage_table,
    diagnosis_table,
    overlap_tables,
    spread_table,
)
from pasta_model.report.page import Table
from pasta_model.report.published import with_paper
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


def test_only_what_was_checked_is_said() -> None:
    row = DiagnosisRow("CN / Dementia", "network", "MRI", "MRI", 9, ONE, ONE, ONE)
    assert "was not checked here" in diagnosis_table([row]).caption
    assert "no generator was trained on these subjects" in diagnosis_table([row], unseen=True).caption


def test_auc_against_each_reference() -> None:
    about = ("CN / Dementia", "network")
    rows = [
        AucDifference(*about, "MRI", "MRI", "real PET", Estimate(-0.1, -0.2, 0.0)),
        AucDifference(*about, "real PET", "fedavg", "real PET", Estimate(-0.05, -0.1, 0.02)),
        AucDifference(*about, "real PET", "fedavg", "MRI", NONE),
    ]
    table = auc_table(rows)
    assert [column.heading for column in table.columns[3:]] == [
        "AUC minus that of real PET", "AUC minus that of MRI"
    ]  # fmt: skip
    assert _texts(table) == [
        ["MRI", "MRI", "\u22120.100", "itself"],
        ["real PET", "fedavg", "\u22120.050", "not available"],
    ]


def test_the_paper_stands_beside_its_own_measures_only(scores: list[SubjectScore]) -> None:
    own = [replace(s, values={**s.values, **dict.fromkeys([*PAPER, "mse_published"], 0.5)}) for s in scores]
    tables = family_tables(summarise(own), kind="all", metrics=ALL_METRICS)
    (published,) = (t for t in tables if any("as published" in c.heading for c in t.columns))
    table = with_paper(published)
    assert table.rows[-1].heading == "the paper, on ADNI"
    cells = dict(zip([c.heading for c in table.columns[1:]], _texts(table)[-1], strict=True))
    assert cells["MAE, as published (of [0, 1])"] == "0.0345"
    assert cells["PSNR, as published (dB)"] == "24.59"
    assert cells["MSE, as published (of [0, 1])"] == cells["Subjects"] == "not reported"
    assert "other subjects, scanners" in table.caption
    (other,) = (t for t in tables if "MetaROI" in t.columns[-1].heading)
    assert with_paper(other) is other


def test_overlap_as_shares_and_as_volumes() -> None:
    values = [Estimate(k / 10) for k in range(1, 6)]
    row = OverlapRow(
        "federated", "CN", -2.0, 9, *values, Estimate(7.0), Estimate(8.0), Estimate(9.0),
        cluster_precision=Estimate(0.6), lost_ml=Estimate(5.0), kept_ml=Estimate(2.0),
    )  # fmt: skip
    shares, sizes = overlap_tables([row])
    assert _texts(shares) == [["federated", "\u22122", "9", "0.10", "0.20", "0.30", "0.40", "0.60", "0.50"]]
    assert _texts(sizes) == [["federated", "\u22122", "9", "7.0", "8.0", "2.0", "5.0", "9.0"]]
    assert [column.heading for column in shares.columns[4:]] == [
        "Dice", "Sensitivity", "Precision", "Cluster sensitivity", "Cluster precision", "Cluster specificity"
    ]  # fmt: skip
    assert [(column.heading, column.direction) for column in sizes.columns[-3:]] == [
        ("Kept (ml)", "higher"), ("Lost (ml)", "lower"), ("Invented (ml)", "lower")
    ]  # fmt: skip
    hidden = replace(row, hidden="fewer than 5 subjects, too few to tell")
    assert [row[2] for row in _texts(overlap_tables([hidden])[0])] == ["fewer than 5"]


def test_uncertainty() -> None:
    coverage = coverage_table([CoverageRow("federated", 0.95, 9, Estimate(0.9), Estimate(0.2))])
    assert coverage.rows[0].heading == "federated"
    assert _texts(coverage) == [["95%", "9", "0.900", "0.200"]]
    spread = spread_table([SpreadRow("federated", 9, Estimate(-0.3), Estimate(0.1), Estimate(0.2))])
    assert _texts(spread) == [["federated", "9", "\u22120.30", "0.1000", "0.2000"]]
