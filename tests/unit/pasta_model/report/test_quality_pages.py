# SPDX-License-Identifier: Apache-2.0
"""Pages of quality control are whole, escaped and lead to each other; pictures and tables are bounded."""

import io
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pasta_model.data.grid import template
from pasta_model.data.metaroi import metaroi_map, reference_mask
from pasta_model.prepare import pages
from pasta_model.prepare.folders import session_folder
from pasta_model.prepare.records import Decision
from pasta_model.prepare.template import template_brain
from pasta_model.report import decisions as decided
from pasta_model.report.charts import strips
from pasta_model.report.decisions import decisions_table
from pasta_model.report.preparation import preparation_panel
from pasta_model.report.quality_pages import NOTE, QualityCell, cohort_page, session_page

GRID = template(3.0).head
EVIL = '<script>alert("x")</script>'
PNG = b"\x89PNG\r\n\x1a\n"


class _Page(HTMLParser):
    """What a page loads, where it leads, which scripts run, and the words of its cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [v or "" for k, v in attrs if k in ("src", "srcset", "poster", "data")]
        self.links += [v or "" for k, v in attrs if k == "href"]
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag != "td"

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.rows[-1][-1] += data.strip()


def session(**changes: object) -> str:
    about = {
        "png": PNG,
        "figures": {"mask": "0.97"},
        "flags": [],
        "steps": [{"step": "read", "seconds": 0.5}],
    }
    return session_page(str(changes.pop("name", "sub-1_ses-a")), **(about | changes))


def whole(page: str) -> _Page:
    """A page needs nothing but itself."""
    found = _Page(page)
    assert all(place.startswith("data:") for place in found.loads)
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", re.sub(r"data:[^\"]*", "", page))
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    return found


def test_pages_need_nothing_but_themselves() -> None:
    cells = [[QualityCell("sub-1_ses-a", link="sub-1_ses-a.html")]]
    for page in (session(), cohort_page("All", columns=["session"], rows=cells, png=PNG)):
        assert len(whole(page).loads) == 1
        assert NOTE in page


@pytest.mark.parametrize(
    "changes",
    [
        {"name": EVIL},
        {"figures": {EVIL: EVIL}},
        {"flags": [EVIL]},
        {"steps": [{"step": EVIL, "by": EVIL, "seconds": EVIL}]},
        {"steps": [{"step": "read", "skipped": EVIL}]},
    ],
)
def test_whatever_a_scan_is_called_runs_nothing(changes: dict) -> None:
    page = session(**changes)
    whole(page)
    assert EVIL not in page
    assert "&lt;script&gt;" in page


def test_a_comment_in_the_cohorts_table_runs_nothing_either() -> None:
    page = cohort_page(EVIL, columns=[EVIL], rows=[[QualityCell(EVIL, "flag", f"{EVIL}.html")]], png=None)
    assert "script" not in whole(page).tags
    assert EVIL not in page


def test_a_session_without_flags_has_no_table_of_them() -> None:
    assert "To look at" not in session()
    flagged = session(flags=["whose PET is it?"])
    assert flagged.index("whose PET is it?") < flagged.index("Figures")


def test_a_step_tells_its_settings_and_what_was_passed_over() -> None:
    steps = [{"step": "SUVR", "seconds": 0.25, "reference": "pons"}, {"step": "N4", "skipped": "off"}]
    rows = whole(session(steps=steps)).rows
    assert ["SUVR", "reference: pons", "0.25"] in rows
    assert ["N4", "skipped: off", ""] in rows


def write_cohort(output: Path, flags: Sequence[str], comment: str = "") -> list[str]:
    """Write the pages of a cohort; return the sessions' names in the order of its table."""
    pairs, rows = [], []
    for number, flag in enumerate(flags):
        visit = SimpleNamespace(subject=f"sub-{number}", session="ses-a")
        pair = SimpleNamespace(visit=visit, name=f"sub-{number}_ses-a")
        folder = session_folder(output, pair)
        folder.mkdir(parents=True)
        (folder / "quality.png").write_bytes(PNG)
        figures = {"mask_overlap": "0.97", "pet_stretch": "n/a", "angular_left": f"1.{number}"}
        pairs.append(pair)
        rows.append({"session": pair.name, "exclude": "", "comment": comment, "flags": flag, **figures})
    records = {pair.name: {"steps": [{"step": "read", "seconds": 0.1}]} for pair in pairs}
    pages.write_pages(output, pairs, records, rows)
    found = whole((output / "qc" / "index.html").read_text(encoding="utf-8"))
    assert [Path(link).stem for link in found.links] == [row[0] for row in found.rows if row]
    return [Path(link).stem for link in found.links]


