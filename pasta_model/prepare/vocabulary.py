# SPDX-License-Identifier: Apache-2.0
"""How hospitals and ADNI spell things, and what we call them."""

import difflib
import math
import re
from collections.abc import Mapping
from datetime import datetime

from pasta_model.data.manifest import CLINICAL, MISSING

_SPELLINGS = {
    "CN": "cn|nl|nc|hc|cu|smc|normal|control|healthy|healthy control|cognitively normal|"
    "cognitively unimpaired",
    "MCI": "mci|emci|lmci|amci|mild cognitive impairment",
    "Dementia": "dementia|ad|dat|probable ad|alzheimer|alzheimers|alzheimer's disease|alzheimers disease|"
    "alzheimer disease",
}
_DIAGNOSES = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings.split("|")}
_SEXES = {"m": 0.0, "male": 0.0, "f": 1.0, "female": 1.0}
_MISSING = (*MISSING, "na", "nan", "none", "null", "-4", "-4.0", "unknown", ".")  # -4 is ADNI's
DAYS_OF_MONTH = 30.4375
_DATES = ("%Y-%m-%d", "%m/%d/%Y", "%d.%m.%Y", "%Y%m%d")


def is_missing(cell: str | None) -> bool:
    """Tell a cell without a value."""
    return cell is None or cell.strip().lower() in _MISSING


def diagnosis_of(cell: str | None) -> tuple[str, str]:
    """Return our name of a diagnosis and, where there is none, what is wrong.

    Of ADNI's transitions ("MCI to Dementia") the later state counts.
    """
    if cell is None or is_missing(cell):
        return "", ""
    last = re.split(r"\s+to\s+", cell.strip().lower())[-1]
    if last in _DIAGNOSES:
        return _DIAGNOSES[last], ""
    close = difflib.get_close_matches(last, _DIAGNOSES, n=1, cutoff=0.6)
    hint = f"; did you mean {_DIAGNOSES[close[0]]}?" if close else ""
    return "", f"diagnosis {cell!r}, wanted CN, MCI or Dementia{hint}"


def clinical_of(cells: Mapping[str, str | None]) -> tuple[dict[str, float | None], list[str]]:
    """Return clinical values by our column names, and a line for each that is impossible."""
    values: dict[str, float | None] = dict.fromkeys(CLINICAL)
    problems = []
    for name, cell in cells.items():
        if cell is None or is_missing(cell):
            continue
        low, high = CLINICAL[name]
        value = _SEXES.get(cell.strip().lower(), math.nan) if name == "sex" else _number(cell)
        if low <= value <= high:
            values[name] = value
        else:
            wanted = "F or M" if name == "sex" else f"a number from {low:g} to {high:g}"
            problems.append(f"{name} {cell!r}, wanted {wanted}, or nothing")
    return values, problems


def _number(cell: str) -> float:
    try:
        return float(cell.strip().removeprefix(">").removeprefix("<"))
    except ValueError:
        return math.nan


def name_of(cell: str, *, prefix: str = "") -> str:
    """Make a cell fit for a folder's name: letters and digits only, after a prefix."""
    plain = re.sub(r"[^A-Za-z0-9]", "", cell.removeprefix(prefix))
    return prefix + plain


def site_of(cell: str | None) -> str:
    """Return a site's name; ADNI's sites are numbers: "11" is "site-11"."""
    if cell is None or is_missing(cell):
        return ""
    plain = re.sub(r"[^\w.-]+", "-", cell.strip()).strip("-.")
    return f"site-{int(float(plain))}" if re.fullmatch(r"\d+(\.0)?", plain) else plain


def day_of(cell: str | None) -> float | None:
    """Return a date as a day number; a time after it is left out; None where there is no date."""
    if cell is None or is_missing(cell):
        return None
    text = cell.strip().split("T")[0].split(" ")[0]
    for form in _DATES:
        try:
            return float(datetime.strptime(text, form).date().toordinal())  # noqa: DTZ007 - a day, no clock
        except ValueError:
            continue
    return None


def bad_date(cell: str | None, what: str) -> list[str]:
    """Name a date that cannot be read: to leave it out in silence would pair scans by chance."""
    if is_missing(cell) or day_of(cell) is not None:
        return []
    return [f"{what} {cell!r}, wanted a date such as 2010-03-18, or nothing"]


def month_of(session: str) -> float | None:
    """Return the months after baseline that a visit's name says: bl, m06, ses-M006."""
    text = session.lower().removeprefix("ses-")
    if text in ("bl", "baseline"):
        return 0.0
    found = re.fullmatch(r"m(\d+)", text)
    return float(found[1]) if found else None


def session_of(viscode: str) -> str:
    """Return a visit's session: ADNI's "bl" is "ses-M000", "m06" is "ses-M006"."""
    months = month_of(viscode)
    return f"ses-M{months:03.0f}" if months is not None else name_of(viscode, prefix="ses-")
