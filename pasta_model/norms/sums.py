# SPDX-License-Identifier: Apache-2.0
"""Sums that are all a norm needs: a site adds up its cognitively normal people, and sums add up to the pool.

For a person with y, the PET in SUVR at a common resolution, and x = (age - 75) / 10: the number of
persons, sums of x, x^2 (numbers) and of y, x y, y^2 (volumes). The sum over sites gives exactly the
regression of all people together.

Shapes: volumes are (x, y, z) on the crop of a template.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.grid import Grid, template
from pasta_model.data.volume import Volume
from pasta_model.errors import ExchangeError, ManifestError, Problems, VolumeError
from pasta_model.norms.resolution import FWHM, check_fwhm, common_resolution

Sums = NDArray[np.float64]

REFERENCE_AGE = 75.0  # years; where x is 0
DECADE = 10.0  # years for which x grows by 1
VOLUMES = ("uptake", "age_uptake", "uptake_squared")
"""The fields of `NormSums` that are volumes."""


@dataclass(frozen=True)
class NormPerson:
    """A cognitively normal person's visit: who it is, age in years, PET in SUVR, brain on the PET's grid.

    Without a brain, it is where the PET shows uptake.
    """

    person: str
    age: float | None
    pet: Volume
    brain: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class NormSums:
    """What a site tells of its cognitively normal people.

    Attributes
    ----------
    spacing, fwhm
        Of the template, and of the Gaussian that made the PETs alike; mm. Only equal ones add up.
    count
        Persons, each counted once.
    age, age_squared
        Sums of x and x^2.
    uptake, age_uptake, uptake_squared
        Sums of y, x y and y^2, (x, y, z) float64 on the crop.
    """

    spacing: float
    fwhm: float
    count: int
    age: float
    age_squared: float
    uptake: Sums = field(repr=False)
    age_uptake: Sums = field(repr=False)
    uptake_squared: Sums = field(repr=False)

    def __post_init__(self) -> None:
        check_fwhm(self.fwhm)
        wanted = self.grid.shape
        for name in VOLUMES:
            found = np.asarray(getattr(self, name), np.float64)
            if found.shape != wanted or not np.isfinite(found).all():
                raise ExchangeError(
                    f"sums of {name}: found {found.shape} voxels, {int(np.isfinite(found).sum())} of them"
                    f" finite; wanted {wanted}, all finite"
                )
            object.__setattr__(self, name, found)
        if self.count < 0 or not np.isfinite([self.age, self.age_squared]).all():
            raise ExchangeError(f"found {self.count} persons, sums of ages {self.age}, {self.age_squared}")

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        return template(self.spacing).crop

    @classmethod
    def empty(cls, *, spacing: float, fwhm: float = FWHM) -> Self:
        """Return the sums over nobody."""
        nothing = (np.zeros(template(spacing).crop.shape) for _ in VOLUMES)
        return cls(spacing, fwhm, 0, 0.0, 0.0, *nothing)

    @classmethod
    def of(cls, people: Iterable[NormPerson], *, spacing: float, fwhm: float = FWHM) -> Self:
        """Add up people, one at a time; of several visits of a person the first one counts.

        Raises
        ------
        ManifestError
            With a line for everybody without an age.
        VolumeError
            With a line for every PET that is on another grid, not in SUVR, or not of a whole brain.
        """
        grid = template(spacing).crop
        volumes, ages = np.zeros((len(VOLUMES), *grid.shape)), list[float]()
        ageless, scans = Problems("norms need the age of everybody"), Problems("PETs that give no norm")
        for one in _first_visits(people):
            if one.age is None or not np.isfinite(one.age):
                ageless.add(f"{one.person}: no age; give it, or leave the person out")
                continue
            try:
                y = common_resolution(one.pet, spacing=spacing, fwhm=fwhm, brain=one.brain).astype(float)
            except VolumeError as error:
                scans.add(f"{one.person}: {error}")
                continue
            x = scaled_age(one.age)
            ages.append(x)
            volumes += np.stack([y, x * y, y * y])
        ageless.raise_if_any(ManifestError)
        scans.raise_if_any(VolumeError)
        x_sums = float(np.sum(ages)), float(np.sum(np.square(ages)))
        return cls(spacing, fwhm, len(ages), *x_sums, *volumes)

    @classmethod
    def pool(cls, parts: Sequence[Self]) -> Self:
        """Add the sums of several sites.

        Raises
        ------
        ExchangeError
            When there are none, or they are of different grids or resolutions.
        """
        if not parts:
            raise ExchangeError("no site sent sums for norms; wanted at least one")
        kinds = {(p.spacing, p.fwhm) for p in parts}
        if len(kinds) > 1:
            raise ExchangeError(
                "found sums of spacing and FWHM "
                + " and ".join(f"{a:g} and {b:g} mm" for a, b in sorted(kinds))
                + "; wanted one kind: build them again with the same"
            )
        spacing, fwhm = kinds.pop()
        numbers = sum(p.age for p in parts), sum(p.age_squared for p in parts)
        volumes = [np.sum([getattr(p, name) for p in parts], axis=0) for name in VOLUMES]
        return cls(spacing, fwhm, sum(p.count for p in parts), *numbers, *volumes)

    def __add__(self, other: Self) -> Self:
        return self.pool([self, other])


def scaled_age(age: float) -> float:
    """Return x, the age in decades from 75 years."""
    return (age - REFERENCE_AGE) / DECADE


def _first_visits(people: Iterable[NormPerson]) -> Iterator[NormPerson]:
    seen = set[str]()
    for one in people:
        if one.person not in seen:
            seen.add(one.person)
            yield one
