# SPDX-License-Identifier: Apache-2.0
"""Norms of a healthy brain's metabolism by age, and how far a PET is from them, voxel by voxel.

PET(v) = a(v) + b(v) x + e(v), x = (age - 75) / 10, e(v) with standard deviation sd(v) of n - 2 degrees
of freedom: a straight line a voxel by ordinary least squares, from sums alone.

Shapes: volumes are (x, y, z) on the crop of a template.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pasta_model.data.grid import Grid, template
from pasta_model.data.volume import Volume
from pasta_model.errors import CheckpointError, ConfigError, ManifestError
from pasta_model.files import atomic_path
from pasta_model.norms.resolution import Floats, Mask, common_resolution, lies_on
from pasta_model.norms.sums import DECADE, REFERENCE_AGE, NormSums, scaled_age
from pasta_model.prepare.template import template_brain

FORMAT = "pasta-norms-1"
SMALLEST = 10  # persons
SMALLEST_AGE_SPREAD = 1.0  # years, standard deviation
LOWEST_SPREAD = 0.02  # SUVR
LOWEST_SHARE = 0.25  # of the brain's median standard deviation
DIMMEST = 0.5  # of the brain's median uptake; less is no tissue


@dataclass(frozen=True, eq=False)
class Norms:
    """Age-adjusted norms.

    Attributes
    ----------
    spacing, fwhm
        Of the template, and of the smoothing that a PET gets before it is compared; mm.
    persons, sites
        Who made them: how many people, and the names of the sites.
    age, age_scatter
        Mean of x, and sum of squares of x about it: where the norms are sure.
    level, slope
        Expected SUVR at 75 years, and what it grows in a decade.
    spread
        Standard deviation of healthy people about it, in SUVR; where it is less than a quarter of the
        brain's median, or 0.02, it is that, so that z never explodes.
    brain
        Where there are norms.
    """

    spacing: float
    fwhm: float
    persons: int
    sites: tuple[str, ...]
    age: float
    age_scatter: float
    level: Floats = field(repr=False)
    slope: Floats = field(repr=False)
    spread: Floats = field(repr=False)
    brain: Mask = field(repr=False)

    @classmethod
    def of(cls, sums: NormSums, *, sites: Sequence[str] = ()) -> Self:
        """Fit the lines.

        Raises
        ------
        ConfigError
            When there are fewer than ten persons, or all of one age.
        """
        n = sums.count
        refuse_few(n)
        line = fit(sums)
        brain = template_brain(sums.grid).mask
        brain = brain & (line.level >= DIMMEST * np.median(line.level[brain]))
        return cls(
            spacing=sums.spacing,
            fwhm=sums.fwhm,
            persons=n,
            sites=tuple(sites),
            age=sums.age / n,
            age_scatter=line.scatter,
            level=np.where(brain, line.level, 0).astype(np.float32),
            slope=np.where(brain, line.slope, 0).astype(np.float32),
            spread=np.where(brain, _floored(line.spread, brain), 0).astype(np.float32),
            brain=brain,
        )

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        return template(self.spacing).crop

    @property
    def title(self) -> str:
        """What they are, in a line."""
        sites = f" of {len(self.sites)} site{'s' * (len(self.sites) > 1)}" if self.sites else ""
        kind = f"voxels of {self.spacing:g} mm, smoothed by {self.fwhm:g} mm"
        return f"norms of {self.persons} cognitively normal persons{sites}, {kind}"

    def expected(self, age: float | None) -> Volume:
        """Return the PET that is expected at an age: SUVR on the crop, at the norms' resolution."""
        return Volume(self.level + np.float32(_checked(age)) * self.slope, self.grid.affine, "SUVR")

    def z_map(
        self, pet: Volume, age: float | None, *, brain: Mask | None = None, prediction: bool = True
    ) -> Volume:
        """Say how many standard deviations a PET is from what is expected at that age.

        Parameters
        ----------
        pet
            SUVR, on the head grid or the crop of the norms' template; real or synthetic.
        age
            In years.
        brain
            The person's brain on the PET's grid, from the MRI; see `norms.resolution.common_resolution`.
        prediction
            Whether the standard deviation is that of a new person's value, sd sqrt(1 + 1/n + (x - mean
            x)^2 / scatter), as norms of few people, or far from their age, are unsure themselves.

        Returns
        -------
        Volume
            Unit "z", on the PET's grid; below 0 where the metabolism is low, 0 outside the norms' brain.

        Raises
        ------
        ManifestError
            When there is no age.
        VolumeError
            When the PET is on another grid, not in SUVR, or not of a whole brain.
        """
        x = _checked(age)
        found = common_resolution(pet, spacing=self.spacing, fwhm=self.fwhm, brain=brain)
        leverage = 1.0 / self.persons + (x - self.age) ** 2 / self.age_scatter
        unsure = np.float32(np.sqrt(1.0 + leverage) if prediction else 1.0)
        spread = np.where(self.brain, self.spread, 1)
        z = np.where(self.brain, (found - self.expected(age).data) / (unsure * spread), 0).astype(np.float32)
        return replace(pet, data=self._as_lies(pet, z), unit="z")

    def brain_on(self, volume: Volume) -> Mask:
        """Return the norms' brain on the grid of a volume that `z_map` takes or gives."""
        return self._as_lies(volume, self.brain.astype(np.float32)) > 0

    def save(self, path: Path) -> None:
        """Write them, atomically, as safetensors that explain themselves."""
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _VOLUMES}
        about = {name: getattr(self, name) for name in _NUMBERS}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"format": FORMAT, "about": json.dumps(about | _WORDS)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read norms.

        Raises
        ------
        CheckpointError
            When the file is missing, damaged, or holds something else.
        """
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; make norms with 'pasta norms build'")
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
        if metadata.get("format") != FORMAT:
            raise CheckpointError(
                f"{path}: format {metadata.get('format')!r}, wanted {FORMAT!r}; make norms with"
                " 'pasta norms build'"
            )
        try:
            return cls(**_fields(json.loads(metadata["about"]), tensors))
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise CheckpointError(f"{path}: the norms are damaged: {error}; make them again") from error

    def _as_lies(self, pet: Volume, data: Floats) -> Floats:
        if lies_on(pet, self.grid):
            return data
        head = np.zeros(template(self.spacing).head.shape, np.float32)
        head[template(self.spacing).slices] = data
        return head


_VOLUMES = ("level", "slope", "spread", "brain")
_NUMBERS = ("spacing", "fwhm", "persons", "sites", "age", "age_scatter")
_WORDS = {
    "explanation": "age-adjusted norms of FDG-PET in SUVR, of cognitively normal people; expected SUVR ="
    f" level + slope (age - {REFERENCE_AGE:g}) / {DECADE:g}, standard deviation = spread, where brain;"
    " arrays (x, y, z), RAS+; research software, not a medical device",
}


class Line(NamedTuple):
    """A straight line a voxel: SUVR at 75 years, SUVR a decade, standard deviation about it; x's scatter."""

    level: NDArray[np.float64]
    slope: NDArray[np.float64]
    spread: NDArray[np.float64]
    scatter: float


