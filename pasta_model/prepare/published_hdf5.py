# SPDX-License-Identifier: Apache-2.0
"""Way in 3: HDF5 files in the layout of the published PASTA code.

/<id>/MRI/T1/data and /<id>/PET/FDG/data (113, 137, 113), /<id>/tabular with raw clinical values that
/stats/tabular/columns names, attributes DX, RID and VISCODE. `MRI/T1` may be the dataset itself.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from pasta_model.errors import ManifestError, VolumeError
from pasta_model.prepare.records import RawScan, Visit
from pasta_model.prepare.vocabulary import clinical_of, diagnosis_of, session_of, site_of

_COLUMNS = ("age", "sex", "education", "mmse", "adas13", "apoe4")  # as published, where no names are given
_NAMES = {"ptgender": "sex", "gender": "sex", "pteducat": "education", "adascog13": "adas13"}
_SPLIT = re.compile(r"(?:^|[^A-Za-z])(train|valid|test)\.\w+$")


def read_published(paths: Sequence[Path], *, site: str | None = None) -> tuple[Visit, ...]:
    """Read the visits of one or more files; a name that ends with train, valid or test gives the split.

    Raises
    ------
    ManifestError
        When a file is no HDF5, or holds no visit.
    """
    sexes = _sexes(paths)
    visits = []
    for path in paths:
        with _opened(path) as file:
            columns = _column_names(file)
            groups = _groups(file)
            if not groups:
                raise ManifestError(f"{path}: no visit; wanted groups with MRI/T1, PET/FDG and tabular")
            visits += [_visit(path, n, g, columns=columns, sexes=sexes, site=site) for n, g in groups]
    return tuple(visits)


def read_array(path: Path, inside: str) -> NDArray[np.float32]:
    """Read a volume of a file, (x, y, z) float32.

    Raises
    ------
    VolumeError
        When it cannot be read.
    """
    try:
        with h5py.File(path, "r") as file:
            return np.asarray(file[inside][()], dtype=np.float32)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise VolumeError(f"{path}: {inside} cannot be read ({error}); copy the file again") from error


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, ValueError, KeyError) as error:  # h5py's words for damage
        raise ManifestError(f"{path}: not a readable HDF5 file ({error}); copy it again") from error


def _groups(file: h5py.File) -> list[tuple[str, h5py.Group]]:
    return [(n, g) for n, g in file.items() if n != "stats" and isinstance(g, h5py.Group)]


def _sexes(paths: Sequence[Path]) -> Mapping[float, str]:
    """Tell what the numbers mean: 0 male, 1 female; or ADNI's 1 male, 2 female where any file holds a 2."""
    for path in paths:
        with _opened(path) as file:
            columns = _column_names(file)
            rows = [_numbers(group, columns) for _, group in _groups(file)] if "sex" in columns else []
            if any(row is not None and row[columns.index("sex")] == 2 for row in rows):
                return {1.0: "M", 2.0: "F"}
    return {0.0: "M", 1.0: "F"}


def _numbers(group: h5py.Group, columns: Sequence[str]) -> NDArray[np.float64] | None:
    """Return a visit's clinical values, one a column; None where they are not that."""
    found = group.get("tabular")
    found = found.get("data") if isinstance(found, h5py.Group) else found
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "iuf" or found.size != len(columns):
        return None
    return np.ravel(found[()]).astype(np.float64)


def _column_names(file: h5py.File) -> list[str]:
    found = file.get("stats/tabular/columns")
    if found is None:
        return list(_COLUMNS)
    names = [re.sub(r"[^a-z0-9]", "", _text(name).lower()) for name in np.ravel(found[()])]
    return [_NAMES.get(name, name) for name in names]


def _text(value: object) -> str:
    if isinstance(value, h5py.Empty):
        return ""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _visit(
    path: Path,
    name: str,
    group: h5py.Group,
    *,
    columns: Sequence[str],
    sexes: Mapping[float, str],
    site: str | None,
) -> Visit:
    problems = []
    about = {key.upper(): _text(value) for key, value in group.attrs.items()}
    diagnosis, wrong = diagnosis_of(about.get("DX"))
    rid = about.get("RID", "")
    session = session_of(about.get("VISCODE") or "bl")
    subject = f"sub-ADNI{int(float(rid)):04d}" if re.fullmatch(r"\d+(\.0)?", rid) else f"sub-{rid or name}"
    if not rid:
        problems.append("no attribute RID: without it, visits of one person would be several people")
    numbers = _numbers(group, columns)
    if numbers is None and "tabular" in group:
        problems.append(
            f"tabular does not hold {len(columns)} numbers, one for each of stats/tabular/columns"
        )
    cells = {} if numbers is None else dict(zip(columns, numbers.tolist(), strict=True))
    values, bad = clinical_of({c: _cell(c, v, sexes) for c, v in cells.items() if c in _COLUMNS})
    problems += [p for p in (wrong, *bad) if p]
    scans = {}
    for kind, place in (("mri", "MRI/T1"), ("pet", "PET/FDG")):
        inside = _dataset(group, place)
        scans[kind] = (
            RawScan(path, session, label=f"{path.name}:{name}/{place}", inside=inside) if inside else None
        )
    place_name = site or site_of(about.get("SITE"))
    if not place_name:
        problems.append("no attribute SITE; name the hospital with --site")
    split = _SPLIT.search(path.name)
    rid = rid.removesuffix(".0")
    return Visit(
        re.sub(r"[^\w.-]", "", subject), session, place_name, diagnosis,
        scans["mri"], scans["pet"], about.get("PHASE", ""), values, split[1] if split else None,
        tuple(problems), rid,
    )  # fmt: skip


def _cell(column: str, value: float, sexes: Mapping[float, str]) -> str | None:
    if not np.isfinite(value):
        return None
    return sexes.get(value, f"{value:g}") if column == "sex" else f"{value:g}"


def _dataset(group: h5py.Group, place: str) -> str:
    """Return the full name of a volume: the dataset `data` in a group, or the dataset itself."""
    found = group.get(f"{place}/data") if isinstance(group.get(place), h5py.Group) else group.get(place)
    return str(found.name) if isinstance(found, h5py.Dataset) else ""
