# SPDX-License-Identifier: Apache-2.0
"""The table on a terminal of 100 columns, and without one."""

from io import StringIO

from rich.console import Console

from pasta_model.evaluation.scores import SiteRow
from pasta_model.report.table import scores_table, table_text

ROWS = [
    SiteRow("A", "mean PET", 12, 0.1, 24.0, 0.8, 0.05, 0.0),
    SiteRow("A", "federated", 12, 0.08, 25.0, 0.9, 0.06, 0.0),
    SiteRow("[b]University Hospital[/b]", "federated", 3, 0.08, float("inf"), 0.9, 0.06, 0.0),
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
    assert "inf" in line


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
    rows = [SiteRow("A", m, 2, 0.10001 + i * 1e-6, 1.0, 0.5, 0.1, 0.0) for i, m in enumerate(("x", "y"))]
    assert table_text(rows).count("0.1000*") == 4  # MAE and MetaROI error of both
