# SPDX-License-Identifier: Apache-2.0
"""Way in 2: a BIDS dataset, read plainly: entities in file names, sidecars, the three kinds of tables.

A session is matched by real dates where `scans.tsv` or `sessions.tsv` give them for all of a subject's
scans, else by the months in the sessions' names. FDG is `trc-18FFDG` or `trc-FDG`; no other tracer is
taken for it.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pasta_model.data.manifest import read_rows
from pasta_model.errors import ManifestError
from pasta_model.prepare.adni import ALIASES, CLINICAL
from pasta_model.prepare.records import RawScan, Visit
from pasta_model.prepare.vocabulary import (
    DAYS_OF_MONTH,
    clinical_of,
    day_of,
    diagnosis_of,
    is_missing,
    month_of,
    site_of,
)

TRACERS = ("18ffdg", "fdg", "18f-fdg")
_NIFTI = re.compile(r"(?P<stem>sub-.+)_(?P<suffix>T1w|pet)\.nii(\.gz)?$")
Row = Mapping[str, str]


def read_bids(root: Path, *, site: str | None = None) -> tuple[Visit, ...]:
    """Read the visits of a BIDS dataset, with or without session folders.

    Parameters
    ----------
    site
        Name of the hospital, in place of a column `site` of participants.tsv.

    Raises
    ------
    ManifestError
        When the folder holds no subject.
    """
    subjects = sorted(p for p in root.glob("sub-*") if p.is_dir())
    if not subjects:
        raise ManifestError(f"{root}: no folder sub-*; wanted a BIDS dataset, a table or HDF5 files")
    people = _table(root / "participants.tsv", "participant_id")
    visits = []
    for folder in subjects:
        person = people.get(folder.name)
        missing = () if person else (f"{folder.name} is not in participants.tsv; add the row",)
        sessions = [
            _visit(root, folder, s, person=person or {}, site=site, problems=missing)
            for s in _sessions(folder)
        ]
        visits += _comparable(sessions)
    return tuple(visits)


def entities(name: str) -> dict[str, str]:
    """Return the entities of a BIDS file name: sub-01_ses-M00_T1w.nii is sub 01 and ses M00."""
    return dict(part.split("-", 1) for part in name.split("_") if "-" in part)


def _sessions(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.glob("ses-*") if p.is_dir())
    return found or [folder]


def _table(path: Path, key: str) -> dict[str, dict[str, str]]:
    """Read a table of the dataset by its key; a missing one is empty. Column names in small letters."""
    if not path.is_file():
        return {}
    _, rows = read_rows(path)
    lower = [{name.lower(): cell for name, cell in row.items()} for row in rows.values()]
    return {row.get(key, ""): row for row in lower}


def _visit(
    root: Path, subject: Path, folder: Path, *, person: Row, site: str | None, problems: tuple[str, ...]
) -> Visit:
    session = folder.name if folder != subject else "ses-M000"
    about = _table(subject / f"{subject.name}_sessions.tsv", "session_id").get(session, {})
    row = {**person, **{k: v for k, v in about.items() if not is_missing(v)}}
    diagnosis, wrong = diagnosis_of(_cell(row, "diagnosis"))
    clinical, bad = clinical_of({name: _cell(row, name) for name in CLINICAL})
    days = {Path(k).name: v for p in folder.glob("*_scans.tsv") for k, v in _table(p, "filename").items()}
    scans = {}
    for kind, place, suffix in (("mri", "anat", "T1w"), ("pet", "pet", "pet")):
        chosen = _choose(root, folder / place, suffix)
        own = days.get(chosen.path.name, {}) if chosen else {}
        day = day_of(own.get("acq_time")) if own else None
        fallback = day_of(about.get("acq_time"))
        scans[kind] = (
            replace(chosen, session=session, day=fallback if day is None else day) if chosen else None
        )
    place_name = site or site_of(_cell(row, "site"))
    lacks = () if place_name else ("no site; add the column to participants.tsv, or name it with --site",)
    return Visit(
        subject.name, session, place_name, diagnosis, scans["mri"], scans["pet"], _word(row, "phase"),
        clinical, None, (*problems, *lacks, *([wrong] if wrong else []), *bad),
        _word(row, "rid").removesuffix(".0"),
    )  # fmt: skip


def _cell(row: Row, name: str) -> str | None:
    return next((row[alias] for alias in ALIASES[name] if alias in row), None)


def _word(row: Row, name: str) -> str:
    cell = _cell(row, name)
    return "" if cell is None or is_missing(cell) else cell.strip()


def _choose(root: Path, folder: Path, suffix: str) -> RawScan | None:
    """Choose one scan of a session: raw before processed, then the shortest name, then the first.

    A synthetic PET is nobody's measurement and never taken.
    """
    found = []
    for path in sorted(folder.glob("*.nii*")):
        name = _NIFTI.match(path.name)
        if name and name["suffix"] == suffix and entities(path.name).get("desc") != "synthetic":
            sidecar = _sidecar(root, path) if suffix == "pet" else {}
            if suffix == "T1w" or _is_fdg(entities(path.name), sidecar):
                found.append((path, sidecar))
    if not found:
        return None
    path, sidecar = min(found, key=lambda f: (_processed(f[0].name), len(entities(f[0].name)), f[0].name))
    label = str(path.relative_to(root)) + (f" (of {len(found)})" if len(found) > 1 else "")
    frames = sidecar.get("FrameDuration", ())
    seconds = tuple(_seconds(s) for s in frames) if isinstance(frames, list) else ()
    return RawScan(path, "", None, label, units=str(sidecar.get("Units", "")), frame_seconds=seconds)


def _seconds(length: object) -> float:
    """Return a frame's length; NaN, which no PET is read with, of what is no number."""
    return float(length) if isinstance(length, int | float) else math.nan


def _processed(name: str) -> bool:
    return bool({"space", "desc"} & set(entities(name)))


def _is_fdg(names: Mapping[str, str], sidecar: Mapping[str, Any]) -> bool:
    tracer = names.get("trc") or str(sidecar.get("TracerName", ""))
    return tracer.lower() in TRACERS


def _sidecar(root: Path, scan: Path) -> dict[str, Any]:
    """Collect a scan's metadata by BIDS's inheritance: the nearer file overrides the farther one."""
    merged: dict[str, Any] = {}
    for path in _inherited(root, scan):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        merged.update(found if isinstance(found, dict) else {})
    return merged


def _inherited(root: Path, scan: Path) -> Iterator[Path]:
    """Yield the sidecars that apply, farthest first: their entities are among the scan's own."""
    own = entities(scan.name).items()
    folders = [root, *(root / p for p in reversed(scan.parent.relative_to(root).parents) if p != Path())]
    for folder in dict.fromkeys([*folders, scan.parent]):
        fitting = [p for p in folder.glob("*pet.json") if entities(p.name).items() <= own]
        yield from sorted(fitting, key=lambda p: len(entities(p.name)))


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
