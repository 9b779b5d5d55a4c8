# SPDX-License-Identifier: Apache-2.0
"""Way in 1: a table of paths, with ADNIMERGE's column names or those of our own manifest.

One row a visit. ADNIMERGE has more than a hundred columns; those without a meaning here are ignored.
AGE is the age at baseline: the time since then is added. A JSON beside a PET tells units and frames.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pasta_model.data.manifest import SPLITS, read_rows
from pasta_model.errors import ManifestError, Problems
from pasta_model.prepare.records import RawScan, Visit
from pasta_model.prepare.sidecars import beside, contradiction, read_sidecar
from pasta_model.prepare.vocabulary import (
    bad_date,
    clinical_of,
    day_of,
    diagnosis_of,
    is_missing,
    month_of,
    name_of,
    session_of,
    site_of,
)

# Our name: the columns that may hold it, the first that is there counts. Compared in small letters.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "rid": ("rid", "adni_rid"),
    "subject": ("participant_id", "ptid", "subject", "subject_id"),
    "session": ("session_id", "viscode", "viscode2", "session", "visit"),
    "site": ("site", "siteid"),
    "phase": ("colprot", "phase", "current_study", "origprot", "original_study"),
    "diagnosis": ("diagnosis", "dx", "group"),
    "baseline_diagnosis": ("dx_bl", "diagnosis_bl", "diagnosis_sc"),
    "age": ("age",),
    "baseline_age": ("age_bl",),  # of BIDS by Clinica
    "years": ("years_bl", "years.bl"),
    "month": ("month_bl", "month"),
    "sex": ("sex", "ptgender", "gender"),
    "education": ("education", "pteducat", "education_level", "education_years", "years_of_education"),
    "mmse": ("mmse", "mms"),
    "adas13": ("adas13",),
    "apoe4": ("apoe4",),
    "image": ("imageuid", "image_id"),
    "mri": ("mri", "mri_path", "t1", "t1w", "t1_path"),
    "pet": ("pet", "pet_path", "fdg_path", "fdg_pet", "pet_fdg"),  # ADNIMERGE's FDG is a number
    "day": ("examdate", "acq_time", "examination_date", "date"),
    "mri_day": ("mri_date",),
    "pet_day": ("pet_date",),
    "pet_units": ("pet_units",),
    "split": ("split",),
}
SCREENING = ("sc", "scmri")  # VISCODEs of the weeks before baseline
CLINICAL = ("age", "sex", "education", "mmse", "adas13", "apoe4")


def read_table(path: Path, *, site: str | None = None) -> tuple[Visit, ...]:
    """Read the visits of a table (.csv, .tsv); paths are relative to it.

    Parameters
    ----------
    site
        Name of the hospital, in place of the column.

    Raises
    ------
    ManifestError
        When the table has no subject, no session or no column of MRIs or PETs.
    """
    header, rows = read_rows(path)
    columns = {name: _column(header, aliases) for name, aliases in ALIASES.items()}
    problems = Problems(f"{path}: the table cannot be used")
    wanted = {"subject": ("rid", "subject"), "session": ("session",), "MRI": ("mri",), "PET": ("pet",)}
    for what, names in wanted.items():
        if not any(columns[n] for n in names):
            choice = ", ".join(alias for n in names for alias in ALIASES[n])
            problems.add(f"no column for the {what}; wanted one of {choice}")
    if len(header) == 1:
        problems.add("found one column; wanted commas between columns in a .csv, tabs in a .tsv")
    if not rows:
        problems.add("no row below the header")
    problems.raise_if_any(ManifestError)
    cells = [{n: row.get(c, "") for n, c in columns.items() if c} for row in rows.values()]
    _name_rids(cells)
    confused = _confused(cells)
    merged = columns["baseline_diagnosis"].lower() == "dx_bl" or "viscode" in columns["session"].lower()
    at_baseline = "years" in cells[0] or merged  # ADNIMERGE's AGE; our own manifest's is that of the visit
    return tuple(_visit(path.parent, row, site, confused, at_baseline=at_baseline) for row in cells)


def _column(header: list[str], aliases: tuple[str, ...]) -> str:
    lower = {name.lower(): name for name in header}
    return next((lower[alias] for alias in aliases if alias in lower), "")


def _name_rids(rows: list[dict[str, str]]) -> None:
    """Spell RIDs in one way, and give a row without a PTID that of its RID."""
    for row in rows:
        if number := re.fullmatch(r"0*(\d+)(\.0+)?", row.get("rid", "")):
            row["rid"] = number[1]
    known = {row.get("rid"): row["subject"] for row in rows if not is_missing(row.get("subject"))}
    for row in rows:
        if is_missing(row.get("subject")) and not is_missing(row.get("rid")):
            row["subject"] = known.get(row["rid"], "")


def _confused(rows: list[dict[str, str]]) -> dict[tuple[str, str], str]:
    """Find RIDs of several subjects, subjects of several RIDs, and subjects who would share a name."""
    others, alike = defaultdict(set), defaultdict(set)
    for row in rows:
        rid, subject = row.get("rid", ""), row.get("subject", "")
        if not is_missing(subject):
            alike[_subject(row, [])].add(subject)
        if not is_missing(rid) and not is_missing(subject):
            others["rid", rid].add(subject)
            others["subject", subject].add(rid)
    found = {
        ("subject", cell): f"{', '.join(sorted(cells))} would all be {name}: rename all but one"
        for name, cells in alike.items()
        for cell in cells
        if len(cells) > 1
    }
    for key, names in others.items():
        if len(names) > 1:
            found[key] = f"{key[1]} goes with {', '.join(sorted(names))}: one person, one name, wanted"
    return found


def _visit(
    root: Path,
    row: Mapping[str, str],
    site: str | None,
    confused: Mapping[tuple[str, str], str],
    *,
    at_baseline: bool,
) -> Visit:
    keys = [(kind, row.get(kind, "")) for kind in ("rid", "subject")]
    problems = [confused[key] for key in keys if key in confused]
    session = _session(row, problems)
    months = month_of(session)
    diagnosis, wrong = diagnosis_of(row.get("diagnosis"))
    if not diagnosis and not wrong and months == 0:  # DX_bl tells of the baseline alone
        diagnosis, wrong = diagnosis_of(row.get("baseline_diagnosis"))
    clinical, bad = clinical_of({name: row.get(name) for name in CLINICAL})
    if clinical["age"] is not None and at_baseline:
        years = _years(row, months)
        clinical["age"] = None if years is None else clinical["age"] + years
    for name, what in (("day", "visit"), ("mri_day", "MRI"), ("pet_day", "PET")):
        problems += bad_date(row.get(name), f"date of the {what}")
    day = day_of(row.get("day"))
    scans = {kind: _scan(root, row, kind, problems) for kind in ("mri", "pet")}
    scans = {
        kind: scan and replace(scan, session=session, day=day if scan.day is None else scan.day)
        for kind, scan in scans.items()
    }
    split = row.get("split") or None
    if split not in (None, "n/a", *SPLITS):
        problems.append(f"split {split!r}, wanted one of {', '.join(SPLITS)}")
    place = site or site_of(row.get("site"))
    if not place:
        problems.append("no site; fill its column, or name the hospital with --site")
    return Visit(
        _subject(row, problems), session, place, diagnosis, scans["mri"], scans["pet"],
        "" if is_missing(row.get("phase")) else row["phase"].strip(), clinical,
        split if split in SPLITS else None,
        (*problems, *([wrong] if wrong else []), *bad),
        "" if is_missing(row.get("rid")) else row["rid"],
    )  # fmt: skip


def _subject(row: Mapping[str, str], problems: list[str]) -> str:
    """Name a subject as Clinica does: PTID 011_S_0002 is sub-ADNI011S0002; RID 2 alone is sub-ADNI0002."""
    cell, rid = row.get("subject", ""), row.get("rid", "")
    if not is_missing(cell):
        adni = "_S_" in cell and not cell.startswith("sub-")
        name = name_of(cell, prefix="sub-ADNI" if adni else "sub-")
        if name == "sub-":
            problems.append(f"subject {cell!r}, wanted letters a to z or digits")
        return name
    if rid.removesuffix(".0").isdigit():
        return f"sub-ADNI{int(float(rid)):04d}"
    problems.append(f"no subject: found RID {rid!r}, wanted a number, or a PTID")
    return "sub-unknown"


def _session(row: Mapping[str, str], problems: list[str]) -> str:
    cell = row.get("session", "")
    if is_missing(cell):
        problems.append("no session, wanted a VISCODE such as bl or m06")
        return "ses-unknown"
    if cell.lower() == "f":
        problems.append("VISCODE f is a failed screening, which is no visit of the study; remove the row")
    session = name_of(cell, prefix="ses-") if cell.startswith("ses-") else session_of(cell)
    if session == "ses-":
        problems.append(f"session {cell!r}, wanted letters or digits")
    return session


def _years(row: Mapping[str, str], months: float | None) -> float | None:
    """Return the years since baseline: as the row says, else by the visit's code; None where neither does."""
    for name, a_year in (("years", 1.0), ("month", 12.0)):
        cell = row.get(name, "")
        if not is_missing(cell) and re.fullmatch(r"-?\d*\.?\d+", cell):
            return float(cell) / a_year
    if row.get("session", "").lower() in SCREENING:
        return 0.0
    return None if months is None else months / 12.0


def _scan(root: Path, row: Mapping[str, str], kind: str, problems: list[str]) -> RawScan | None:
    cell = row.get(kind, "").strip()
    if is_missing(cell):
        return None
    path = root / cell
    if not path.is_file():
        found = "is no file" if path.exists() else "does not exist"
        problems.append(f"{kind.upper()} {path} {found}; check the path")
    day = day_of(row.get(f"{kind}_day"))
    about = read_sidecar(beside(path))
    if kind == "mri":
        image = row.get("image", "")
        label = cell if is_missing(image) else f"{cell} (image {image})"
        return RawScan(path, "", day, label, manufacturer=about.manufacturer)
    problems += [*about.problems, *contradiction(path, about)]
    units = about.units if is_missing(row.get("pet_units", "")) else row["pet_units"]
    return RawScan(path, "", day, cell, "", units, about.frame_seconds, about.manufacturer)
