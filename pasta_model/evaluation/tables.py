# SPDX-License-Identifier: Apache-2.0
"""The tables of an evaluation on disk: scores by session, means by group, agreement by region."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from pasta_model.data.tables import read_table, write_table
from pasta_model.errors import ManifestError, Problems
from pasta_model.evaluation.agreement import RegionRow
from pasta_model.evaluation.columns import ALL_METRICS
from pasta_model.evaluation.estimates import Estimate
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import GroupRow

MISSING = "n/a"
REASONS = "not_available"
_WHO = ("subject", "session", "site", "diagnosis", "method", "person", "sex", "age")
_ESTIMATES = ("bias", "mae", "correlation", "lower_limit", "upper_limit")
_ESTIMATE = tuple(field.name for field in fields(Estimate))


def write_scores(path: Path, scores: Sequence[SubjectScore]) -> None:
    """Write one row a session and method, atomically; floats keep every digit, missing ones are `n/a`.

    The last column, `not_available`, holds the reasons.
    """
    known = [metric.name for metric in ALL_METRICS]
    names = [*known, *dict.fromkeys(name for s in scores for name in s.values if name not in known)]
    rows = [
        [*_identity(s), *(_number(s.values.get(name)) for name in names), _reasons(s.why)] for s in scores
    ]
    write_table(path, [*_WHO, *names, REASONS], rows)


def read_scores(path: Path) -> list[SubjectScore]:
    """Read what `write_scores` wrote.

    Raises
    ------
    ManifestError
        When the file is missing, has other columns, or has rows that are not numbers where
        numbers belong; all bad rows at once.
    """
    if not path.is_file():
        raise ManifestError(f"{path}: no such file; evaluate first")
    problems = Problems(str(path))
    header, rows = read_table(path, problems)
    if tuple(header[: len(_WHO)]) != _WHO or header[-1] != REASONS:
        raise ManifestError(f"{path}: found columns {header}, wanted {', '.join(_WHO)}, metrics, {REASONS}")
    scores: list[SubjectScore] = []
    for line, row in rows.items():
        try:
            scores.append(_parse(row))
        except ValueError as error:
            problems.add(f"line {line}: {error}")
    problems.raise_if_any(ManifestError)
    return scores


def write_groups(path: Path, rows: Sequence[GroupRow]) -> None:
    """Write one row a group, method and metric: value, interval, and the reason for what is missing."""
    table = [
        [row.kind, row.group, row.method, row.count, name, *_estimate(estimate)]
        for row in rows
        for name, estimate in row.values.items()
    ]
    write_table(path, ("kind", "group", "method", "subjects", "metric", *_ESTIMATE), table)


def write_regions(path: Path, rows: Sequence[RegionRow]) -> None:
    """Write one row a method, region and statistic, in SUVR."""
    table = [
        [row.method, row.region, row.count, name, *_estimate(getattr(row, name))]
        for row in rows
        for name in _ESTIMATES
    ]
    write_table(path, ("method", "region", "subjects", "statistic", *_ESTIMATE), table)


def _identity(score: SubjectScore) -> list[str]:
    """Return the cells of who it is about."""
    words = [str(getattr(score, name)) for name in _WHO[:-1]]
    return [word or MISSING for word in words] + [_number(score.age)]


def _estimate(estimate: Estimate) -> list[str]:
    """Return the cells of a value with its interval."""
    return [*(_number(end) for end in (estimate.value, estimate.low, estimate.high)), estimate.why]


def _number(value: float | None) -> str:
    return MISSING if value is None else repr(float(value))


def _reasons(why: Mapping[str, str]) -> str:
    """Write `psnr, psnr_volume: the volumes are equal; ...`; a backslash stands before a mark of a reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in why.items():
        by_reason.setdefault(" ".join(reason.split()), []).append(name)
    return "; ".join(f"{', '.join(names)}: {_marked(reason)}" for reason, names in by_reason.items())


def _marked(reason: str) -> str:
    """Put a backslash before what separates reasons."""
    return reason.replace("\\", "\\\\").replace(";", "\\;")


def _read_reasons(cell: str) -> dict[str, str]:
    why: dict[str, str] = {}
    for part in re.findall(r"(?:\\.|[^;\\])+", cell):
        names, _, reason = part.strip().partition(": ")
        why |= dict.fromkeys(names.split(", "), re.sub(r"\\(.)", r"\1", reason))
    return why


def _parse(row: Mapping[str, str]) -> SubjectScore:
    why = _read_reasons(row[REASONS]) if row[REASONS] else {}
    numbers = {name: _value(name, cell) for name, cell in row.items() if name not in (*_WHO, REASONS)}
    who = {name: "" if row[name] == MISSING else row[name] for name in _WHO[:-1]}
    values = {name: value for name, value in numbers.items() if value is not None or name in why}
    return SubjectScore(**who, age=_value("age", row["age"]), values=values, why=_in_order(why, values))


def _in_order(why: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: why[name] for name in names if name in why}


def _value(name: str, cell: str) -> float | None:
    if cell == MISSING:
        return None
    try:
        return float(cell)
    except ValueError as error:
        raise ValueError(f"{name} {cell!r}, wanted a number or {MISSING}") from error
