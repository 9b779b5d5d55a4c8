# SPDX-License-Identifier: Apache-2.0
"""A manifest as we write it: what `data.manifest` reads."""

import os
from collections.abc import Sequence
from pathlib import Path

from pasta_model.data.manifest import CLINICAL, KNOWN, OPTIONAL, Session
from pasta_model.data.tables import write_table


def write_manifest(path: Path, sessions: Sequence[Session]) -> None:
    """Write a manifest that `read_manifest` reads as the same sessions, atomically.

    Paths are written relative to the table, so that the folder around both can move. Optional columns
    are left out where no session has a value for them.
    """
    folder = path.parent.resolve()
    rows = [_row(session, folder) for session in sessions]
    header = [name for name in KNOWN if name not in OPTIONAL or any(row[name] for row in rows)]
    write_table(path, header, [[row[name] or "n/a" for name in header] for row in rows])


def _row(session: Session, folder: Path) -> dict[str, str]:
    """Return the cells of a session, by column; empty where a value is missing."""
    # Folders are resolved, as ".." is by the system; a scan that is itself a link stays one.
    mri, pet = (
        "" if path == Path() else os.path.relpath(path.parent.resolve() / path.name, folder)
        for path in (session.mri, session.pet)
    )
    values = {name: session.clinical.get(name) for name in CLINICAL}
    clinical = {name: "" if value is None else _number(value) for name, value in values.items()}
    if values["sex"] is not None:
        clinical["sex"] = "F" if values["sex"] else "M"
    names = (session.subject, session.session, session.site, session.diagnosis, mri, pet)
    optional = (session.split or "", session.rid, session.phase)
    return dict(zip(KNOWN, (*names, *clinical.values(), *optional), strict=True))


def _number(value: float) -> str:
    """Return the shortest text that reads as the same number."""
    return str(int(value)) if value == int(value) else repr(float(value))
