# SPDX-License-Identifier: Apache-2.0
"""The page is whole, escaped, and needs no network."""

import base64
import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pasta_model.report import html as html_room
from pasta_model.report.html import blocks_of, pictures_of, render, write_page
from pasta_model.report.page import (
    Bullets,
    Cell,
    Code,
    Column,
    Facts,
    Fold,
    Heading,
    Page,
    Paragraph,
    Picture,
    RowGroup,
    Section,
    ShownCase,
    ShownLayer,
    Statement,
    Table,
    Verdicts,
    Viewer,
)  # fmt: skip

EVIL = '<script>alert("x")</script>'
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
TABLE = Table(
    f"T {EVIL}",
    [Column("Site", "text"), Column(f"Method {EVIL}", "text"), Column("MAE", direction="lower")],
    [RowGroup(f"A {EVIL}", [
        [Cell(EVIL), Cell("0.1234", best=True, detail="0.1 to 0.2")],
        [Cell("mean"), Cell("not available", note=f"because {EVIL}", missing=True)],
    ])],
    f"caption {EVIL}",
)  # fmt: skip
VIEWER = Viewer(
    [ShownCase(f"c {EVIL}", f"g {EVIL}", f"r {EVIL}", {"mri": "AAAA"}, (0.0, 1.0))],
    [ShownLayer("mri", f"l {EVIL}", "", 0, ["#000000", "#ffffff"], [True, True], None, f"h {EVIL}")],
    first="mri",
    notes=[f"n {EVIL}"],
)
BLOCKS = (
    TABLE, Heading(EVIL), Paragraph(EVIL), Bullets([EVIL]), Facts({EVIL: EVIL}), Code(EVIL),
    Verdicts([Statement(EVIL, "yes"), Statement("no", "no"), Statement("open", "open")]),
    Picture(PNG, f"alt {EVIL}", EVIL, "chart"), Fold(EVIL, [Picture(PNG, "inner"), TABLE]),
)  # fmt: skip
PAGE = Page(f"Page {EVIL}", f"notice {EVIL}", [
    Section("one", f"One {EVIL}", BLOCKS, "1"), Section("none", "None", []),
    Section("look", "Look", [VIEWER]),
], f"sub {EVIL}", [EVIL])  # fmt: skip


class _Page(HTMLParser):
    """Collect tags and attributes; every opened tag must be closed."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [str(found["id"])] if "id" in found else []
        self.images += [found] if tag == "img" else []
        self.links += [str(value) for name, value in attrs if name in ("href", "src", "srcset", "action")]
        assert not any(name.startswith("on") or name == "style" for name in found)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def html() -> str:
    return render(PAGE)


@pytest.fixture(scope="module")
def parsed(html: str) -> _Page:
    parser = _Page()
    parser.feed(html)
    assert parser.open == []
    return parser


def test_says_what_it_is(html: str) -> None:
    assert "not a medical device" in html
    assert "notice &lt;script" in html


def test_escapes_every_text(html: str, parsed: _Page) -> None:
    assert EVIL not in html
    # of the description, one volume, NiiVue and the viewer
    assert parsed.tags.count("script") == 4


def test_needs_no_network(parsed: _Page) -> None:
    assert "link" not in parsed.tags
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in parsed.links)


def test_its_policy_forbids_one(html: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert html.index("Content-Security-Policy") < html.index("<title>")


def test_marks_the_best_and_says_why_not(html: str) -> None:
    assert '<td class="number best">0.1234<small>0.1 to 0.2</small></td>' in html
    assert '<td class="number missing" title="because &lt;script' in html
    assert html.count("lower is better") == 2  # of the table, and of the folded one


def test_every_link_leads_to_one_place(parsed: _Page) -> None:
    assert len(parsed.ids) == len(set(parsed.ids))
    inner = [link[1:] for link in parsed.links if link.startswith("#")]
    assert set(inner) <= set(parsed.ids)
    assert len([link for link in inner if "note" in link]) == 2


def test_sections_without_blocks_have_no_link(html: str) -> None:
    assert 'href="#none"' not in html
    assert 'id="none"' not in html


def test_statements_have_their_marks(html: str) -> None:
    for mark in ("yes", "no", "open"):
        assert f'<li class="{mark}">' in html


def test_pictures_hold_their_bytes_and_words(parsed: _Page) -> None:
    assert [image["alt"] for image in parsed.images] == [f"alt {EVIL}", "inner"]
    for image in parsed.images:
        payload = str(image["src"]).removeprefix("data:image/png;base64,")
        assert base64.b64decode(payload, validate=True) == PNG


def test_a_page_without_a_viewer_has_no_script() -> None:
    text = render(Page("t", "", [Section("one", "One", BLOCKS)]))
    assert "<script" not in text.replace("&lt;script", "")
    assert "not a medical device" in text


def test_folded_blocks_are_found() -> None:
    assert len(list(blocks_of(PAGE))) == len(BLOCKS) + 2 + 1
    assert [picture.alt for picture in pictures_of(PAGE)] == [f"alt {EVIL}", "inner"]


def test_two_viewers_are_refused() -> None:
    with pytest.raises(AssertionError, match="one viewer"):
        render(Page("t", "", [Section("look", "Look", [VIEWER, VIEWER])]))


def test_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    size = write_page(path, PAGE)
    assert path.read_text(encoding="utf-8") == render(PAGE)
    assert path.stat().st_size == size
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_a_page_over_the_limit_is_written_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(html_room, "PAGE_LIMIT", 1000)
    with caplog.at_level(logging.WARNING):
        write_page(tmp_path / "report.html", PAGE)
    assert "more than" in caplog.text
    assert (tmp_path / "report.html").is_file()
