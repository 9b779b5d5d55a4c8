# SPDX-License-Identifier: Apache-2.0
"""Findings beyond similarity as tables of a page: diagnosis, hypometabolism, uncertainty."""

from collections.abc import Sequence

from pasta_model.diagnosis.results import DiagnosisRow
from pasta_model.evaluation.uncertainty import CoverageRow, SpreadRow
from pasta_model.norms.overlap import OverlapRow
from pasta_model.report.page import Cell, Column, RowGroup, Table
from pasta_model.report.tables import INTERVALS, estimate_cell, grouped, number


def diagnosis_table(rows: Sequence[DiagnosisRow]) -> Table:
    """Return what readers tell of each kind of scan, a group of rows a task and reader."""

    def line(row: DiagnosisRow) -> list[Cell]:
        values = (row.balanced_accuracy, row.f1, row.auc)
        names = [Cell(row.trained_on), Cell(row.applied_to), Cell(str(row.subjects))]
        return [*names, *(estimate_cell(value, 3) for value in values)]

    columns = [
        Column("Task, reader", "text"),
        Column("Trained on", "text"),
        Column("Applied to", "text"),
        Column("Subjects"),
        Column("Balanced accuracy", direction="higher"),
        Column("F1", direction="higher"),
        Column("AUC", direction="higher"),
    ]
    caption = (
        "The same folds and budget for every input; no generator has trained on these subjects. Reader"
        f" 'regions' is logistic regression on regional values. {INTERVALS}"
    )
    groups = grouped(rows, lambda row: f"{row.task}, {row.reader}", line)
    return Table("Diagnosis from each input", columns, groups, caption)


def overlap_tables(rows: Sequence[OverlapRow]) -> list[Table]:
    """Return how hypometabolism of synthetic and real PETs overlaps: as shares, and in millilitres."""
    names = [Column("Diagnosis", "text"), Column("Method", "text"), Column("z below"), Column("Subjects")]

    def who(row: OverlapRow) -> list[Cell]:
        return [Cell(row.method), Cell(number(row.threshold, "g")), Cell(row.count)]

    def shares(row: OverlapRow) -> list[Cell]:
        voxels = (row.dice, row.sensitivity, row.precision)
        clusters = (row.cluster_sensitivity, row.cluster_specificity)
        return [*who(row), *(estimate_cell(value, 2) for value in (*voxels, *clusters))]

    def sizes(row: OverlapRow) -> list[Cell]:
        volumes = (row.real_ml, row.synthetic_ml, row.invented_ml)
        return [*who(row), *(estimate_cell(value, 1) for value in volumes)]

    heads = ("Dice", "Sensitivity", "Precision", "Cluster sensitivity", "Cluster specificity")
    by_share = [*names, *(Column(head, direction="higher") for head in heads)]
    by_size = [
        *names,
        Column("Real (ml)"),
        Column("Synthetic (ml)"),
        Column("Invented (ml)", "number", "lower"),
    ]
    below = "Voxels below the threshold against norms of healthy subjects of the same age."
    invented = "Invented: in the synthetic PET and not in the real one; in a healthy subject all of it is."
    return [
        Table(
            "Hypometabolism of the synthetic PET where the real one has it",
            by_share,
            grouped(rows, lambda row: row.diagnosis, shares),
            f"{below} {INTERVALS}",
        ),
        Table(
            "Kept, smoothed away, or invented?",
            by_size,
            grouped(rows, lambda row: row.diagnosis, sizes),
            f"{below} {invented} {INTERVALS}",
        ),
    ]


def coverage_table(rows: Sequence[CoverageRow]) -> Table:
    """Return how often intervals from several samples hold the real value."""

    def line(row: CoverageRow) -> list[Cell]:
        names = [Cell(f"{row.level:.0%}"), Cell(str(row.subjects))]
        return [*names, estimate_cell(row.coverage, 3), estimate_cell(row.width, 3)]

    columns = [
        Column("Method", "text"),
        Column("Promised"),
        Column("Subjects"),
        Column("Held"),
        Column("Width (SUVR)", direction="lower"),
    ]
    caption = (
        "A calibrated interval holds the real value as often as it promises: less is overconfident, more is"
        f" needlessly wide. {INTERVALS}"
    )
    return Table("Coverage of the intervals", columns, grouped(rows, lambda row: row.method, line), caption)


def spread_table(rows: Sequence[SpreadRow]) -> Table:
    """Return whether the spread of the samples tells where the error is."""

    def line(row: SpreadRow) -> list[Cell]:
        values = [estimate_cell(row.correlation, 2), *(estimate_cell(v, 4) for v in (row.error, row.spread))]
        return [Cell(row.method), Cell(str(row.subjects)), *values]

    columns = [
        Column("Method", "text"),
        Column("Subjects"),
        Column("Correlation", direction="higher"),
        Column("Error (SUVR)", direction="lower"),
        Column("Spread (SUVR)"),
    ]
    caption = (
        f"Where samples differ more the error should be larger, and both should be alike in size. {INTERVALS}"
    )
    return Table("Error against spread", columns, [RowGroup("", [line(row) for row in rows])], caption)
