# SPDX-License-Identifier: Apache-2.0
"""Findings beyond similarity as tables of a page: diagnosis, hypometabolism, uncertainty."""

from collections.abc import Sequence

from pasta_model.diagnosis.results import AucDifference, DiagnosisRow
from pasta_model.evaluation.uncertainty import CoverageRow, SpreadRow
from pasta_model.norms.overlap import OverlapRow
from pasta_model.report.page import Cell, Column, RowGroup, Table
from pasta_model.report.tables import INTERVALS, estimate_cell, grouped, number

_CLUSTERS = ("sensitivity", "precision", "specificity")


def diagnosis_table(rows: Sequence[DiagnosisRow], *, unseen: bool = False) -> Table:
    """Return what readers tell of each kind of scan, a group of rows a task and reader.

    Parameters
    ----------
    unseen
        Whether it was checked that no generator was trained on these subjects.
    """

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
    checked = (
        "no generator was trained on these subjects, by the table of splits"
        if unseen
        else "whether a generator was trained on these subjects was not checked here"
    )
    caption = (
        f"The same folds and budget for every input; {checked}. Reader 'regions' is logistic regression on"
        f" regional values. {INTERVALS}"
    )
    groups = grouped(rows, lambda row: f"{row.task}, {row.reader}", line)
    return Table("Diagnosis from each input", columns, groups, caption)


def auc_table(rows: Sequence[AucDifference]) -> Table:
    """Return by how much the AUC of each input differs from that of the references, on the same persons."""
    references = list(dict.fromkeys(row.against for row in rows))
    found = {(row.kind, row.against): row.difference for row in rows}
    kinds = list(dict.fromkeys(row.kind for row in rows))

    def line(kind: tuple[str, str, str, str]) -> list[Cell]:
        values = [found.get((kind, name)) for name in references]
        cells = (Cell("itself") if v is None else estimate_cell(v, 3, sign=True) for v in values)
        return [Cell(kind[2]), Cell(kind[3]), *cells]

    columns = [
        Column("Task, reader", "text"),
        Column("Trained on", "text"),
        Column("Applied to", "text"),
        *(Column(f"AUC minus that of {name}", direction="higher") for name in references),
    ]
    caption = (
        "Differences on the same persons, who are drawn together: an interval that holds 0 does not tell the"
        f" two apart. {INTERVALS}"
    )
    groups = grouped(kinds, lambda kind: f"{kind[0]}, {kind[1]}", line)
    return Table("Paired differences of AUC", columns, groups, caption)


def overlap_tables(rows: Sequence[OverlapRow]) -> list[Table]:
    """Return how hypometabolism of synthetic and real PETs overlaps: as shares, and in millilitres."""
    names = [Column("Diagnosis", "text"), Column("Method", "text"), Column("z below"), Column("Subjects")]

    def who(row: OverlapRow) -> list[Cell]:
        return [Cell(row.method), Cell(number(row.threshold, "g")), Cell(row.count)]

    def shares(row: OverlapRow) -> list[Cell]:
        voxels = (row.dice, row.sensitivity, row.precision)
        clusters = (row.cluster_sensitivity, row.cluster_precision, row.cluster_specificity)
        return [*who(row), *(estimate_cell(value, 2) for value in (*voxels, *clusters))]

    def sizes(row: OverlapRow) -> list[Cell]:
        volumes = (row.real_ml, row.synthetic_ml, row.kept_ml, row.lost_ml, row.invented_ml)
        return [*who(row), *(estimate_cell(value, 1) for value in volumes)]

    heads = ("Dice", "Sensitivity", "Precision", *(f"Cluster {n}" for n in _CLUSTERS))
    by_share = [*names, *(Column(head, direction="higher") for head in heads)]
    by_size = [
        *names,
        Column("Real (ml)"),
        Column("Synthetic (ml)"),
        Column("Kept (ml)", "number", "higher"),
        Column("Lost (ml)", "number", "lower"),
        Column("Invented (ml)", "number", "lower"),
    ]
    below = "Voxels below the threshold against norms of healthy subjects of the same age."
    invented = (
        "Kept: in both PETs. Lost: in the real one only, smoothed away. Invented: in the synthetic one only;"
        " in a healthy subject that is what would harm."
    )
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
