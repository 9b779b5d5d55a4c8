# SPDX-License-Identifier: Apache-2.0
"""How far an MRI's features lie from those of the training federation, and whether that is too far.

The distance is Mahalanobis's; its percentile is that of one new draw from a normal population of which n
persons were seen (Hotelling's T^2: an F distribution with k and n - k degrees of freedom), so that a small
federation flags no more than a large one. It says that a scan is unusual, never that a PET is wrong; and a
scan that is not flagged may still be one that the network does badly on.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy import stats

from pasta_model.data.grid import template_of
from pasta_model.data.volume import Volume
from pasta_model.errors import CheckpointError, FederationError, VolumeError
from pasta_model.familiarity.features import FEATURES, NAMES, features_of
from pasta_model.familiarity.sums import FeatureSums
from pasta_model.files import atomic_path

FORMAT = "pasta-familiarity-1"
UNLIKE = 99.5  # percentile beyond which a scan is flagged: one in 200 of the federation's own, by design
PERSONS_PER_FEATURE = 3  # at least; with fewer the covariance is mostly chance
SHRINKAGE = 0.05  # of the covariance toward its diagonal
STANDS_OUT, CLEAR = 3.0, 4.0  # standard deviations, of a feature that is named, and of one that is enough
MOST_REASONS = 4


@dataclass(frozen=True)
class Verdict:
    """What a reference says of one MRI.

    Attributes
    ----------
    distance
        Mahalanobis, in standard deviations; about the root of k for the federation's own.
    percentile
        Share of the federation's own scans, in %, that would lie nearer.
    unlike
        Whether that is beyond `UNLIKE`.
    reasons
        Sentences on what stands out, the worst first; empty where nothing is flagged.
    """

    distance: float
    percentile: float
    unlike: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Familiarity:
    """The MRIs of a federation, as the normal distribution of their features.

    Attributes
    ----------
    names
        Of the k features.
    mean, covariance
        (k,) and (k, k), the latter as sampled, before it is shrunk.
    persons
        n, who stand behind them.
    spacing
        Of the MRIs' voxels in mm; None where it is not known, and then not checked.
    """

    names: tuple[str, ...]
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    persons: int
    spacing: float | None = None

    @classmethod
    def of(cls, sums: FeatureSums, *, spacing: float | None = None) -> "Familiarity":
        """Fit to the pooled sums of a federation's sites.

        Raises
        ------
        FederationError
            When there are too few persons, fewer than three a feature, or the sums are of other features.
        """
        if sums.total.size != len(NAMES):
            raise FederationError(
                f"sums of {sums.total.size} features, wanted {len(NAMES)}: use one version of the software"
            )
        wanted = PERSONS_PER_FEATURE * len(NAMES)
        if sums.count < wanted:
            raise FederationError(
                f"found {sums.count} persons, wanted at least {wanted} ({PERSONS_PER_FEATURE} a feature):"
                " fewer do not tell what is usual; add sites"
            )
        return cls(NAMES, sums.mean(), sums.covariance(), sums.count, spacing)

    def judge(self, mri: Volume) -> Verdict:
        """Say how unusual an MRI is: skull-stripped, on the head grid of the federation's template.

        Raises
        ------
        VolumeError
            When it lies on another grid, or has no brain.
        """
        found = template_of(mri.data.shape, mri.affine).head.spacing
        if self.spacing not in (None, found):
            raise VolumeError(f"the MRI has voxels of {found} mm, the reference is of {self.spacing} mm")
        return self.check(features_of(mri))

    def check(self, features: NDArray[np.float64]) -> Verdict:
        """Say how unusual the features (k,) of one MRI are."""
        away = (features - self.mean) / self._spread
        precision = np.asarray(np.linalg.inv(self._correlation), np.float64)
        squared = float(away @ precision @ away)
        n, k = self.persons, len(self.names)
        scaled = squared * n * (n - k) / ((n + 1) * (n - 1) * k)  # of one new draw, ~ F(k, n - k)
        percentile = 100.0 * float(stats.f.cdf(scaled, k, n - k))
        unlike = percentile > UNLIKE
        reasons = _reasons(self.names, away, precision) if unlike else ()
        return Verdict(squared**0.5, percentile, unlike, reasons)

    @property
    def _spread(self) -> NDArray[np.float64]:
        least = np.array([feature.least for feature in FEATURES])
        return np.asarray(np.sqrt(np.maximum(np.diag(self.covariance), least**2)))

    @property
    def _correlation(self) -> NDArray[np.float64]:
        """Correlations, shrunk toward none: the sums allow no data-driven amount (Ledoit-Wolf needs rows).

        Shrinking makes distances along directions that hardly vary smaller: fewer flags, never more.
        """
        shrunk = (1.0 - SHRINKAGE) * self.covariance / np.outer(self._spread, self._spread)
        np.fill_diagonal(shrunk, 1.0)
        return np.asarray(shrunk)


def _reasons(
    names: Sequence[str], away: NDArray[np.float64], precision: NDArray[np.float64]
) -> tuple[str, ...]:
    """Name what stands out by itself; where nothing clearly does, what stands out given all the rest."""
    far = [i for i in np.argsort(-np.abs(away)) if abs(away[i]) >= STANDS_OUT][:MOST_REASONS]
    if np.abs(away).max() >= CLEAR:
        return tuple(_sentence(names[i], float(away[i])) for i in far)
    given_others = (precision @ away) / np.sqrt(np.diag(precision))
    worst = np.argsort(-np.abs(given_others))[:2]
    return tuple(_sentence(names[i], float(given_others[i])) + ", given its other features" for i in worst)


def _sentence(name: str, away: float) -> str:
    feature = FEATURES[NAMES.index(name)]
    side, hint = ("below", feature.low) if away < 0 else ("above", feature.high)
    return f"{feature.label} is {abs(away):.1f} sd {side} the training federation ({hint}?)"


def save_familiarity(path: Path, familiarity: Familiarity) -> None:
    """Write a reference atomically."""
    arrays = {"mean": familiarity.mean, "covariance": np.ascontiguousarray(familiarity.covariance)}
    about = {
        "features": familiarity.names,
        "persons": familiarity.persons,
        "spacing": familiarity.spacing,
        "versions": {name: version(name) for name in ("numpy", "scipy", "nilearn")},
    }
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata={"format": FORMAT, "about": json.dumps(about)})


def load_familiarity(path: Path) -> Familiarity:
    """Read a reference.

    Raises
    ------
    CheckpointError
        When the file is missing, damaged, or of other features than this version's.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; make one with 'pasta familiarity build'")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            mean, covariance = (file.get_tensor(name).astype(np.float64) for name in ("mean", "covariance"))
        about = json.loads(metadata["about"]) if metadata.get("format") == FORMAT else {}
        names, persons = tuple(map(str, about["features"])), int(about["persons"])
        spacing = None if about.get("spacing") is None else float(about["spacing"])
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: no reference of familiarity ({error}); make one with 'pasta familiarity build'"
        ) from error
    _refuse_impossible(path, names, mean, covariance, persons)
    return Familiarity(names, mean, covariance, persons, spacing)


def _refuse_impossible(
    path: Path,
    names: tuple[str, ...],
    mean: NDArray[np.float64],
    covariance: NDArray[np.float64],
    persons: int,
) -> None:
    k = len(NAMES)
    if names != NAMES:
        raise CheckpointError(
            f"{path}: its features are not this version's: {', '.join(sorted(set(names) ^ set(NAMES)))};"
            " build it again"
        )
    shapes = mean.shape == (k,) and covariance.shape == (k, k) and persons > k
    if not shapes or not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise CheckpointError(
            f"{path}: {persons} persons, mean {mean.shape}, covariance {covariance.shape}, wanted more than"
            f" {k} persons and finite ({k},) and ({k}, {k}); build it again"
        )
    if np.linalg.eigvalsh(covariance).min() < -1e-6 * max(float(np.diag(covariance).max()), 1.0):
        raise CheckpointError(f"{path}: its covariance is that of no data; build it again")
