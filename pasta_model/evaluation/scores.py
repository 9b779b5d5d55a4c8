# SPDX-License-Identifier: Apache-2.0
"""Scores of synthetic PETs: one row a session and method, and how a pair of volumes becomes one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.grid import Grid
from pasta_model.data.manifest import Session
from pasta_model.data.volume import Volume
from pasta_model.errors import VolumeError
from pasta_model.evaluation.measures import Pair, measure_pair
from pasta_model.metrics import similarity

SEXES = {0.0: "M", 1.0: "F"}


@dataclass(frozen=True)
class SubjectScore:
    """What one method reached on one session.

    Attributes
    ----------
    person
        Who it is, alike in all visits and at all sites.
    sex
        "F", "M", or empty where it is not known.
    age
        In years at the visit, or None.
    values
        By metric name (`evaluation.columns`), finite; None where the reason stands in `why`.
    """

    subject: str
    session: str
    site: str
    diagnosis: str
    method: str
    person: str
    sex: str = ""
    age: float | None = None
    values: Mapping[str, float | None] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError when a value is not finite, or None without a reason."""
        for name, value in self.values.items():
            if value is None and not self.why.get(name):
                raise ValueError(f"{name} is not available and no reason is given")
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} is {value}; wanted a finite number, or None and the reason")

    @property
    def key(self) -> tuple[str, str, str]:
        """Which session of which subject it is about; scores of one key are pairs."""
        return self.site, self.subject, self.session


def score(
    real: Volume,
    synthetic: Volume,
    *,
    session: Session,
    method: str,
    mask: NDArray[np.bool_],
    person: str | None = None,
    data_range: float = similarity.SUVR_RANGE,
) -> SubjectScore:
    """Compare a synthetic PET with the real one.

    Parameters
    ----------
    real, synthetic
        PETs in SUVR on one grid in MNI space.
    session
        Whose they are.
    method
        Who made the synthetic PET: "federated", "mean PET", "alone", ...
    mask
        (x, y, z), True in the brain.
    person
        Who the session's subject is, where other sessions tell it (`data.splits.people`); None: what its own
        row says.
    data_range
        Of PSNR and SSIM in SUVR.

    Raises
    ------
    VolumeError
        When the volumes are not in SUVR, not on one grid, or not finite.
    """
    grid = common_grid(real, synthetic)
    measured = measure_pair(Pair(real.data, synthetic.data, mask, data_range), grid=grid)
    sex = session.clinical.get("sex")
    return SubjectScore(
        subject=session.subject,
        session=session.session,
        site=session.site,
        diagnosis=session.diagnosis,
        method=method,
        person=session.person if person is None else person,
        sex="" if sex is None else SEXES.get(sex, ""),
        age=session.clinical.get("age"),
        values=measured.values,
        why=measured.why,
    )


def common_grid(real: Volume, synthetic: Volume) -> Grid:
    """Return the grid of two PETs.

    Raises
    ------
    VolumeError
        When one is not in SUVR, or they lie on different grids, or on one that is not isotropic and RAS+.
    """
    for name, volume in (("real", real), ("synthetic", synthetic)):
        if volume.unit != "SUVR":
            raise VolumeError(f"the {name} PET is in unit '{volume.unit}', wanted SUVR")
    refuse_other_grid(real, synthetic, names=("real", "synthetic PET"))
    spacing = float(real.affine[0, 0])
    wanted = np.diag([spacing, spacing, spacing])
    if spacing <= 0 or not np.allclose(real.affine[:3, :3], wanted, rtol=0, atol=1e-2):
        raise VolumeError(
            f"the PET is not on an isotropic RAS+ grid: {real.affine[:3, :3].round(3).tolist()};"
            " MetaROI regions need MNI space"
        )
    x, y, z = real.data.shape
    return Grid((x, y, z), _origin(real), round(spacing, 3))


def refuse_other_grid(first: Volume, second: Volume, *, names: tuple[str, str]) -> None:
    """Raise VolumeError unless two volumes have the same voxels."""
    same = np.allclose(first.affine, second.affine, rtol=0, atol=1e-2)
    if first.data.shape != second.data.shape or not same:
        raise VolumeError(
            f"{names[0]} and {names[1]} lie on different grids: {first.data.shape} voxels from"
            f" {_origin(first)} mm and {second.data.shape} from {_origin(second)} mm;"
            " resample one to the other's grid"
        )


def _origin(volume: Volume) -> tuple[float, float, float]:
    x, y, z = (round(float(v), 3) for v in volume.affine[:3, 3])
    return x, y, z
