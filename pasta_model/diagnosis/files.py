# SPDX-License-Identifier: Apache-2.0
"""Tables of a diagnosis run: all predictions, all rows."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pasta_model.data.tables import read_table, write_table
from pasta_model.diagnosis.results import DiagnosisRow, Prediction
from pasta_model.diagnosis.tasks import TASKS
from pasta_model.errors import ManifestError, Problems
from pasta_model.evaluation.estimates import NOT_AVAILABLE, Estimate

_WHAT = ("task", "reader", "trained_on", "applied_to")
_WHO = ("fold", "person", "session", "site", "diagnosis")
MEASURES = ("balanced_accuracy", "f1", "auc")
_ENDS = ("", "_low", "_high")


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write a row a prediction, with the probability of each diagnosis ("n/a" where the task has it not)."""
    classes = list(dict.fromkeys(name for task in TASKS.values() for name in task.classes))
    rows = []
    for each in predictions:
        given = dict(zip(TASKS[each.task].classes, map(repr, each.probabilities), strict=True))
        cells = [str(getattr(each, name)) for name in (*_WHAT, *_WHO)]
        rows.append([*cells, *(given.get(name, "n/a") for name in classes)])
    write_table(path, [*_WHAT, *_WHO, *(f"probability_{name}" for name in classes)], rows)


def write_rows(path: Path, rows: Sequence[DiagnosisRow]) -> None:
    """Write a row a score: value and both ends of the interval of each measure, and why one is missing."""
    header = [*_WHAT, "subjects"]
    for name in MEASURES:
        header += [name, f"{name}_low", f"{name}_high"]
    lines = []
    for row in rows:
        found: list[Estimate] = [getattr(row, name) for name in MEASURES]
        numbers = [_cell(value) for each in found for value in (each.value, each.low, each.high)]
        why = "; ".join(dict.fromkeys(each.why for each in found if each.why))
        lines.append([*(getattr(row, name) for name in _WHAT), str(row.subjects), *numbers, why])
    write_table(path, [*header, "why"], lines)


def read_predictions(path: Path) -> list[Prediction]:
    """Read what `write_predictions` wrote.

    Raises
    ------
    ManifestError
        When the file is missing or another table; all bad rows at once.
    """
    if not path.is_file():
        raise ManifestError(f"{path}: no such file; run 'pasta diagnose' first")
    problems = Problems(f"{path}: no table of predictions")
    header, lines = read_table(path, problems)
    if missing := {*_WHAT, *_WHO} - set(header):
        problems.add(f"found columns {header}, wanted {sorted(missing)} too")
        problems.raise_if_any(ManifestError)
    found = []
    for number, line in lines.items():
        try:
            found.append(_prediction(line))
        except (ValueError, LookupError) as error:
            problems.add(f"line {number}: {error}")
    problems.raise_if_any(ManifestError)
    return found


def _prediction(line: Mapping[str, str]) -> Prediction:
    task = TASKS[line["task"]]
    found = tuple(float(line[f"probability_{name}"]) for name in task.classes)
    if not all(0 <= p <= 1 for p in found):
        raise ValueError(f"found probabilities {found}, wanted numbers in [0, 1]")
    task.label(line["diagnosis"])
    return Prediction(
        **{name: line[name] for name in (*_WHAT, *_WHO) if name != "fold"},
        fold=int(line["fold"]),
        probabilities=found,
    )


def read_rows(path: Path) -> list[DiagnosisRow]:
    """Read what `write_rows` wrote.

    Raises
    ------
    ManifestError
        When the file is missing or another table; all bad rows at once.
    """
    if not path.is_file():
        raise ManifestError(f"{path}: no such file; run 'pasta diagnose' first")
    problems = Problems(f"{path}: no table of a diagnosis run")
    header, lines = read_table(path, problems)
    wanted = {*_WHAT, "subjects", "why", *(name + end for name in MEASURES for end in _ENDS)}
    if set(header) != wanted:
        problems.add(f"found columns {header}, wanted {sorted(wanted)}")
        problems.raise_if_any(ManifestError)
    rows = []
    for number, line in lines.items():
        try:
            rows.append(_row(line))
        except ValueError as error:
            problems.add(f"line {number}: {error}")
    problems.raise_if_any(ManifestError)
    return rows


def _row(line: Mapping[str, str]) -> DiagnosisRow:
    accuracy, f1, auc = (_estimate(line, name) for name in MEASURES)
    task, reader, trained_on, applied_to = (line[name] for name in _WHAT)
    return DiagnosisRow(task, reader, trained_on, applied_to, int(line["subjects"]), accuracy, f1, auc)


def _estimate(line: Mapping[str, str], name: str) -> Estimate:
    value, low, high = (_number(line[name + end]) for end in _ENDS)
    return Estimate(value, low, high, line["why"] if value is None or low is None else "")


def _number(cell: str) -> float | None:
    value = None if cell == NOT_AVAILABLE else float(cell)
    if value is not None and not math.isfinite(value):
        raise ValueError(f"found {cell}, wanted a number or {NOT_AVAILABLE!r}")
    return value


def _cell(value: float | None) -> str:
    return NOT_AVAILABLE if value is None else repr(float(value))
