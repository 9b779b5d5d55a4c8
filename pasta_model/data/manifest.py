# SPDX-License-Identifier: Apache-2.0
"""The manifest: a table of subjects, sessions, files and clinical values, in the spirit of BIDS.

Tab separated (`.tsv`) or comma separated (`.csv`), `n/a` or empty where a value is missing, paths
relative to the table. All bad rows are reported at once.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pasta_model.data.tables import check_columns, number_cell, read_table, write_table
from pasta_model.errors import ManifestError, Problems

DIAGNOSES = ("CN", "MCI", "Dementia")
SPLITS = ("train", "valid", "test")
REQUIRED = ("participant_id", "session_id", "site", "diagnosis", "mri", "pet")
CLINICAL = {  # column: lowest and highest possible value
    "age": (18.0, 120.0),
    "sex": (0.0, 1.0),
    "education": (0.0, 40.0),
    "mmse": (0.0, 30.0),
    "adas13": (0.0, 85.0),
    "apoe4": (0.0, 2.0),
}
SEXES = {"M": 0.0, "Male": 0.0, "F": 1.0, "Female": 1.0}
OPTIONAL = ("split", "rid", "phase")
KNOWN = (*REQUIRED, *CLINICAL, *OPTIONAL)
MISSING = ("", "n/a")
NAME = re.compile(r"\w[\w.-]*")  # names become folders


@dataclass(frozen=True)
class Session:
    """One visit of one subject: a pair of scans and what is known of the person then.

    Attributes
    ----------
    rid
        Who it is behind the name `subject`, alike at all sites: ADNI's RID. Empty where names are enough.
    phase
        Phase of the study, such as "ADNI2"; empty outside such a study.
    """

    subject: str
    session: str
    site: str
    diagnosis: str
    mri: Path
    pet: Path
    clinical: Mapping[str, float | None] = field(default_factory=dict)
    split: str | None = None
    rid: str = ""
    phase: str = ""

    @property
    def person(self) -> str:
        """The RID where there is one, otherwise the subject; "2", "0002" and "2.0" are one RID.

        A ":" keeps RIDs apart from subjects, whose names have none.
        """
        number = re.fullmatch(r"0*(\d+)(\.0+)?", self.rid)
        return f"rid:{number[1] if number else self.rid}" if self.rid else self.subject

    @property
    def name(self) -> str:
        """Subject and session, as in BIDS file names."""
        return f"{self.subject}_{self.session}" if self.session else self.subject


def read_manifest(path: Path, *, needs_pet: bool = True) -> tuple[Session, ...]:
    """Read and check a manifest.

    Parameters
    ----------
    needs_pet
        False for synthesis, where a session may come without a PET.

    Raises
    ------
    ManifestError
        With a line for every problem of the table: unknown or missing columns, missing files,
        impossible values, duplicate sessions, an empty table.
    """
    problems = Problems(f"{path}: the manifest cannot be used")
    header, rows = read_table(path, problems)
    check_columns(header, problems, required=REQUIRED, known=KNOWN)
    if not set(REQUIRED) <= set(header):
        problems.raise_if_any(ManifestError)
    if not rows:
        problems.add("found no subject; wanted at least one row below the header")
    sessions = []
    for number, row in rows.items():
        where = f"line {number} ({row.get('participant_id') or 'no participant_id'})"
        sessions.append(_session(row, path.parent, where, problems, needs_pet=needs_pet))
    for name, count in Counter(s.name for s in sessions).items():
        if count > 1:
            problems.add(f"{name}: found in {count} rows, wanted one row a session")
    for subject in sorted({s.subject for s in sessions}):
        persons = sorted({s.person for s in sessions if s.subject == subject and s.rid})
        if len(persons) > 1:
            problems.add(f"{subject}: is {' and '.join(persons)}; wanted one RID a participant_id")
    problems.raise_if_any(ManifestError)
    return tuple(sessions)


def read_scans(paths: Sequence[Path], clinical: Sequence[str]) -> tuple[Session, ...]:
    """Return what there is to synthesise: the sessions of one manifest, or one of each MRI.

    Raises
    ------
    ManifestError
        When manifests and MRIs are mixed, or clinical values are given for more than one MRI.
    """
    mris = [path for path in paths if path.name.endswith((".nii", ".nii.gz"))]
    if clinical and (len(paths), len(mris)) != (1, 1):
        raise ManifestError("clinical values are for one MRI; of several, or in a manifest, use its columns")
    if not mris and len(paths) == 1:
        return read_manifest(paths[0], needs_pet=False)
    if len(mris) < len(paths):
        raise ManifestError(
            f"found {len(paths)} inputs, {len(mris)} of them MRIs; wanted one manifest, or MRIs"
        )
    sessions = tuple(lone_session(mri, clinical) for mri in mris)
    same = [name for name, count in Counter(s.name for s in sessions).items() if count > 1]
    if same:
        raise ManifestError(f"several MRIs are called {', '.join(same)}; rename them, or use a manifest")
    return sessions


def lone_session(mri: Path, clinical: Sequence[str]) -> Session:
    """Make a session of one MRI outside any table, named after its file.

    Parameters
    ----------
    clinical
        Values as "age=71"; the names and limits are those of the columns.

    Raises
    ------
    ManifestError
        With a line for every value that cannot be used.
    """
    problems = Problems(f"{mri}: this scan cannot be used")
    values: dict[str, float | None] = {}
    for word in clinical:
        name, given, cell = word.partition("=")
        if name not in CLINICAL or not given:
            problems.add(f"clinical value {word!r}, wanted name=value with one of {', '.join(CLINICAL)}")
        elif name in values:
            problems.add(f"clinical value {name}: given twice, wanted once")
        else:
            values[name] = _value(name, cell, "clinical", problems)
    if not mri.is_file():
        problems.add("no such file; check the path")
    problems.raise_if_any(ManifestError)
    stem = re.sub(r"(_space-[A-Za-z0-9]+)?(_T1w)?\.nii(\.gz)?$", "", mri.name)
    return Session(re.sub(r"[^\w.-]", "-", stem), "", "", "", mri, Path(), values)


def read_rows(path: Path) -> tuple[list[str], dict[int, dict[str, str]]]:
    """Read any table: its columns, and its rows by line number.

    Raises
    ------
    ManifestError
        When it cannot be read, or a row is longer than the header.
    """
    problems = Problems(f"{path}: the table cannot be used")
    table = read_table(path, problems)
    problems.raise_if_any(ManifestError)
    return table


def _session(
    row: Mapping[str, str], root: Path, where: str, problems: Problems, *, needs_pet: bool
) -> Session:
    for name in ("participant_id", "session_id", "site"):
        if row[name] in MISSING:
            problems.add(f"{where}: {name} is missing")
        elif not NAME.fullmatch(row[name]):
            problems.add(f"{where}: {name} {row[name]!r}, wanted letters, digits, '.', '_' and '-'")
    if row["diagnosis"] not in DIAGNOSES:
        problems.add(f"{where}: diagnosis {row['diagnosis']!r}, wanted one of {', '.join(DIAGNOSES)}")
    given = {name: "" if row.get(name, "") in MISSING else row[name] for name in OPTIONAL}
    if given["split"] not in ("", *SPLITS):
        problems.add(f"{where}: split {given['split']!r}, wanted one of {', '.join(SPLITS)}")
    for name in ("rid", "phase"):
        if given[name] and not NAME.fullmatch(given[name]):
            problems.add(f"{where}: {name} {given[name]!r}, wanted letters, digits, '.', '_' and '-'")
    return Session(
        subject=row["participant_id"],
        session=row["session_id"],
        site=row["site"],
        diagnosis=row["diagnosis"],
        mri=_file(row["mri"], "MRI", root, where, problems, needed=True),
        pet=_file(row["pet"], "PET", root, where, problems, needed=needs_pet),
        clinical={name: _value(name, row.get(name, ""), where, problems) for name in CLINICAL},
        split=given["split"] or None,
        rid=given["rid"],
        phase=given["phase"],
    )


def _file(cell: str, kind: str, root: Path, where: str, problems: Problems, *, needed: bool) -> Path:
    if cell in MISSING:
        if needed:
            problems.add(f"{where}: no {kind}; give its path or leave the session out")
        return Path()
    path = root / cell
    if needed and not path.is_file():
        problems.add(f"{where}: {kind} {path} does not exist; check the path")
    return path


def _value(name: str, cell: str, where: str, problems: Problems) -> float | None:
    if cell in MISSING:
        return None
    low, high = CLINICAL[name]
    if name == "sex" and cell in SEXES:
        return SEXES[cell]
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not low <= value <= high or name == "sex":
        wanted = "F or M" if name == "sex" else f"a number from {low:g} to {high:g}"
        problems.add(f"{where}: {name} {cell!r}, wanted {wanted} or n/a")
        return None
    return value


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
    clinical = {name: "" if value is None else number_cell(value) for name, value in values.items()}
    if values["sex"] is not None:
        clinical["sex"] = "F" if values["sex"] else "M"
    names = (session.subject, session.session, session.site, session.diagnosis, mri, pet)
    optional = (session.split or "", session.rid, session.phase)
    return dict(zip(KNOWN, (*names, *clinical.values(), *optional), strict=True))


def write_splits(path: Path, splits: Mapping[str, str]) -> None:
    """Write subject -> split as a table, atomically."""
    write_table(path, ("participant_id", "split"), [(s, splits[s]) for s in sorted(splits)])


def read_splits(path: Path) -> dict[str, str]:
    """Read subject -> split; a subject with two splits is refused.

    Raises
    ------
    ManifestError
        With a line for every bad row.
    """
    problems = Problems(f"{path}: the splits cannot be used")
    header, rows = read_table(path, problems)
    if header != ["participant_id", "split"]:
        problems.add(f"found columns {header}, wanted participant_id and split")
        problems.raise_if_any(ManifestError)
    splits: dict[str, str] = {}
    for row in rows.values():
        subject, split = row["participant_id"], row["split"]
        if split not in SPLITS:
            problems.add(f"{subject}: split {split!r}, wanted one of {', '.join(SPLITS)}")
        if splits.setdefault(subject, split) != split:
            problems.add(f"{subject}: in two splits, {splits[subject]} and {split}; choose one")
    problems.raise_if_any(ManifestError)
    return splits