def test_flagged_sessions_come_first_and_each_leads_to_its_page(tmp_path: Path) -> None:
    order = write_cohort(tmp_path, ["", "", "stretch 1.1", "", "mask 0.8; stretch 1.2"])
    assert order == [f"sub-{n}_ses-a" for n in (2, 4, 0, 1, 3)]
    for name in order:
        whole((tmp_path / "qc" / f"{name}.html").read_text(encoding="utf-8"))
    assert "5 sessions, 2 with flags" in (tmp_path / "qc" / "index.html").read_text(encoding="utf-8")
    two = (tmp_path / "qc" / "sub-4_ses-a.html").read_text(encoding="utf-8")
    assert {"mask 0.8", "stretch 1.2"} <= {row[0] for row in _Page(two).rows if row}


def test_a_persons_comment_is_shown_as_text_and_one_session_is_a_cohort(tmp_path: Path) -> None:
    write_cohort(tmp_path, [""], comment=EVIL)
    page = (tmp_path / "qc" / "index.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page
    assert "<img" not in page  # strips of one point tell nothing


def panel(*, pet: np.ndarray | None) -> np.ndarray:
    brain = template_brain(GRID)
    png = preparation_panel(
        brain.t1, brain.mask.astype(np.float32), pet, template=brain.t1, metaroi=metaroi_map(GRID), grid=GRID,
        reference=reference_mask(GRID).astype(np.float32), title="sub-1_ses-a",
    )  # fmt: skip
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.float32)


def test_a_panel_has_two_rows_more_with_a_pet() -> None:
    pet = np.where(template_brain(GRID).mask, 1.5, 0.0).astype(np.float32)
    alone, both = panel(pet=None), panel(pet=pet)
    assert alone.std() > 10
    assert both.std() > 10
    assert both.shape[1] == alone.shape[1]
    assert both.shape[0] / alone.shape[0] == pytest.approx((3.05 * 4 + 0.4) / (3.05 * 2 + 0.4), rel=0.01)
    assert np.abs(np.diff(both, axis=2)).max() > 60  # colours


def test_strips_bear_missing_figures() -> None:
    numbers = {"mask_overlap": [0.9, 0.95, float("nan")], "pet_stretch": [float("nan")] * 3}
    assert strips(numbers, flagged=[True, False, False]).startswith(PNG)


def rendered(found: Sequence[Decision]) -> list[str]:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(decisions_table(found))
    return console.export_text().splitlines()


def test_what_must_be_mended_comes_first_and_the_title_counts() -> None:
    lines = rendered(
        [
            Decision("sub-1", "a", "taken", "3 days apart"),
            Decision("sub-3", "a", "refused", "no site"),
            Decision("sub-2", "a", "left", "no PET"),
            Decision("sub-2", "b", "refused", "found [red] times\nin a file"),
        ]
    )
    found = [re.search(r"sub-\d", line).group() for line in lines if "sub-" in line]
    assert found == ["sub-2", "sub-3", "sub-2", "sub-1"]
    assert any("1 taken, 1 left, 2 refused" in line for line in lines)
    assert any("found [red] times in a file" in line for line in lines)  # no markup, one line


def test_of_many_sessions_the_table_shows_the_first_and_counts_the_rest() -> None:
    many = [Decision(f"sub-{n:03d}", "a", "taken", "fine") for n in range(decided.MOST + 5)]
    table = decisions_table([*many, Decision("sub-999", "a", "refused", "no site")])
    assert table.row_count == decided.MOST + 1
    lines = rendered([*many, Decision("sub-999", "a", "refused", "no site")])
    assert any("6 more in sessions.tsv" in line for line in lines)
    assert any("sub-999" in line for line in lines)
    assert decisions_table(many[: decided.MOST]).row_count == decided.MOST
