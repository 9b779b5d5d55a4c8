# SPDX-License-Identifier: Apache-2.0
"""Sums over a site's persons, of which the federation makes norms of PETs and what a familiar MRI is.

They are asked for once, at the end of a run whose settings say so (`federation.reference`). A sum over few
tells of each: no site sends one over fewer than `MIN_PERSONS`, no guard and no server takes it.

Volumes travel as float32, numbers as float64. Where persons have mean m and spread s in a voxel, the spread
that is found is off by at most 2e-7 (m^2 + s^2) / s^2 of itself, however many they are: 2e-5 at m = 1.5 and
s = 0.15 SUVR.
"""

from dataclasses import dataclass
from typing import Any, Self, get_args

import numpy as np

from pasta_model.config import Settings
from pasta_model.data.manifest import CLINICAL
from pasta_model.data.store import MAX_SUVR
from pasta_model.errors import ConfigError, ExchangeError
from pasta_model.exchange.contents import Parcel, Value, exactly
from pasta_model.exchange.fields import count, finite, number, text
from pasta_model.exchange.packing import Buffers
from pasta_model.familiarity.features import COUNT as FEATURES
from pasta_model.familiarity.sums import FeatureSums
from pasta_model.federated_sections import Reference
from pasta_model.norms.resolution import FWHM
from pasta_model.norms.sums import VOLUMES, NormSums, scaled_age

MIN_PERSONS = 5  # a sum over fewer tells of each
ROUNDING = 1e-6  # relative, of sums; float32 keeps 6e-8
LARGEST_FEATURE = 1e6  # logarithms, log odds, distances in mm

Sums = NormSums | FeatureSums


@dataclass(frozen=True)
class ReferenceTask:
    """A site is asked for sums over its persons: for `norms`, or for `familiarity`."""

    site: str
    what: Reference

    def parcel(self) -> Parcel:
        """Pack for the wire."""
        return Parcel({"site": self.site, "what": self.what}, {})

    @classmethod
    def of(cls, parcel: Parcel) -> Self:
        """Unpack and check."""
        exactly(parcel, {"site", "what"}, set())
        return cls(text(parcel.values["site"]), _what(parcel.values["what"]))


@dataclass(frozen=True)
class ReferenceReport:
    """A site's sums over its persons who train, each counted once."""

    site: str
    sums: Sums

    @property
    def what(self) -> Reference:
        """What the sums are for."""
        return "norms" if isinstance(self.sums, NormSums) else "familiarity"

    @property
    def persons(self) -> int:
        """How many persons stand behind the sums."""
        return self.sums.count

    def parcel(self) -> Parcel:
        """Pack for the wire."""
        values: dict[str, Value] = {"site": self.site, "what": self.what, "persons": self.persons}
        sums = self.sums
        if isinstance(sums, FeatureSums):
            return Parcel(values, {"total": sums.total, "outer": sums.outer})
        values |= {
            "spacing": sums.spacing,
            "fwhm": sums.fwhm,
            "age": sums.age,
            "age-squared": sums.age_squared,
        }
        volumes = {name: np.ascontiguousarray(getattr(sums, name), np.float32) for name in VOLUMES}
        return Parcel(values, dict(volumes))

    @classmethod
    def of(cls, parcel: Parcel) -> Self:
        """Unpack and check: exact names, shapes and dtypes, and sums that are those of possible persons.

        Raises
        ------
        ExchangeError
            Saying what is not as it must be.
        """
        what = _what(parcel.values.get("what"))
        unpack = _norms if what == "norms" else _features
        numbers = {"spacing", "fwhm", "age", "age-squared"} if what == "norms" else set[str]()
        arrays = set(VOLUMES) if what == "norms" else {"total", "outer"}
        exactly(parcel, {"site", "what", "persons"} | numbers, arrays)
        finite(parcel.arrays)
        persons = count(parcel.values["persons"])
        if persons < MIN_PERSONS:
            raise ExchangeError(f"sums over {persons} person(s), wanted at least {MIN_PERSONS}")
        return cls(text(parcel.values["site"]), unpack(persons, parcel))

    def refuse_other(self, settings: Settings) -> None:
        """Refuse sums that the run does not ask for: other ones, on another grid, of a held-out site.

        Raises
        ------
        ExchangeError
            Saying what was asked for.
        """
        refuse_unasked(ReferenceTask(self.site, self.what), settings)
        if isinstance(self.sums, NormSums):
            found, wanted = (self.sums.spacing, self.sums.fwhm), (settings.data.spacing, FWHM)
            if found != wanted:
                raise ExchangeError(f"sums of PETs of spacing and FWHM {found} mm, wanted {wanted} mm")


