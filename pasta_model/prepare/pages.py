# SPDX-License-Identifier: Apache-2.0
"""The pages of quality control: qc/index.html and one beside it for each session."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pasta_model.files import write_text
from pasta_model.prepare.folders import session_folder
from pasta_model.prepare.quality import FIGURES
from pasta_model.prepare.records import Pair
from pasta_model.report.charts import strips
from pasta_model.report.quality_pages import QualityCell, cohort_page, session_page

_ABOUT = ("session", "exclude", "comment", "flags")


def write_pages(
    output: Path,
    pairs: Sequence[Pair],
    records: Mapping[str, Mapping[str, Any]],
    rows: Sequence[Mapping[str, str]],
) -> None:
    """Write all pages; `rows` are those of qc.tsv, in the order of `pairs`."""
    for pair, row in zip(pairs, rows, strict=True):
        png = (session_folder(output, pair) / "quality.png").read_bytes()
        figures = {_words(k): v for k, v in row.items() if k not in _ABOUT}
        flags = [f for f in row["flags"].split("; ") if f]
        page = session_page(
            pair.name, png=png, figures=figures, flags=flags, steps=records[pair.name]["steps"]
        )
        write_text(output / "qc" / f"{pair.name}.html", page)
    columns = list(rows[0])
    ordered = sorted(rows, key=lambda r: (not r["flags"], r["session"]))
    numbers = {n: [_number(row[n]) for row in rows] for n in columns if n not in _ABOUT}
    chart = strips(numbers, flagged=[bool(row["flags"]) for row in rows]) if len(rows) > 1 else None
    title = f"Quality control: {len(rows)} sessions, {sum(bool(r['flags']) for r in rows)} with flags"
    page = cohort_page(
        title,
        columns=[name.replace("_", " ") for name in columns],
        rows=[_cells(row) for row in ordered],
        png=chart,
    )
    write_text(output / "qc" / "index.html", page)


def _cells(row: Mapping[str, str]) -> list[QualityCell]:
    kinds = {"session": "", "exclude": "flag", "comment": "", "flags": "flag"}
    return [
        QualityCell(cell, kinds.get(name, "number"), f"{cell}.html" if name == "session" else "")
        for name, cell in row.items()
    ]


def _words(name: str) -> str:
    return f"{name}: {FIGURES[name]}" if name in FIGURES else f"SUVR: {name.replace('_', ' ')}"


def _number(cell: str) -> float:
    return float("nan") if cell == "n/a" else float(cell)
