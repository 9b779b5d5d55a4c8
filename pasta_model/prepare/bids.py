# SPDX-License-Identifier: Apache-2.0
"""Way in 2: a BIDS dataset, read plainly: entities in file names, sidecars, the three kinds of tables.

A session is matched by real dates where `scans.tsv` or `sessions.tsv` give them for all of a subject's
scans, else by the months in the sessions' names. FDG is `trc-18FFDG` or `trc-FDG`; no other tracer is
taken for it. Columns may have the names that Clinica's converters give them.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pasta_model.data.manifest import read_rows
from pasta_model.errors import ManifestError
from pasta_model.prepare.adni import ALIASES, CLINICAL
from pasta_model.prepare.records import RawScan, Visit
from pasta_model.prepare.sidecars import Sidecar, contradiction, entities, inherited, is_fdg, read_sidecar
from pasta_model.prepare.vocabulary import (
    DAYS_OF_MONTH,
    bad_date,
    clinical_of,
    day_of,
    diagnosis_of,
    is_missing,
    month_of,
    site_of,
)

_NIFTI = re.compile(r"(?P<stem>sub-.+)_(?P<suffix>T1w|pet)\.nii(\.gz)?$")
_ONLY = "ses-M000"  # what the one visit of a subject without session folders is called
_CHANGING = ("mmse", "adas13")  # in participants.tsv they tell of the first session alone
Row = Mapping[str, str]


@dataclass(frozen=True)
class _Subject:
    """A subject's folder and what the tables say: of the person, and of each session."""

    folder: Path
    first: str
    person: Row
    sessions: Mapping[str, Row]
    problems: tuple[str, ...]


def read_bids(root: Path, *, site: str | None = None) -> tuple[Visit, ...]:
    """Read the visits of a BIDS dataset, with or without session folders.

    Parameters
    ----------
    site
        Name of the hospital, in place of a column `site` of participants.tsv.

    Raises
    ------
    ManifestError
        When the folder holds no subject, or participants.tsv cannot be read.
    """
    subjects = sorted(p for p in root.glob("sub-*") if p.is_dir())
    if not subjects:
        raise ManifestError(f"{root}: no folder sub-*; wanted a BIDS dataset, a table or HDF5 files")
    people, twice = _people(root / "participants.tsv")
    visits = []
    for folder in subjects:
        problems = [] if folder.name in people else [f"{folder.name} is not in participants.tsv; add the row"]
        if folder.name in twice:
            problems.append(f"{folder.name} has several rows in participants.tsv, wanted one")
        table = _table(folder / f"{folder.name}_sessions.tsv", "session_id", problems)
        places = {p.name: p for p in sorted(folder.glob("ses-*")) if p.is_dir()} or {_ONLY: folder}
        first = min(places, key=lambda s: (month_of(s) is None, month_of(s) or 0.0, s))
        subject = _Subject(folder, first, people.get(folder.name, {}), table, tuple(problems))
        visits += _comparable([_visit(root, subject, s, p, site) for s, p in places.items()])
    return tuple(visits)


def _people(path: Path) -> tuple[dict[str, Row], set[str]]:
    """Read participants.tsv: its rows by subject, and the subjects that have several."""
    if not path.is_file():
        return {}, set()
    header, rows = read_rows(path)
    if "participant_id" not in [name.lower() for name in header]:
        raise ManifestError(
            f"{path}: no column participant_id, found {', '.join(header)}; wanted tabs between the columns"
        )
    return _keyed(rows, "participant_id")


def _table(path: Path, key: str, problems: list[str]) -> dict[str, Row]:
    """Read a subject's table by its key; a missing one is empty, a bad one is the subject's problem."""
    if not path.is_file():
        return {}
    try:
        _, rows = read_rows(path)
    except ManifestError as error:
        problems.append(" ".join(str(error).split()))
        return {}
    found, twice = _keyed(rows, key)
    problems += [f"{path.name}: {name} has several rows, wanted one" for name in sorted(twice)]
    return found


def _keyed(rows: Mapping[int, Mapping[str, str]], key: str) -> tuple[dict[str, Row], set[str]]:
    """Return rows by a column, and what turns up there more than once. Column names in small letters."""
    lower = [{name.lower(): cell for name, cell in row.items()} for row in rows.values()]
    counts = Counter(row.get(key, "") for row in lower)
    return {row.get(key, ""): row for row in lower}, {name for name, count in counts.items() if count > 1}


