# SPDX-License-Identifier: Apache-2.0
"""What a person reviews, and what they decide: qc.tsv, a row a session, where `exclude` can be written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pasta_model.data.manifest import MISSING, read_rows
from pasta_model.data.tables import write_table
from pasta_model.errors import ManifestError
from pasta_model.prepare.pages import write_pages
from pasta_model.prepare.quality import FIGURES, doubts, outliers
from pasta_model.prepare.records import Pair

EXCLUDE = "exclude"


def read_exclusions(path: Path) -> dict[str, str]:
    """Return the sessions that a person has excluded in qc.tsv, with the comment.

    Raises
    ------
    ManifestError
        When the column holds another word.
    """
    if not path.is_file():
        return {}
    _, rows = read_rows(path)
    wrong = sorted({r.get(EXCLUDE, "") for r in rows.values()} - {EXCLUDE, *MISSING})
    if wrong:
        raise ManifestError(f"{path}: column exclude holds {', '.join(wrong)}; wanted {EXCLUDE!r} or nothing")
    return {r["session"]: r.get("comment", "") for r in rows.values() if r.get(EXCLUDE) == EXCLUDE}


def write_review(
    output: Path,
    pairs: Sequence[Pair],
    records: Mapping[str, Mapping[str, Any]],
    exclusions: Mapping[str, str],
) -> None:
    """Write qc.tsv and the pages of the sessions that were prepared; what a person wrote is kept."""
    if not pairs:
        return
    numbers = [_numbers(records[p.name]) for p in pairs]
    names = list(dict.fromkeys([*FIGURES, *(n for row in numbers for n in row)]))
    rows = [
        {
            "session": pair.name,
            EXCLUDE: EXCLUDE if pair.name in exclusions else "",
            "comment": exclusions.get(pair.name, ""),
            "flags": "; ".join([*doubts(row), *far]),
            **{name: f"{row[name]:.4f}" if name in row else "n/a" for name in names},
        }
        for pair, row, far in zip(pairs, numbers, outliers(numbers, names), strict=True)
    ]
    write_table(output / "qc.tsv", list(rows[0]), [list(row.values()) for row in rows])
    write_pages(output, pairs, records, rows)


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {**record["figures"], "reference_uptake": record["uptake"], **record["regions"]}
