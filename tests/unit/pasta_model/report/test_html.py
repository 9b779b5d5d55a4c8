# SPDX-License-Identifier: Apache-2.0
"""The page is whole, escaped, and needs no network."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pasta_model.data.grid import template
from pasta_model.evaluation.scores import SubjectScore, summarise
from pasta_model.report.content import TWINS_NOTICE, Example, ReportContent
from pasta_model.report.html import render, write_report
from pasta_model.report.verdicts import verdicts

GRID = template(3.0).head
EVIL = '<script>alert("x")</script>'
SCORES = [
    SubjectScore(f"s{i}", "bl", site, "CN", method, mae, 20.0, 0.9, 0.1, 1.0 + i / 10, 1.1)
    for i, site in enumerate(("A", EVIL))
    for method, mae in (("federated", 0.1234), ("mean PET", 0.2345))
]


class _Page(HTMLParser):
    """Collect tags, attributes and images; every opened tag must be closed."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        self.links += [value for name, value in attrs if name in ("href", "src", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def content() -> ReportContent:
    rng = np.random.default_rng(0)
    mri, synthetic, real = rng.random((3, *GRID.shape)).astype(np.float32)
    rows = summarise(SCORES)
    return ReportContent(
        title=f"Demo {EVIL}",
        notice=TWINS_NOTICE,
        facts={"Rounds": "15"},
        rows=rows,
        scores=SCORES,
        verdicts=verdicts(rows),
        examples=[Example("CN", f"sub-{EVIL}", "A", mri, synthetic, real, GRID)],
        history=[{"round": r, "loss": {"A": 1 / r}, "valid_mae": {"A": 0.2}} for r in (1, 2)],
        config={"training": {"rounds": 15, "name": EVIL}, "path": Path("here")},
        versions={"torch": "2.13"},
    )


@pytest.fixture(scope="module")
def html(content: ReportContent) -> str:
    return render(content)


@pytest.fixture(scope="module")
def page(html: str) -> _Page:
    parser = _Page()
    parser.feed(html)
    assert parser.open == []
    return parser


def test_says_what_it_is(html: str) -> None:
    assert "digital twin" in html
    assert "not a medical device" in html
    assert "What the numbers do not show" in html


def test_holds_the_table_and_marks_the_best(html: str) -> None:
    assert '<td class="number best">0.1234</td>' in html
    assert '<td class="number">0.2345</td>' in html
    assert "mean over sites" in html


def test_holds_the_verdicts(html: str) -> None:
    assert '<li class="yes">MAE: federated beats mean PET over all 2 subjects' in html
    assert '<li class="no">federated against alone: not compared' in html


def test_holds_the_settings(html: str) -> None:
    assert "&#34;rounds&#34;: 15" in html


def test_escapes_every_text(html: str, page: _Page) -> None:
    assert "script" not in page.tags
    assert "<script" not in html
    assert "sub-&lt;script&gt;" in html


def test_needs_no_network(html: str, page: _Page) -> None:
    assert not re.search(r"https?://|url\(|@import", html)
    assert "link" not in page.tags
    assert all(link is not None and link.startswith(("#", "data:image/png;base64,")) for link in page.links)


def test_embeds_every_picture_with_an_alternative_text(page: _Page) -> None:
    assert len(page.images) == 4  # bars, one subject, scatter, curves
    for image in page.images:
        payload = (image["src"] or "").removeprefix("data:image/png;base64,")
        assert base64.b64decode(payload, validate=True).startswith(b"\x89PNG")
        assert len(image["alt"] or "") > 30


def test_links_lead_to_sections(html: str, page: _Page) -> None:
    for link in page.links:
        if link and link.startswith("#"):
            assert f'id="{link[1:]}"' in html


def test_is_written_whole_and_small(tmp_path: Path, content: ReportContent) -> None:
    path = tmp_path / "deep" / "report.html"
    write_report(path, content)
    assert path.read_text(encoding="utf-8") == render(content)
    assert path.stat().st_size < 4_000_000
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_leaves_out_what_is_not_there(content: ReportContent) -> None:
    bare = replace(content, rows=[], scores=[], verdicts=[], examples=[], history=[], notice="")
    html = render(bare)
    assert "<img" not in html
    assert "not a medical device" in html
    assert 'id="pictures"' not in html
