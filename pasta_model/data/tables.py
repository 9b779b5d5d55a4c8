# SPDX-License-Identifier: Apache-2.0
"""Tables as text: tab separated, or comma separated where the name ends in `.csv`; UTF-8."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from pasta_model.errors import ManifestError, Problems
from pasta_model.files import write_text


def read_table(path: Path, problems: Problems) -> tuple[list[str], dict[int, dict[str, str]]]:
    """Read a table: its columns, and its rows by line number; note rows that are too long.

    Raises
    ------
    ManifestError
        When it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 text; export the table again as UTF-8") from error
    reader = csv.reader(text.splitlines(), delimiter=_mark(path))
    header = [name.strip() for name in next(reader, [])]
    rows = {}
    for cells in reader:
        if not any(cells):
            continue
        if len(cells) > len(header):
            problems.add(f"line {reader.line_num}: {len(cells)} cells, wanted {len(header)}")
        padded = [*cells, *[""] * (len(header) - len(cells))]
        rows[reader.line_num] = {k: v.strip() for k, v in zip(header, padded, strict=False)}
    return header, rows


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table, atomically."""
    text = io.StringIO()
    csv.writer(text, delimiter=_mark(path), lineterminator="\n").writerows([header, *rows])
    write_text(path, text.getvalue())


def _mark(path: Path) -> str:
    return "," if path.suffix == ".csv" else "\t"
