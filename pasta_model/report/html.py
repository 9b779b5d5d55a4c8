# SPDX-License-Identifier: Apache-2.0
"""One self-contained page of HTML: opens from a file, offline, in the light and in the dark."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pasta_model.evaluation.scores import METRICS, SiteRow, best
from pasta_model.files import write_text
from pasta_model.report.charts import curves, metaroi_scatter, metric_bars
from pasta_model.report.content import Example, ReportContent
from pasta_model.report.panels import subject_panel

_TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Picture:
    """A PNG as a data URI, with the text for those who cannot see it and the caption for all."""

    uri: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Cell:
    """A value of the table; `best` when no other method of the site is better."""

    text: str
    best: bool


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    method: str
    subjects: int
    cells: list[Cell]


def write_report(path: Path, content: ReportContent) -> None:
    """Write the report to `path`, atomically."""
    write_text(path, render(content))


def render(content: ReportContent) -> str:
    """Return the report as HTML; every text in it is escaped."""
    environment = Environment(
        loader=PackageLoader("pasta_model.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        content=content,
        metrics=METRICS,
        blocks=_blocks(content.rows),
        examples=[_example(example, content.method) for example in content.examples],
        bars=_bars(content),
        curves=_curves(content),
        scatter=_scatter(content),
        config=json.dumps(content.config, indent=2, sort_keys=True, default=str, ensure_ascii=False),
    )


def _blocks(rows: Sequence[SiteRow]) -> list[tuple[str, list[Line]]]:
    """Put the rows of a site together and mark the best values."""
    blocks = []
    for site, members in groupby(rows, key=lambda row: row.site):
        group = list(members)
        winners = [best(group, metric) for metric in METRICS]
        lines = []
        for row in group:
            texts = [metric.text(metric.of(row)) for metric in METRICS]
            cells = [Cell(t, len(group) > 1 and t == w) for t, w in zip(texts, winners, strict=True)]
            lines.append(Line(row.method, row.subjects, cells))
        blocks.append((site, lines))
    return blocks


def picture_of(png: bytes, *, alt: str, caption: str) -> Picture:
    """Return a picture for a page."""
    return Picture("data:image/png;base64," + base64.b64encode(png).decode("ascii"), alt, caption)


def _example(example: Example, method: str) -> Picture:
    name = f"{example.diagnosis}: subject {example.subject}, site {example.site}"
    png = subject_panel(example.mri, example.synthetic, example.real, grid=example.grid, title=name)
    alt = f"{name}. MRI, {method} synthetic PET, real PET and their difference in three planes."
    return picture_of(png, alt=alt, caption=f"Chosen by rule: {example.rule}.")


def _bars(content: ReportContent) -> Picture | None:
    if not content.rows:
        return None
    alt = "Bars of MAE, PSNR, SSIM and MetaROI error by site and method; the table holds the values."
    return picture_of(metric_bars(content.rows), alt=alt, caption="Means by site, and over all subjects.")


def _curves(content: ReportContent) -> Picture | None:
    if not content.history:
        return None
    alt = f"Training loss and validation MAE over {len(content.history)} rounds, a line for each site."
    caption = "Thin lines: one site each. Thick line: the whole federation."
    return picture_of(curves(content.history), alt=alt, caption=caption)


def _scatter(content: ReportContent) -> Picture | None:
    if not any(s.method == content.method for s in content.scores):
        return None
    alt = "MetaROI SUVR of the real PET against the synthetic PET, one point a session, by diagnosis."
    caption = "On the dashed line the synthetic PET has the real MetaROI SUVR; points below it are too low."
    return picture_of(metaroi_scatter(content.scores, method=content.method), alt=alt, caption=caption)
