# SPDX-License-Identifier: Apache-2.0
"""A table is a rectangle; its footnotes are counted in the order of its cells."""

import pytest

from pasta_model.report.page import Bullets, Cell, Column, Page, RowGroup, Section, Table

COLUMNS = (Column("Site", "text"), Column("Method", "text"), Column("MAE"))


def test_notes_are_counted_once_in_order() -> None:
    rows = [
        [Cell("a"), Cell("-", note="late")],
        [Cell("b"), Cell("-", note="few")],
        [Cell("c"), Cell("-", note="late")],
    ]
    assert Table("t", COLUMNS, [RowGroup("A", rows)]).notes == ["late", "few"]


def test_the_first_column_is_of_headings_where_there_are_some() -> None:
    assert Table("t", COLUMNS, [RowGroup("A", [[Cell("a"), Cell("1")]])]).headed
    assert not Table("t", COLUMNS[1:], [RowGroup("", [[Cell("a"), Cell("1")]])]).headed


@pytest.mark.parametrize("cells", [1, 3])
def test_a_row_of_another_width_is_refused(cells: int) -> None:
    with pytest.raises(AssertionError, match="3 columns"):
        Table("t", COLUMNS, [RowGroup("A", [[Cell("x")] * cells])])


def test_sections_without_blocks_are_left_out() -> None:
    page = Page("t", "", [Section("a", "A", []), Section("b", "B", [Bullets(["x"])])])
    assert [section.id for section in page.shown] == ["b"]
