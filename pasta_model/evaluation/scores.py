# SPDX-License-Identifier: Apache-2.0
"""Scores of synthetic PETs: one row a subject and method, their table on disk, means by site."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.grid import Grid
from pasta_model.data.volume import Volume
from pasta_model.errors import ManifestError, Problems, VolumeError
from pasta_model.files import atomic_path
from pasta_model.metrics import regions, similarity

ALL_SITES = "all sites"
"""Row over every subject: a large site counts more."""
MEAN_OF_SITES = "mean over sites"
"""Row over the sites' means: every site counts the same."""


@dataclass(frozen=True)
class Metric:
    """A column of the tables: field name, heading, unit, direction and digits shown."""

    name: str
    label: str
    unit: str
    higher_is_better: bool
    digits: int

    @property
    def heading(self) -> str:
        """Label with unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def of(self, row: "SubjectScore | SiteRow") -> float:
        """Value of this metric in a row."""
        return float(getattr(row, self.name))

    def text(self, value: float) -> str:
        """Value as it is shown in a table."""
        return f"{value:.{self.digits}f}"


METRICS = (
    Metric("mae", "MAE", "SUVR", higher_is_better=False, digits=4),
    Metric("psnr", "PSNR", "dB", higher_is_better=True, digits=2),
    Metric("ssim", "SSIM", "", higher_is_better=True, digits=4),
    Metric("metaroi_error", "MetaROI error", "SUVR", higher_is_better=False, digits=4),
)


@dataclass(frozen=True)
class SubjectScore:
    """What one method reached on one session; MAE and MetaROI in SUVR, PSNR in dB."""

    subject: str
    session: str
    site: str
    diagnosis: str
    method: str
    mae: float
    psnr: float
    ssim: float
    metaroi_error: float
    metaroi_real: float
    metaroi_synthetic: float


@dataclass(frozen=True)
class SiteRow:
    """Means of one method at one site; `metaroi_bias` is synthetic minus real, in SUVR."""

    site: str
    method: str
    subjects: int
    mae: float
    psnr: float
    ssim: float
    metaroi_error: float
    metaroi_bias: float


def score(
    real: Volume,
    synthetic: Volume,
    *,
    mask: NDArray[np.bool_],
    subject: str,
    session: str,
    site: str,
    diagnosis: str,
    method: str,
    data_range: float = similarity.SUVR_RANGE,
) -> SubjectScore:
    """Compare a synthetic PET with the real one.

    Parameters
    ----------
    real, synthetic
        PETs in SUVR on one grid in MNI space.
    mask
        (x, y, z), True in the brain.
    method
        Who made the synthetic PET: "federated", "mean PET", "alone", ...
    data_range
        Of PSNR and SSIM, in SUVR.

    Raises
    ------
    VolumeError
        When the volumes are not in SUVR, not on one grid, or not finite.
    """
    grid = _common_grid(real, synthetic)
    wanted, found = (
        regions.composite(regions.metaroi_suvr(volume.data, grid=grid)) for volume in (real, synthetic)
    )
    pair = (real.data, synthetic.data)
    return SubjectScore(
        subject=subject,
        session=session,
        site=site,
        diagnosis=diagnosis,
        method=method,
        mae=similarity.mae(*pair, mask=mask),
        psnr=similarity.psnr(*pair, mask=mask, data_range=data_range),
        ssim=similarity.ssim(*pair, mask=mask, data_range=data_range),
        metaroi_error=abs(found - wanted),
        metaroi_real=wanted,
        metaroi_synthetic=found,
    )


def summarise(scores: Sequence[SubjectScore]) -> list[SiteRow]:
    """Mean by site and method, then over all subjects, then over the sites.

    Sites come in alphabetical order, methods in the order of their first score. A subject with
    several sessions counts once in `subjects` and once a session in the means.
    """
    methods = list(dict.fromkeys(s.method for s in scores))
    sites = sorted({s.site for s in scores})
    cells = {
        (site, method): [s for s in scores if s.site == site and s.method == method]
        for site in sites
        for method in methods
    }
    by_site = [_mean_row(site, method, group) for (site, method), group in cells.items() if group]
    pooled = [_mean_row(ALL_SITES, m, [s for s in scores if s.method == m]) for m in methods]
    between = [_mean_of_sites(m, [row for row in by_site if row.method == m]) for m in methods]
    return [*by_site, *pooled, *between]


def best(rows: Iterable[SiteRow], metric: Metric) -> str:
    """Best value of a metric among rows, as text, so that values shown as equal are equally good."""
    values = [metric.of(row) for row in rows]
    return metric.text(max(values) if metric.higher_is_better else min(values))


def write_scores(path: Path, scores: Sequence[SubjectScore]) -> None:
    """Write one row a score as tab-separated text, atomically; floats keep every digit."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in scores)


