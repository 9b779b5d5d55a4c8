# SPDX-License-Identifier: Apache-2.0
"""Quality control in a browser: a page a session, a page of the cohort; self-contained, offline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pasta_model.report.html import environment
from pasta_model.report.page import Picture

NOTE = "Research software, not a medical device. To leave a session out, write exclude into its row of qc.tsv and run the same command again."  # noqa: E501


@dataclass(frozen=True)
class QualityCell:
    """A cell: `kind` is "number" or "flag", `link` leads to another page."""

    text: str
    kind: str = ""
    link: str = ""


@dataclass(frozen=True)
class QualityTable:
    """A table of a page."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[QualityCell]]


def session_page(
    name: str,
    *,
    png: bytes,
    figures: Mapping[str, str],
    flags: Sequence[str],
    steps: Sequence[Mapping[str, Any]],
) -> str:
    """Return the page of a session: its pictures, its figures, what was done."""
    words = [[QualityCell(k), QualityCell(v, "number")] for k, v in figures.items()]
    done = [
        [
            QualityCell(str(s["step"])),
            QualityCell(_words(s)),
            QualityCell(str(s.get("seconds", "")), "number"),
        ]
        for s in steps
    ]
    tables = [
        QualityTable("Figures", ("figure", "value"), words),
        QualityTable("Steps", ("step", "", "seconds"), done),
    ]
    if flags:
        tables.insert(0, QualityTable("To look at", ("flag",), [[QualityCell(f, "flag")] for f in flags]))
    alt = (
        "Mask outline on the MRI, PET over MRI, checkerboard with the template, reference region and MetaROI."
    )
    caption = "Neurological view: left is left. Green: mask, reference region. Blue: MetaROI."
    return _render(f"{name}: quality control", tables, [Picture(png, alt, caption)], first=True)


def cohort_page(
    title: str, *, columns: Sequence[str], rows: Sequence[Sequence[QualityCell]], png: bytes | None
) -> str:
    """Return the page of the cohort: a row a session, flagged ones first, and how the figures are spread."""
    table = QualityTable("Sessions", columns, rows)
    alt = "Strips of points: each figure of quality over the cohort; flagged sessions in another colour."
    pictures = [Picture(png, alt, "One point a session; flagged ones are orange.")] if png else []
    return _render(title, [table], pictures)


def _words(step: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}: {v}" for k, v in step.items() if k not in ("step", "seconds") and v)


def _render(
    title: str, tables: Sequence[QualityTable], pictures: Sequence[Picture], *, first: bool = False
) -> str:
    return (
        environment()
        .get_template("quality.html.j2")
        .render(title=title, note=NOTE, tables=tables, pictures=pictures, pictures_first=first)
    )
