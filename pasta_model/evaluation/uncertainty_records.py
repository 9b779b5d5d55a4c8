# SPDX-License-Identifier: Apache-2.0
"""What the spread of one session's samples says of its error: one record a session and method."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pasta_model.data.grid import Grid
from pasta_model.data.manifest import Session
from pasta_model.data.volume import read_volume
from pasta_model.derivatives import spread_path, synthetic_path
from pasta_model.errors import VolumeError
from pasta_model.evaluation.scores import refuse_other_grid
from pasta_model.metrics import uncertainty
from pasta_model.metrics.similarity import brain_mask, check_pair
from pasta_model.metrics.uncertainty import LEVELS, Array, Bin, Floats, Mask, Prediction

QUANTILES = 1001  # that stand for the error ratios of a brain's voxels
ONE_SAMPLE = "one sample has no spread; synthesise with --samples 2 or more"


@dataclass(frozen=True, eq=False)
class SubjectUncertainty:
    """What was found on one session; without a usable spread, `why` and nothing else.

    Attributes
    ----------
    person
        Who it is, alike in all visits.
    error, spread
        Mean |error| and mean spread in the brain, in SUVR.
    coverage, width
        By level: share of the brain's voxels in the interval, and its mean width in SUVR.
    within
        Rank correlation of |error| with spread over voxels; None where there is no order.
    curve
        Error against spread by bins of voxels.
    ratios
        (QUANTILES,) quantiles of |error| over spread.
    regions
        By region and level: whether the interval holds the real SUVR, and its width; empty without samples.
    """

    method: str
    subject: str
    session: str
    site: str
    person: str
    samples: int | None
    error: float = 0.0
    spread: float = 0.0
    coverage: Mapping[float, float] = field(default_factory=dict)
    width: Mapping[float, float] = field(default_factory=dict)
    within: float | None = None
    curve: tuple[Bin, ...] = ()
    ratios: Floats = field(default_factory=lambda: np.zeros(0))
    regions: Mapping[str, Mapping[float, tuple[bool, float]]] = field(default_factory=dict)
    why: str = ""


def measure_uncertainty(
    session: Session,
    real: Array,
    predicted: Prediction | Array,
    *,
    method: str,
    mask: Mask,
    grid: Grid | None = None,
    levels: Sequence[float] = LEVELS,
    person: str | None = None,
) -> SubjectUncertainty:
    """Measure one session. A spread that is 0, or one sample, is no mistake: the record says so.

    Parameters
    ----------
    real
        (x, y, z) in SUVR.
    predicted
        Mean and spread, or the samples themselves, (n, x, y, z): only these tell of regions.
    grid
        Where the voxels lie; for the regions.
    person
        As `scores.score` takes it.

    Raises
    ------
    VolumeError
        When the volumes do not match, or are not finite.
    """
    if not isinstance(predicted, Prediction) and len(predicted) < 2:
        return unknown(session, method, ONE_SAMPLE, person=person)
    known = predicted if isinstance(predicted, Prediction) else Prediction.of(predicted)
    check_pair(real, known.mean, mask)
    check_pair(real, known.spread, mask)
    if known.samples is not None and known.samples < 2:
        return unknown(session, method, ONE_SAMPLE, person=person)
    if not known.spread[mask].any():
        same = "the spread is 0 in the whole brain: all samples are the same"
        return unknown(session, method, same, person=person)
    error, spread = uncertainty.error_and_spread(real, known, mask=mask)
    ratios = uncertainty.error_ratios(real, known, mask=mask)
    stack = None if isinstance(predicted, Prediction) else predicted
    return SubjectUncertainty(
        method,
        *_who(session, person),
        known.samples,
        error=error,
        spread=spread,
        coverage={level: uncertainty.coverage(real, known, mask=mask, level=level) for level in levels},
        width={level: uncertainty.width(known, mask=mask, level=level) for level in levels},
        within=_order(real, known, mask),
        curve=uncertainty.reliability(real, known, mask=mask),
        ratios=np.asarray(
            np.quantile(ratios, np.linspace(0, 1, QUANTILES), method="inverted_cdf"), np.float64
        ),
        regions={} if stack is None or grid is None else _regions(real, stack, grid, levels),
    )


def read_uncertainty(
    session: Session, folder: Path, *, method: str, mask: Mask | None = None, person: str | None = None
) -> SubjectUncertainty:
    """Measure a session from what `pasta synthesize` wrote: PET, spread and their sidecar.

    Parameters
    ----------
    mask
        (x, y, z), the brain; without one that of the session's MRI.
    person
        As `scores.score` takes it.

    Raises
    ------
    VolumeError
        When a file is missing or unreadable, or the volumes lie on different grids.
    """
    path = synthetic_path(folder, session)
    made, samples = read_volume(path, unit="SUVR"), _samples(path)
    if samples == 1 or not spread_path(path).is_file():
        return unknown(session, method, ONE_SAMPLE, person=person)
    real, spread = read_volume(session.pet, unit="SUVR"), read_volume(spread_path(path), unit="SUVR")
    for name, volume in (("synthetic PET", made), ("spread", spread)):
        refuse_other_grid(real, volume, names=("real PET", name))
    brain = brain_mask(read_volume(session.mri).data) if mask is None else mask
    predicted = Prediction(made.data, spread.data, samples)
    return measure_uncertainty(session, real.data, predicted, method=method, mask=brain, person=person)


def unknown(session: Session, method: str, why: str, *, person: str | None = None) -> SubjectUncertainty:
    """Return the record of a session on which nothing can be said, with the reason."""
    return SubjectUncertainty(method, *_who(session, person), None, why=why)


def _who(session: Session, person: str | None) -> tuple[str, str, str, str]:
    who = session.person if person is None else person
    return session.subject, session.session, session.site, who


def _samples(path: Path) -> int:
    sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
    try:
        about = json.loads(sidecar.read_text(encoding="utf-8"))
        return 1 if about["Method"] == "preview" else int(about["Sampling"]["samples"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise VolumeError(
            f"{sidecar}: does not say how many samples; synthesise the session again"
        ) from error


def _order(real: Array, known: Prediction, mask: Mask) -> float | None:
    try:
        return uncertainty.rank_correlation(real, known, mask=mask)
    except VolumeError:
        return None


def _regions(
    real: Array, stack: Array, grid: Grid, levels: Sequence[float]
) -> dict[str, dict[float, tuple[bool, float]]]:
    truth = uncertainty.region_samples(real[None], grid=grid)
    drawn = uncertainty.region_samples(stack, grid=grid)
    return {
        name: {level: uncertainty.covers(float(truth[name][0]), samples, level=level) for level in levels}
        for name, samples in drawn.items()
        if np.ptp(samples) > 0
    }
