# SPDX-License-Identifier: Apache-2.0
"""Flagged MRIs are told by site, and of a small site nothing is."""

from pasta_model.report.page import Table
from pasta_model.report.unlike import UnlikeRow, unlike_blocks, unlike_sentences

ROWS = [
    UnlikeRow("A", 30, 2, "contrast is low", 20),
    UnlikeRow("B", 9, 0, "", 9),
    UnlikeRow("C", 4, 3, "voxels are large", 2),
    UnlikeRow("D", 12, 1, "contrast is low", 12),
]


def texts(smallest: int) -> list[list[str]]:
    _, table = unlike_blocks(ROWS, smallest=smallest)
    assert isinstance(table, Table)
    return [[cell.text for cell in row] for row in table.rows[0].rows]


def test_every_site_has_its_row() -> None:
    assert texts(0)[2] == ["C", "2", "4", "3", "voxels are large"]
    assert unlike_blocks([]) == []


def test_a_small_site_is_not_told_nor_what_would_tell_it() -> None:
    assert texts(5) == [
        ["A", "20", "30", "2", "contrast is low"],
        ["B", "not shown", *["not shown"] * 3],
        ["C", "fewer than 5", *["not shown"] * 3],
        ["D", "12", "12", "1", "contrast is low"],
    ]
    assert unlike_sentences(ROWS, smallest=5) == [
        "2 of 30 MRIs of A are unlike those trained on.", "1 of 12 MRIs of D are unlike those trained on."
    ]  # fmt: skip
    assert len(unlike_sentences(ROWS)) == 3