def read_scores(path: Path) -> list[SubjectScore]:
    """Read what `write_scores` wrote.

    Raises
    ------
    ManifestError
        When the file is missing, has other columns, or has rows that are not numbers where
        numbers belong; all bad rows at once.
    """
    if not path.is_file():
        raise ManifestError(f"{path}: no such file; evaluate first")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        if tuple(reader.fieldnames or ()) != _COLUMNS:
            raise ManifestError(f"{path}: found columns {reader.fieldnames}, wanted {list(_COLUMNS)}")
        records = list(reader)
    problems = Problems(str(path))
    scores: list[SubjectScore] = []
    for line, record in enumerate(records, start=2):
        try:
            scores.append(_parse(record))
        except ValueError as error:
            problems.add(f"row {line}: {error}")
    problems.raise_if_any(ManifestError)
    return scores


_COLUMNS = tuple(field.name for field in fields(SubjectScore))


def _parse(record: dict[str, str]) -> SubjectScore:
    if len(record) != len(_COLUMNS) or None in record.values():
        raise ValueError(f"wanted {len(_COLUMNS)} columns")
    return SubjectScore(
        subject=record["subject"],
        session=record["session"],
        site=record["site"],
        diagnosis=record["diagnosis"],
        method=record["method"],
        mae=float(record["mae"]),
        psnr=float(record["psnr"]),
        ssim=float(record["ssim"]),
        metaroi_error=float(record["metaroi_error"]),
        metaroi_real=float(record["metaroi_real"]),
        metaroi_synthetic=float(record["metaroi_synthetic"]),
    )


def _mean_row(site: str, method: str, group: Sequence[SubjectScore]) -> SiteRow:
    means = {metric.name: float(np.mean([metric.of(s) for s in group])) for metric in METRICS}
    bias = float(np.mean([s.metaroi_synthetic - s.metaroi_real for s in group]))
    subjects = len({(s.site, s.subject) for s in group})
    return SiteRow(site=site, method=method, subjects=subjects, metaroi_bias=bias, **means)


def _mean_of_sites(method: str, rows: Sequence[SiteRow]) -> SiteRow:
    means = {metric.name: float(np.mean([metric.of(row) for row in rows])) for metric in METRICS}
    bias = float(np.mean([row.metaroi_bias for row in rows]))
    subjects = sum(row.subjects for row in rows)
    return SiteRow(site=MEAN_OF_SITES, method=method, subjects=subjects, metaroi_bias=bias, **means)


def _common_grid(real: Volume, synthetic: Volume) -> Grid:
    for name, volume in (("real", real), ("synthetic", synthetic)):
        if volume.unit != "SUVR":
            raise VolumeError(f"the {name} PET is in unit '{volume.unit}', wanted SUVR")
    same = np.allclose(real.affine, synthetic.affine, rtol=0, atol=1e-2)
    if real.data.shape != synthetic.data.shape or not same:
        raise VolumeError(
            f"real and synthetic PET lie on different grids: {real.data.shape} voxels from"
            f" {_origin(real)} mm and {synthetic.data.shape} from {_origin(synthetic)} mm;"
            " resample one to the other's grid"
        )
    spacing = float(real.affine[0, 0])
    wanted = np.diag([spacing, spacing, spacing])
    if spacing <= 0 or not np.allclose(real.affine[:3, :3], wanted, rtol=0, atol=1e-2):
        raise VolumeError(
            f"the PET is not on an isotropic RAS+ grid: {real.affine[:3, :3].round(3).tolist()};"
            " MetaROI regions need MNI space"
        )
    x, y, z = real.data.shape
    return Grid((x, y, z), _origin(real), round(spacing, 3))


def _origin(volume: Volume) -> tuple[float, float, float]:
    x, y, z = (round(float(v), 3) for v in volume.affine[:3, 3])
    return x, y, z
