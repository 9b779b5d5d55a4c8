# SPDX-License-Identifier: Apache-2.0
"""A site's own TOML files: read once at the edge, every problem of a file at once."""

import difflib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pasta_model.config import read_toml
from pasta_model.errors import ConfigError, Problems

Table = TypeVar("Table", bound=BaseModel)


def checked(
    kind: type[Table], content: Mapping[str, Any], *, path: Path, context: Mapping[str, Any] | None = None
) -> Table:
    """Make a frozen table of what was read.

    Parameters
    ----------
    context
        What the fields' validators want to know.

    Raises
    ------
    ConfigError
        With a line for every unknown name, wrong type or impossible value.
    """
    try:
        return kind.model_validate(dict(content), context=dict(context or {}))
    except ValidationError as error:
        problems = Problems(f"{path}: cannot be used")
        for detail in error.errors():
            problems.add(_line(detail, kind))
        problems.raise_if_any(ConfigError)
        raise


def read_table(path: Path, kind: type[Table], *, section: str) -> Table:
    """Read a TOML file that holds one section.

    Raises
    ------
    ConfigError
        When the file cannot be read, or with a line for every problem.
    """
    content = read_toml(path)
    problems = Problems(f"{path}: cannot be used")
    for name in sorted(content.keys() - {section}):
        problems.add(f"{name}: no such section; wanted [{section}]")
    if not isinstance(content.get(section), dict):
        problems.add(f"[{section}] is missing")
    problems.raise_if_any(ConfigError)
    return checked(kind, content[section], path=path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _line(detail: Mapping[str, Any], kind: type[BaseModel]) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(detail["loc"][-1]), _names(kind), n=1, cutoff=0.5)
        return f"{name}: no such setting" + (f"; did you mean {close[0]!r}?" if close else "")
    if detail["type"] == "missing":
        return f"{name}: is missing"
    wanted = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{name}: found {detail['input']!r}, wanted {wanted}"


def _names(kind: type[BaseModel]) -> list[str]:
    """All names of a table and of its sections, as they are written outside."""
    names = []
    for name, field in kind.model_fields.items():
        names.append(field.alias or name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += _names(field.annotation)
    return names
