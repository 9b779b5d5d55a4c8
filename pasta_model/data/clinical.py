# SPDX-License-Identifier: Apache-2.0
"""The clinical vector: standardised values, 0 where missing, and presence flags.

Mean and spread belong to the training federation. Sites share sums (`Moments`), never rows; the pooled
result equals what one table of all rows would give.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.manifest import Session
from pasta_model.errors import ExchangeError, ManifestError


@dataclass(frozen=True)
class ClinicalScheme:
    """Which columns make the vector.

    Attributes
    ----------
    columns
        Manifest columns with numbers, in order.
    flagged
        Those of them that can be missing and get a presence flag of 0 or 1.
    """

    columns: tuple[str, ...]
    flagged: tuple[str, ...]

    @property
    def length(self) -> int:
        """Length of the vector."""
        return len(self.columns) + len(self.flagged)

    @property
    def reference(self) -> "Standardisation":
        """A public mean and spread of each column, of no hospital: a private run then shares no sums.

        Any such numbers do, as long as all sites use the same and z-scores come to about 1.
        """
        mean, spread = ([REFERENCE[name][part] for name in self.columns] for part in (0, 1))
        return Standardisation(tuple(mean), tuple(spread))


REFERENCE: Mapping[str, tuple[float, float]] = {
    "age": (73.0, 7.0),  # years at baseline, ADNI over all phases
    "sex": (0.5, 0.5),  # 0 male, 1 female
    "education": (16.0, 3.0),  # years
    "mmse": (27.0, 3.0),  # of 30 points, CN, MCI and AD together
    "adas13": (17.0, 10.0),  # of 85 points
    "apoe4": (0.55, 0.65),  # alleles
}
"""Public reference, of no hospital: rounded figures as published of ADNI's baseline."""


SCHEMES: Mapping[str, ClinicalScheme] = {
    "adni": ClinicalScheme(
        ("age", "sex", "education", "mmse", "adas13", "apoe4"), ("mmse", "adas13", "apoe4")
    ),
    "demographics": ClinicalScheme(("age", "sex", "education"), ()),
    "none": ClinicalScheme((), ()),
}


@dataclass(frozen=True)
class Moments:
    """What a site shares of its clinical values: counts, sums and sums of squares by column."""

    count: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Self:
        """Moments of a table (rows, columns); NaN is missing."""
        present = np.isfinite(values)
        filled = np.where(present, values, 0.0)
        return cls(present.sum(0).astype(np.float64), filled.sum(0), (filled**2).sum(0))

    def without_few(self, minimum: int) -> Self:
        """Return the moments with zeros for each column of fewer than `minimum` values."""
        enough = self.count >= minimum
        return type(self)(*(np.where(enough, part, 0.0) for part in (self.count, self.total, self.squares)))

    @classmethod
    def pool(cls, parts: Sequence[Self]) -> Self:
        """Add the moments of several sites."""
        if not parts:
            raise ExchangeError("no site sent clinical sums; wanted at least one")
        if len({p.count.shape for p in parts}) > 1:
            raise ExchangeError("sites sent clinical sums of different length; use one scheme")
        return cls(
            np.sum([p.count for p in parts], axis=0),
            np.sum([p.total for p in parts], axis=0),
            np.sum([p.squares for p in parts], axis=0),
        )

    def standardisation(self) -> "Standardisation":
        """Mean and (population) standard deviation; 1 for a column without spread or values."""
        n = np.maximum(self.count, 1.0)
        mean = self.total / n
        variance = np.maximum(self.squares / n - mean**2, 0.0)
        spread = np.where(variance > 1e-12, np.sqrt(variance), 1.0)
        return Standardisation(tuple(mean.tolist()), tuple(spread.tolist()))


@dataclass(frozen=True)
class Standardisation:
    """Mean and spread of each column over the training federation."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]

    def check(self, scheme: ClinicalScheme) -> None:
        """Raise ValueError unless there is a finite mean and a positive spread for each column."""
        for name, values in (("mean", self.mean), ("spread", self.spread)):
            if len(values) != len(scheme.columns) or not np.isfinite(values).all():
                raise ValueError(
                    f"clinical {name}: found {values}, wanted {len(scheme.columns)} finite numbers"
                )
        if min(self.spread, default=1.0) <= 0:
            raise ValueError(f"clinical spread: found {self.spread}, wanted numbers above 0")

    def vector(self, values: Mapping[str, float | None], scheme: ClinicalScheme) -> NDArray[np.float32]:
        """Return the clinical vector (K,): z-scores, 0 where missing, then the presence flags."""
        raw = np.array([_number(values.get(c)) for c in scheme.columns], dtype=np.float64)
        z = (raw - np.asarray(self.mean)) / np.asarray(self.spread)
        flags = [float(np.isfinite(_number(values.get(c)))) for c in scheme.flagged]
        vector = np.concatenate([np.nan_to_num(z, nan=0.0), flags])
        return np.asarray(vector, dtype=np.float32)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def clinical_table(rows: Sequence[Mapping[str, float | None]], scheme: ClinicalScheme) -> NDArray[np.float64]:
    """Rows of clinical values as a table (rows, columns) with NaN where missing."""
    table = [[_number(row.get(c)) for c in scheme.columns] for row in rows]
    return np.array(table, dtype=np.float64).reshape(len(rows), len(scheme.columns))


def known_values(sessions: Sequence[Session], scheme: ClinicalScheme, *, ignore: bool) -> tuple[Session, ...]:
    """Refuse, or leave out, clinical values that a model was not trained with.

    Raises
    ------
    ManifestError
        Naming the columns.
    """
    given = {name for s in sessions for name, value in s.clinical.items() if value is not None}
    unknown = sorted(given - set(scheme.columns))
    if unknown and not ignore:
        raise ManifestError(
            f"clinical values {', '.join(unknown)}: the model was not trained with them, it knows"
            f" {', '.join(scheme.columns) or 'none'}; remove them, or leave them out with --ignore-unknown"
        )
    return tuple(
        replace(s, clinical={n: v for n, v in s.clinical.items() if n in scheme.columns}) for s in sessions
    )
