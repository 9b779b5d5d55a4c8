# SPDX-License-Identifier: Apache-2.0
"""Tables as text: tab separated, or comma separated where the name ends in `.csv`; UTF-8."""

import csv
import difflib
import io
from collections import Counter
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


def check_columns(
    header: Sequence[str], problems: Problems, *, required: Sequence[str], known: Sequence[str]
) -> None:
    """Note columns that are missing, twice there, or unknown."""
    for name in required:
        if name not in header:
            problems.add(f"column {name!r} is missing; wanted {', '.join(required)}")
    for name, count in Counter(header).items():
        if count > 1:
            problems.add(f"column {name!r}: found {count} times, wanted once")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}."
            problems.add(f"column {name!r} is unknown; {hint} Rename or remove it")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table, atomically."""
    text = io.StringIO()
    csv.writer(text, delimiter=_mark(path), lineterminator="\n").writerows([header, *rows])
    write_text(path, text.getvalue())


def number_cell(value: float) -> str:
    """Return the shortest text that reads as the same number."""
    return str(int(value)) if value == int(value) else repr(float(value))


def _mark(path: Path) -> str:
    return "," if path.suffix == ".csv" else "\t"
