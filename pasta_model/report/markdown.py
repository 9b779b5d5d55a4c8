# SPDX-License-Identifier: Apache-2.0
"""Blocks of a page as Markdown that reads without a build; pictures and the viewer stay on the page."""

from collections.abc import Sequence

from pasta_model.report.page import (
    Block,
    Bullets,
    Cell,
    Code,
    Facts,
    Fold,
    Heading,
    Paragraph,
    Table,
    Verdicts,
)

MARKS = {"yes": "\u2713", "no": "\u2717", "open": "\u2013"}


def markdown(blocks: Sequence[Block]) -> str:
    """Return blocks as Markdown, a blank line between them."""
    return "\n\n".join(text for block in blocks if (text := _draw(block)))


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    line = " ".join(text.split()).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    for mark in "|*_`[]#":
        line = line.replace(mark, "\\" + mark)
    return line


def _draw(block: Block) -> str:
    match block:
        case Heading(text):
            return f"### {escaped(text)}"
        case Paragraph(text):
            return escaped(text)
        case Code(text):
            return f"```\n{text}\n```"
        case Fold(_, inner):
            return markdown(inner)
        case Table():
            return _table(block)
        case _:
            return "\n".join(f"- {item}" for item in _items(block))


def _items(block: Block) -> list[str]:
    match block:
        case Bullets(items):
            return [escaped(item) for item in items]
        case Facts(pairs):
            return [f"**{escaped(name)}**: {escaped(text)}" for name, text in pairs.items()]
        case Verdicts(items):
            return [f"{MARKS[said.mark]} {escaped(said.text)}" for said in items]
        case _:
            return []


def _table(table: Table) -> str:
    heads = [escaped(column.heading) for column in table.columns]
    rules = ["---:" if column.kind == "number" else "---" for column in table.columns]
    lines = [_line(heads), _line(rules)]
    for group in table.rows:
        for place, row in enumerate(group.rows):
            first = [escaped(group.heading) if place == 0 else ""] * table.headed
            lines.append(_line([*first, *(_cell(cell, table) for cell in row)]))
    parts = [f"**{escaped(table.title)}**", "\n".join(lines), escaped(table.caption)]
    parts.append("\n".join(f"{number}. {escaped(note)}" for number, note in enumerate(table.notes, start=1)))
    return "\n\n".join(part for part in parts if part)


def _cell(cell: Cell, table: Table) -> str:
    text = escaped(cell.text)
    if cell.best:
        text = f"**{text}**"
    if cell.detail:
        text += f" ({escaped(cell.detail)})"
    return f"{text} [{table.notes.index(cell.note) + 1}]" if cell.note else text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