def fit(sums: NormSums) -> Line:
    """Fit the lines by ordinary least squares, as if all people were in one place.

    Raises
    ------
    ConfigError
        When all people are of about one age.
    """
    n = sums.count
    scatter = sums.age_squared - sums.age**2 / n
    if scatter < n * (SMALLEST_AGE_SPREAD / DECADE) ** 2:
        years = DECADE * np.sqrt(max(scatter, 0.0) / n)
        raise ConfigError(
            f"the ages of the {n} persons spread by {years:.2g} years, wanted at least"
            f" {SMALLEST_AGE_SPREAD:g}: norms by age need people of different age"
        )
    slope = (sums.age_uptake - sums.age * sums.uptake / n) / scatter
    level = (sums.uptake - slope * sums.age) / n
    residual = sums.uptake_squared - sums.uptake**2 / n - slope**2 * scatter
    return Line(level, slope, np.sqrt(np.maximum(residual, 0.0) / (n - 2)), float(scatter))


def refuse_few(persons: int) -> None:
    """Refuse to make norms of too few people.

    Raises
    ------
    ConfigError
        When there are fewer than ten.
    """
    if persons < SMALLEST:
        raise ConfigError(
            f"norms of {persons} cognitively normal persons, wanted at least {SMALLEST}; add people or sites"
        )


def _floored(spread: NDArray[np.float64], brain: Mask) -> NDArray[np.float64]:
    lowest = max(LOWEST_SPREAD, LOWEST_SHARE * float(np.median(spread[brain])))
    return np.maximum(spread, lowest)


def _checked(age: float | None) -> float:
    if age is None or not 0 < age < 130:
        raise ManifestError(f"found age {age}, wanted years: the norms depend on it; give the person's age")
    return scaled_age(age)


def _fields(about: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return the fields of `Norms` from a file; ValueError where they make no sense."""
    fields = {name: about[name] for name in _NUMBERS} | {name: tensors[name] for name in _VOLUMES}
    wanted = template(about["spacing"]).crop.shape
    for name in _VOLUMES:
        if tensors[name].shape != wanted or not np.isfinite(tensors[name]).all():
            raise ValueError(f"{name} has {tensors[name].shape} voxels, wanted {wanted}, all finite")
    if not (about["persons"] >= SMALLEST and about["age_scatter"] > 0):
        raise ValueError(f"{about['persons']} persons, ages that scatter by {about['age_scatter']}")
    if not (tensors["spread"][tensors["brain"]] > 0).all():
        raise ValueError("a standard deviation of 0 or less in the brain")
    return fields | {"sites": tuple(map(str, about["sites"]))}