def refuse_unasked(task: ReferenceTask, settings: Settings) -> None:
    """Refuse a question that the settings of the run do not have.

    Raises
    ------
    ExchangeError
        Saying what the run asks for, or that the site is held out.
    """
    if task.what not in settings.federation.references:
        wanted = settings.federation.reference
        raise ExchangeError(f"sums for {task.what}: federation.reference of this run is {wanted!r}")
    if task.site in settings.federation.held_out_sites:
        raise ExchangeError(f"sums for {task.what}: site {task.site} is held out of this run")


def _what(value: object) -> Reference:
    for known in get_args(Reference):
        if value == known:
            return known  # type: ignore[no-any-return]
    raise ExchangeError(f"found {value!r} in a message, wanted one of {', '.join(get_args(Reference))}")


def _norms(persons: int, parcel: Parcel) -> NormSums:
    _of_dtype(parcel.arrays, np.dtype(np.float32))
    spacing, fwhm, age, squared = (
        number(parcel.values[name]) for name in ("spacing", "fwhm", "age", "age-squared")
    )
    try:
        sums = NormSums(spacing, fwhm, persons, age, squared, **parcel.arrays)
    except ConfigError as error:  # no such grid, or a senseless resolution
        raise ExchangeError(f"sums for norms that nobody can use: {error}") from error
    _refuse_impossible_ages(sums)
    _refuse_impossible_uptake(sums)
    return sums


def _refuse_impossible_ages(sums: NormSums) -> None:
    n = sums.count
    low, high = (scaled_age(age) for age in CLINICAL["age"])
    if not (
        n * low <= sums.age <= n * high
        and sums.age**2 <= n * sums.age_squared * (1 + ROUNDING)  # Cauchy and Schwarz
        and sums.age_squared <= n * max(low**2, high**2)
    ):
        raise ExchangeError(f"sums of ages that {n} persons cannot have")


def _refuse_impossible_uptake(sums: NormSums) -> None:
    """Refuse variances, and covariances with age, that no persons can have, in each voxel."""
    n, x, xx = sums.count, sums.age, sums.age_squared
    y, xy, yy = sums.uptake, sums.age_uptake, sums.uptake_squared
    if (np.abs(y) > n * MAX_SUVR).any() or (yy > n * MAX_SUVR**2).any():
        raise ExchangeError(f"sums of uptake above {MAX_SUVR:g} SUVR a person")
    variance = n * yy - y**2  # n^2 times it; so are the others
    if (variance < -ROUNDING * n * np.abs(yy)).any():
        raise ExchangeError("sums of squares of uptake that are less than their sums allow")
    rounding = ROUNDING * n * np.sqrt(xx * yy)
    largest = np.sqrt(max(n * xx - x**2, 0.0) * (np.maximum(variance, 0.0) + ROUNDING * n * yy)) + rounding
    if (np.abs(n * xy - x * y) > largest).any():
        raise ExchangeError("sums of age times uptake that are more than both spreads allow")


def _features(persons: int, parcel: Parcel) -> FeatureSums:
    _of_dtype(parcel.arrays, np.dtype(np.float64))
    total, outer = parcel.arrays["total"], parcel.arrays["outer"]
    if total.shape != (FEATURES,):
        raise ExchangeError(f"sums of {total.shape} features, wanted {FEATURES}; use one version")
    sums = FeatureSums(persons, total, outer)
    squares = np.diag(outer)
    if (squares < 0).any() or (squares > persons * LARGEST_FEATURE**2).any():
        raise ExchangeError("sums of squares of features that nobody can have")
    # The products of [1, x] of possible persons have no negative eigenvalue; scaled, so that all count.
    products = np.block([[np.full((1, 1), float(persons)), total[None]], [total[:, None], outer]])
    scale = np.sqrt(np.maximum(np.diag(products), np.finfo(float).tiny))
    if np.linalg.eigvalsh(products / np.outer(scale, scale)).min() < -ROUNDING:
        raise ExchangeError("sums of products of features that their sums do not allow")
    return sums


def _of_dtype(arrays: Buffers, wanted: np.dtype[Any]) -> None:
    for name, array in arrays.items():
        if array.dtype != wanted:
            raise ExchangeError(f"array {name!r} is {array.dtype}, wanted {wanted}")
