# SPDX-License-Identifier: Apache-2.0
"""The table on a terminal of 100 columns, and without one."""

from io import StringIO

from rich.console import Console

from pasta_model.evaluation.estimates import Estimate
from pasta_model.evaluation.summary import GroupRow, summarise
from pasta_model.report.table import published_lines, scores_table, table_text
from tests.support.scores import a_row, a_score

ROWS = [
    a_row("A", "mean PET", 12, mae=0.1, psnr=24.0, ssim=0.8, metaroi_error=0.05),
    a_row("A", "federated", 12, mae=0.08, psnr=25.0, ssim=0.9, metaroi_error=0.06),
    a_row("[b]University Hospital[/b]", "federated", 3, mae=0.08, psnr=None, ssim=0.9, metaroi_error=0.06),
]


def _line(text: str, *words: str) -> str:
    return next(line for line in text.splitlines() if all(word in line for word in words))


def test_plain_text_marks_the_best_of_a_site() -> None:
    text = table_text(ROWS, title="Held-out subjects")
    assert "\x1b" not in text
    assert text.startswith("Held-out subjects")
    assert _line(text, "mean PET").split() == [
        "A",
        "12",
        "mean",
        "PET",
        "0.1000",
        "24.00",
        "0.8000",
        "0.0500*",
    ]
    assert _line(text, "12", "federated").split()[-4:] == ["0.0800*", "25.00*", "0.9000*", "0.0600"]


def test_names_are_text_and_not_markup_and_a_lone_method_wins_nothing() -> None:
    line = _line(table_text(ROWS), "[b]University Hospital[/b]")
    assert "*" not in line
    assert line.split()[-4:] == ["0.0800", "n/a", "0.9000", "0.0600"]
    assert "inf" not in line


def test_fits_into_a_hundred_columns() -> None:
    assert max(len(line) for line in table_text(ROWS).splitlines()) <= 100


def test_best_is_bold_on_a_terminal() -> None:
    console = Console(
        file=StringIO(), width=100, force_terminal=True, color_system="standard", no_color=False
    )
    with console.capture() as capture:
        console.print(scores_table(ROWS))
    assert "\x1b[1m0.0800*\x1b[0m" in capture.get()


def test_equal_values_are_equally_good() -> None:
    rows = [
        a_row("A", m, 2, mae=0.10001 + i * 1e-6, psnr=1.0, ssim=0.5, metaroi_error=0.1)
        for i, m in enumerate(("x", "y"))
    ]
    assert table_text(rows).count("0.1000*") == 4  # MAE and MetaROI error of both


def test_intervals_stand_below_the_means() -> None:
    scores = [a_score(f"s{n}", mae=n / 10) for n in range(1, 6)]
    rows = summarise(scores)
    found = rows[0].values["mae"]
    text = table_text(rows, intervals=True)
    lines = [line.split() for line in text.splitlines()]
    below = next(n for n, words in enumerate(lines) if words[:1] == ["A"]) + 1
    assert lines[below][:2] == [f"{found.low:.4f}", "to"]
    assert lines[below + 1][0] == f"{found.high:.4f}"
    assert "95% interval" in text
    assert max(map(len, text.splitlines())) <= 100
    assert " to " not in table_text(rows)


def test_what_is_not_available_says_why_below_the_table() -> None:
    row = GroupRow("site", "A", "m", 2, {"mae": Estimate(None, why="fewer than 5 subjects")})
    text = table_text([row])
    assert sum(line.split()[-4:] == ["n/a"] * 4 for line in text.splitlines()) == 1
    assert "n/a, not available: fewer than 5 subjects; not measured" in text


def test_groups_of_one_name_and_two_kinds_are_two_blocks() -> None:
    scores = [a_score("s1", "unknown", sex=""), a_score("s2", "unknown", sex="", method="other")]
    lines = table_text(summarise(scores, by=("site", "sex"))).splitlines()
    assert sum(line.split()[:1] == ["unknown"] for line in lines) == 2
    assert any(line.split()[:1] == ["Group"] for line in lines)


def test_published_scale_stands_beside_the_papers_numbers() -> None:
    published = {"mae_published": 0.05, "psnr_published": 22.0, "ssim_published": 0.8}
    rows = summarise([a_score("s1", **published), a_score("s1", method="other")])
    first, mine, paper = published_lines(rows)
    assert "drops the SUVR" in first
    assert mine == "federated: MAE 5.00 %, PSNR 22.00 dB, SSIM 80.00 %"
    assert paper.startswith("the paper, on ADNI: MAE 3.45 %, PSNR 24.59 dB, SSIM 86.29 % (other subjects")
    assert published_lines(rows[-1:]) == []
    lost = dict.fromkeys(("psnr_published", "mae_published"))
    score = a_score("s1", **{**published, **lost}, why=dict.fromkeys(lost, "equal"))
    assert published_lines(summarise([score]))[1].startswith(
        "federated: MAE not available, PSNR not available, SSIM 80.00 %"
    )
