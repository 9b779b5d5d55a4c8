# SPDX-License-Identifier: Apache-2.0
"""Overlap of hypometabolism by method, diagnosis and threshold, with intervals over persons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.manifest import DIAGNOSES
from pasta_model.evaluation.estimates import Estimate, bootstrap
from pasta_model.evaluation.groups import few, suppressed, told
from pasta_model.norms.hypometabolism import (
    SMALLEST_CLUSTER_ML,
    THRESHOLDS,
    SubjectOverlap,
    overlap_of,
)
from pasta_model.norms.people import NORMAL

ALL = "all"
_Value = Callable[[SubjectOverlap], float | None]
_NOT_COMPUTED = Estimate(None, why="not computed")


@dataclass(frozen=True)
class OverlapRow:
    """Hypometabolism of synthetic and real PETs in a group; shares in [0, 1], volumes in ml.

    Attributes
    ----------
    diagnosis
        Of the group, or "all".
    subjects
        Persons; one with several visits counts once here, and in each mean with every visit.
    dice, sensitivity, precision
        Means over the visits that define them; not available where no visit does. Two empty maps have no
        Dice: a healthy subject's is neither 0 nor 1.
    cluster_sensitivity
        Share of the group's real clusters that meet the synthetic map of the same visit: pathology kept.
    cluster_specificity
        In the row of cognitively normal subjects only: share of their visits whose synthetic PET shows no
        cluster that does not meet the real map, so no invented pathology. Clusters that the real PET shows
        too are no fault of the synthetic one.
    cluster_precision
        Share of the group's synthetic clusters that meet the real map.
    real_ml, synthetic_ml, invented_ml, lost_ml, kept_ml
        Mean volume below the threshold in the real PET, in the synthetic one, in the synthetic one only, in
        the real one only, and in both.
    hidden
        Why the group is not shown; empty where it is.
    """

    method: str
    diagnosis: str
    threshold: float
    subjects: int
    dice: Estimate
    sensitivity: Estimate
    precision: Estimate
    cluster_sensitivity: Estimate
    cluster_specificity: Estimate
    real_ml: Estimate
    synthetic_ml: Estimate
    invented_ml: Estimate
    cluster_precision: Estimate = _NOT_COMPUTED
    lost_ml: Estimate = _NOT_COMPUTED
    kept_ml: Estimate = _NOT_COMPUTED
    hidden: str = ""

    @property
    def count(self) -> str:
        """Persons as a table tells them: of a hidden group no number."""
        return told(self.subjects, self.hidden)


def summarise_overlaps(
    overlaps: Sequence[SubjectOverlap], *, smallest: int = 0, seed: int = 0
) -> list[OverlapRow]:
    """Summarise by method, diagnosis (then "all") and threshold, in this order.

    Methods come in the order of their first row, diagnoses as in a manifest, thresholds from the weakest.

    Parameters
    ----------
    smallest
        Groups of fewer persons are not shown, nor what would tell them by difference (see
        `groups.suppressed`), nor a mean over fewer persons.
    seed
        Of the bootstrap; rows of one group draw the same persons for every method, so that they compare.
    """
    found = {o.diagnosis for o in overlaps}
    known = [d for d in DIAGNOSES if d in found] + sorted(found - set(DIAGNOSES) - {""})
    thresholds = sorted({o.threshold for o in overlaps}, reverse=True)
    rows = []
    for method in dict.fromkeys(o.method for o in overlaps):
        own = [o for o in overlaps if o.method == method]
        hidden = _hidden(own, smallest)
        for diagnosis in (*known, ALL):
            group = [o for o in own if diagnosis in (o.diagnosis, ALL)]
            for threshold in thresholds:
                part = [o for o in group if o.threshold == threshold]
                if part:
                    why = hidden.get(diagnosis, "")
                    rows.append(
                        _row(method, diagnosis, threshold, part, hidden=why, smallest=smallest, seed=seed)
                    )
    return rows


def _hidden(own: Sequence[SubjectOverlap], smallest: int) -> dict[str, str]:
    """Return which diagnoses of a method are not shown, and "all" where it is of too few."""
    sizes = {d: len({o.person for o in own if o.diagnosis == d}) for d in {o.diagnosis for o in own}}
    hidden = suppressed(sizes, smallest=smallest)
    return hidden | ({ALL: few(smallest)} if len({o.person for o in own}) < smallest else {})


def _row(
    method: str,
    diagnosis: str,
    threshold: float,
    group: Sequence[SubjectOverlap],
    *,
    hidden: str,
    smallest: int,
    seed: int,
) -> OverlapRow:
    below, cluster = f"z is nowhere below {threshold:g}", f"no cluster of {SMALLEST_CLUSTER_ML:g} ml"

    def estimate(why: str, part: _Value, whole: _Value = lambda o: 1.0) -> Estimate:
        if hidden:
            return Estimate(None, why=hidden)
        return _ratio(group, part, whole, why=why, smallest=smallest, seed=seed)

    return OverlapRow(
        method=method,
        diagnosis=diagnosis,
        threshold=threshold,
        subjects=len({o.person for o in group}),
        dice=estimate(f"{below} in either map", lambda o: o.dice),
        sensitivity=estimate(f"{below} in the real maps", lambda o: o.sensitivity),
        precision=estimate(f"{below} in the synthetic maps", lambda o: o.precision),
        cluster_sensitivity=estimate(
            f"{cluster} in the real maps", lambda o: o.kept_clusters, lambda o: o.real_clusters
        ),
        cluster_specificity=estimate(
            "of cognitively normal subjects only",
            lambda o: float(o.invented_clusters == 0) if diagnosis == NORMAL else None,
        ),
        cluster_precision=estimate(
            f"{cluster} in the synthetic maps", lambda o: o.true_clusters, lambda o: o.synthetic_clusters
        ),
        real_ml=estimate("", lambda o: o.real_ml),
        synthetic_ml=estimate("", lambda o: o.synthetic_ml),
        invented_ml=estimate("", lambda o: o.invented_ml),
        lost_ml=estimate("", lambda o: o.lost_ml),
        kept_ml=estimate("", lambda o: o.shared_ml),
        hidden=hidden,
    )


def _ratio(
    group: Sequence[SubjectOverlap], part: _Value, whole: _Value, *, why: str, smallest: int, seed: int
) -> Estimate:
    """Estimate the sum of parts over the sum of wholes; rows without a part do not count."""
    pairs = [(value, whole(o)) if (value := part(o)) is not None else (0.0, 0.0) for o in group]
    parts, wholes = np.asarray(pairs, np.float64).T
    if 0 < len({o.person for o, size in zip(group, wholes, strict=True) if size}) < smallest:
        return Estimate(None, why=few(smallest))

    def ratio(rows: NDArray[np.intp]) -> float:
        total = wholes[rows].sum()
        if total == 0:
            raise ValueError(why)
        return float(parts[rows].sum() / total)

    return bootstrap([o.person for o in group], ratio, seed=seed, name="overlap")


__all__ = ["ALL", "THRESHOLDS", "OverlapRow", "SubjectOverlap", "overlap_of", "summarise_overlaps"]