def _visit(root: Path, subject: _Subject, session: str, folder: Path, site: str | None) -> Visit:
    about = subject.sessions.get(session, {})
    problems, notes = list(subject.problems), list[str]()
    diagnosis, wrong = diagnosis_of(_told(subject, session, "diagnosis"))
    if not diagnosis and not wrong and session == subject.first:
        diagnosis, wrong = diagnosis_of(_told(subject, session, "baseline_diagnosis"))
    cells = {name: _told(subject, session, name) for name in CLINICAL}
    cells["age"] = cells["age"] or _cell(subject.person, "baseline_age")
    clinical, bad = clinical_of(cells)
    if clinical["age"] is not None and _cell(about, "age") is None:  # the person's, at the first session
        clinical["age"] += _years(subject.first, session)
    days: dict[str, Row] = {}
    for table in sorted(folder.glob("*_scans.tsv")):
        days |= {Path(name).name: row for name, row in _table(table, "filename", problems).items()}
    scans = {}
    for kind, place, suffix in (("mri", "anat", "T1w"), ("pet", "pet", "pet")):
        scan = _choose(root, folder / place, suffix, problems, notes)
        if scan:
            date = _cell(days.get(scan.path.name, {}), "day") or _cell(about, "day")
            problems += bad_date(date, f"date of {scan.path.name}")
            scan = replace(scan, session=session, day=day_of(date))
        scans[kind] = scan
    place_name = site or site_of(_told(subject, session, "site"))
    if not place_name:
        problems.append("no site; add the column to participants.tsv, or name it with --site")
    return Visit(
        subject.folder.name, session, place_name, diagnosis, scans["mri"], scans["pet"],
        _told(subject, session, "phase") or "", clinical, None,
        (*problems, *([wrong] if wrong else []), *bad),
        (_told(subject, session, "rid") or "").removesuffix(".0"), tuple(notes),
    )  # fmt: skip


def _told(subject: _Subject, session: str, name: str) -> str | None:
    """Return what the session's own row says, else what the person's says where it still holds."""
    own = _cell(subject.sessions.get(session, {}), name)
    if own is not None or (name in _CHANGING and session != subject.first):
        return own
    return _cell(subject.person, name)


def _cell(row: Row, name: str) -> str | None:
    """Return the first value among the columns that may hold it."""
    cells = (row[alias] for alias in ALIASES[name] if alias in row)
    return next((cell.strip() for cell in cells if not is_missing(cell)), None)


def _years(first: str, session: str) -> float:
    months = month_of(first), month_of(session)
    return 0.0 if months[0] is None or months[1] is None else (months[1] - months[0]) / 12.0


def _choose(root: Path, folder: Path, suffix: str, problems: list[str], notes: list[str]) -> RawScan | None:
    """Choose one scan of a session: raw before processed, then the shortest name, then the first.

    A synthetic PET is nobody's measurement and never taken.
    """
    found = []
    for path in sorted(folder.glob("*.nii*")):
        name, words = _NIFTI.match(path.name), entities(path.name)
        if not name or name["suffix"] != suffix or words.get("desc") == "synthetic":
            continue
        if words.get("part", "mag") != "mag":  # a phase image is no T1 MRI
            continue
        sidecar = read_sidecar(inherited(root, path))
        if suffix == "T1w":  # all else that it says, the NIfTI says too
            sidecar = Sidecar(manufacturer=sidecar.manufacturer)
        tracer = words.get("trc", sidecar.tracer)
        if suffix == "T1w" or is_fdg(tracer):
            found.append((path, sidecar))
        else:
            notes.append(_other_tracer(path, tracer))
    if not found:
        return None
    path, sidecar = min(found, key=lambda f: (_processed(f[0].name), len(entities(f[0].name)), f[0].name))
    problems += sidecar.problems
    problems += contradiction(path, sidecar)
    label = str(path.relative_to(root)) + (f" (of {len(found)})" if len(found) > 1 else "")
    return RawScan(
        path, "", None, label,
        units=sidecar.units, frame_seconds=sidecar.frame_seconds, manufacturer=sidecar.manufacturer,
    )  # fmt: skip


def _other_tracer(path: Path, tracer: str) -> str:
    if tracer:
        return f"{path.name} is a PET of {tracer}, wanted FDG"
    return f"{path.name} does not say its tracer; name it trc-18FFDG if it is FDG"


def _processed(name: str) -> bool:
    return bool({"space", "desc"} & set(entities(name)))


def _comparable(visits: list[Visit]) -> list[Visit]:
    """Give a subject's scans days that can be compared: dates of all, else the months of their sessions."""
    scans = [s for v in visits for s in (v.mri, v.pet) if s]
    if scans and all(s.day is not None for s in scans):
        return visits
    return [replace(v, mri=_by_month(v.mri), pet=_by_month(v.pet)) for v in visits]


def _by_month(scan: RawScan | None) -> RawScan | None:
    if scan is None:
        return None
    months = month_of(scan.session)
    return replace(scan, day=None if months is None else months * DAYS_OF_MONTH)
