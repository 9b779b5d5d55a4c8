# SPDX-License-Identifier: Apache-2.0
"""From a diagnosis to a person: clinical variables, and how far the disease has gone in the brain.

Three hidden severities (atrophy, metabolism, cognition) are drawn together, correlated within a
diagnosis: MRI informs about the PET but does not determine it.

Group parameters are rounded values for all comers of an ADNI-like cohort. Age, education, APOE4, MMSE and
ADAS-13 lie at or on the mild side of the amyloid-positive table of PMC9014819. The MetaROI is that of
Landau et al. 2011 (doi:10.1016/j.neurobiolaging.2009.07.002); its group means of about 1.30, 1.2 and 1.07
are those commonly quoted for ADNI and were not checked against a primary table. The loss of hippocampus,
about 12 % in MCI and 24 % in dementia, is that of the meta-analysis of Shi et al. 2009
(doi:10.1002/hipo.20573).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

Diagnosis = Literal["CN", "MCI", "Dementia"]
DIAGNOSES: tuple[Diagnosis, ...] = get_args(Diagnosis)


class Normal(NamedTuple):
    """Mean and standard deviation."""

    mean: float
    sd: float


class Group(NamedTuple):
    """What is typical of a diagnosis.

    Attributes
    ----------
    age, education
        Years.
    female
        Share of women, 0..1.
    mmse
        Points of 30; `mmse_floor` is the entry criterion.
    adas13
        Points of 85, higher is worse.
    apoe4
        Chance of 0, 1 and 2 copies of the allele.
    suvr
        MetaROI SUVR of the FDG-PET.
    atrophy
        0 = none, 1 = advanced.
    """

    age: Normal
    education: Normal
    female: float
    mmse: Normal
    mmse_floor: int
    adas13: Normal
    apoe4: tuple[float, float, float]
    suvr: Normal
    atrophy: Normal


GROUPS: dict[Diagnosis, Group] = {
    "CN": Group(
        age=Normal(74.0, 6.2),
        education=Normal(16.4, 2.7),
        female=0.52,
        mmse=Normal(29.2, 1.1),
        mmse_floor=24,
        adas13=Normal(9.2, 4.4),
        apoe4=(0.72, 0.255, 0.025),
        suvr=Normal(1.30, 0.11),
        atrophy=Normal(0.12, 0.16),
    ),
    "MCI": Group(
        age=Normal(73.0, 7.5),
        education=Normal(16.0, 2.8),
        female=0.42,
        mmse=Normal(27.6, 1.8),
        mmse_floor=23,
        adas13=Normal(16.3, 6.7),
        apoe4=(0.50, 0.39, 0.11),
        suvr=Normal(1.21, 0.12),
        atrophy=Normal(0.40, 0.24),
    ),
    "Dementia": Group(
        age=Normal(75.0, 7.8),
        education=Normal(15.3, 2.9),
        female=0.44,
        mmse=Normal(23.2, 2.1),
        mmse_floor=18,
        adas13=Normal(29.9, 8.1),
        apoe4=(0.34, 0.47, 0.19),
        suvr=Normal(1.07, 0.12),
        atrophy=Normal(0.72, 0.26),
    ),
}

# Correlation within a group of the severities of atrophy, metabolism and cognition.
_CORRELATION = ((1.0, 0.45, 0.35), (0.45, 1.0, 0.45), (0.35, 0.45, 1.0))


@dataclass(frozen=True)
class Person:
    """A virtual person.

    Attributes
    ----------
    mmse, adas13, apoe4
        `None` when the hospital did not collect the value.
    suvr
        MetaROI SUVR that the PET will have at a resolution of 6.5 mm.
    atrophy
        Disease's loss of grey matter, 0 = none.
    ventricles
        Gain of the widening of the ventricles.
    hippocampus
        Contraction of the left and the right hippocampus.
    thinning
        Share of cortex lost to age.
    asymmetry
        Of the disease: > 0 more on the right.
    """

    diagnosis: Diagnosis
    age: float
    sex: Literal["F", "M"]
    education: int
    mmse: int | None
    adas13: float | None
    apoe4: int | None
    suvr: float
    atrophy: float
    ventricles: float
    hippocampus: tuple[float, float]
    thinning: float
    asymmetry: float


@dataclass(frozen=True)
class Missingness:
    """Share of people whose value a hospital does not have, 0..1."""

    mmse: float = 0.01
    adas13: float = 0.04
    apoe4: float = 0.06


def sample_person(
    rng: np.random.Generator, *, diagnosis: Diagnosis, missing: Missingness | None = None
) -> Person:
    """Draw a person with a diagnosis."""
    group = GROUPS[diagnosis]
    atrophy_z, metabolism_z, cognition_z = _severities(rng)
    age = float(np.clip(rng.normal(*group.age), 55, 92))
    atrophy = group.atrophy.mean + group.atrophy.sd * atrophy_z + 0.010 * (age - 74)
    atrophy = float(np.clip(atrophy, 0, 1.4))
    mmse, adas13 = _scores(rng, group, cognition_z)
    apoe4 = int(rng.choice(3, p=group.apoe4))
    rates = missing or Missingness()
    has_mmse, has_adas13, has_apoe4 = rng.random(3) >= (rates.mmse, rates.adas13, rates.apoe4)
    return Person(
        diagnosis=diagnosis,
        age=round(age, 1),
        sex="F" if rng.random() < group.female else "M",
        education=int(np.clip(round(rng.normal(*group.education)), 6, 20)),
        mmse=mmse if has_mmse else None,
        adas13=adas13 if has_adas13 else None,
        apoe4=apoe4 if has_apoe4 else None,
        suvr=group.suvr.mean - group.suvr.sd * metabolism_z,
        atrophy=atrophy,
        ventricles=_ventricle_gain(rng, atrophy, age),
        hippocampus=(_contraction(rng, atrophy), _contraction(rng, atrophy)),
        thinning=float(np.clip(0.18 + 0.012 * (age - 70) + 0.06 * rng.normal(), 0.02, 0.6)),
        asymmetry=float(rng.normal(0, 0.18)),
    )


def _severities(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw three correlated standard normal values: L z with the Cholesky factor L."""
    (_, ab, ac), (_, _, bc), _ = _CORRELATION
    a, b, c = rng.standard_normal(3)
    bb = (1 - ab**2) ** 0.5
    cb = (bc - ab * ac) / bb
    cc = (1 - ac**2 - cb**2) ** 0.5
    return float(a), float(ab * a + bb * b), float(ac * a + cb * b + cc * c)


def _scores(rng: np.random.Generator, group: Group, severity: float) -> tuple[int, float]:
    """MMSE in points, and ADAS-13 in thirds of a point with two decimals."""
    mmse = group.mmse.mean - group.mmse.sd * (0.75 * severity + 0.66 * rng.normal())
    adas13 = group.adas13.mean + group.adas13.sd * (0.90 * severity + 0.43 * rng.normal())
    points = int(np.clip(round(mmse), group.mmse_floor, 30))
    return points, round(float(np.clip(round(adas13 * 3) / 3, 0, 85)), 2)


def _ventricle_gain(rng: np.random.Generator, atrophy: float, age: float) -> float:
    """Gain of the velocity field that widens the ventricles."""
    widening = 0.55 * atrophy + 0.018 * (age - 70) + 0.25 * rng.normal()
    return float(200 + 850 * np.clip(widening - 0.05, -0.2, 0.75))


def _contraction(rng: np.random.Generator, atrophy: float) -> float:
    """Contraction of one hippocampus, as a share of the distance from its middle."""
    return float(np.clip(0.04 + 0.26 * atrophy + 0.06 * rng.normal(), -0.1, 0.6))
