# SPDX-License-Identifier: Apache-2.0
"""Scores of predictions, with intervals over persons.

They are scikit-learn's balanced_accuracy_score, f1_score and roc_auc_score (the tests hold them to it),
but counted once and only weighted anew in each of the thousand resamples: forty times faster.

What counts once is a person in one state: visits of a person with the same diagnosis are averaged, so that
who comes often does not count more; who fell ill in between counts once in either state. Folds are pooled.
Intervals draw persons, with all their states.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pasta_model.diagnosis.inputs import MRI, REAL_PET
from pasta_model.diagnosis.results import AucDifference, DiagnosisRow, Prediction
from pasta_model.diagnosis.tasks import TASKS
from pasta_model.errors import ManifestError
from pasta_model.evaluation.estimates import RESAMPLES, Estimate, bootstrap

Labels = NDArray[np.intp]
Probabilities = NDArray[np.float64]
Rows = NDArray[np.intp]
Statistic = Callable[[Rows], float]
Kind = tuple[str, str, str, str]  # task, reader, trained on, applied to


@dataclass(frozen=True, eq=False)
class Readings:
    """Persons in one state each: labels (N,), mean probabilities (N, C)."""

    people: tuple[str, ...]
    labels: Labels
    probabilities: Probabilities


def readings_of(predictions: Sequence[Prediction]) -> Readings:
    """Average the visits of each person with the same diagnosis; persons and states in order."""
    task = TASKS[predictions[0].task]
    found: dict[tuple[str, int], list[tuple[float, ...]]] = {}
    for each in predictions:
        found.setdefault((each.person, task.label(each.diagnosis)), []).append(each.probabilities)
    states = sorted(found)
    return Readings(
        people=tuple(person for person, _ in states),
        labels=np.array([label for _, label in states], dtype=np.intp),
        probabilities=np.array([np.mean(found[state], axis=0) for state in states]),
    )


def balanced_accuracy(found: Readings) -> Statistic:
    """Mean over the classes of the share that is recognised; the most probable class is the answer."""
    confusion = _confusion(found)

    def statistic(rows: Rows) -> float:
        counts = confusion(rows)
        return float((counts.diagonal() / counts.sum(axis=1)).mean())

    return statistic


def macro_f1(found: Readings) -> Statistic:
    """Mean over the classes of F1; a class that is never named has 0."""
    confusion = _confusion(found)

    def statistic(rows: Rows) -> float:
        counts = confusion(rows)
        return float((2 * counts.diagonal() / (counts.sum(axis=0) + counts.sum(axis=1))).mean())

    return statistic


def auc(found: Readings) -> Statistic:
    """Area under the ROC curve, by Mann and Whitney; of three classes the mean of each against the others."""
    classes = found.probabilities.shape[1]
    scored = range(classes) if classes > 2 else (1,)
    inside = [found.labels == label for label in scored]
    above = [_above(found.probabilities[:, label]) for label in scored]

    def statistic(rows: Rows) -> float:
        _refuse_incomplete(found.labels[rows], classes)
        times = np.bincount(rows, minlength=len(found.labels)).astype(np.float64)
        areas = [
            (times * ours) @ pairs @ (times * ~ours) / (times[ours].sum() * times[~ours].sum())
            for ours, pairs in zip(inside, above, strict=True)
        ]
        return float(np.mean(areas))

    return statistic


def row_of(predictions: Sequence[Prediction], *, seed: int, resamples: int = RESAMPLES) -> DiagnosisRow:
    """Score the predictions of one task, reader and pair of inputs."""
    first, found = predictions[0], readings_of(predictions)

    def estimate(measure: Callable[[Readings], Statistic]) -> Estimate:
        return bootstrap(found.people, measure(found), seed=seed, name="diagnosis", resamples=resamples)

    return DiagnosisRow(
        task=first.task,
        reader=first.reader,
        trained_on=first.trained_on,
        applied_to=first.applied_to,
        subjects=len(set(found.people)),
        balanced_accuracy=estimate(balanced_accuracy),
        f1=estimate(macro_f1),
        auc=estimate(auc),
    )


def unavailable_row(kind: Kind, *, subjects: int, why: str) -> DiagnosisRow:
    """Return the row of a task that cannot be set."""
    nothing = Estimate(None, why=why)
    return DiagnosisRow(*kind, subjects, nothing, nothing, nothing)


def by_kind(predictions: Sequence[Prediction]) -> Mapping[Kind, list[Prediction]]:
    """Group predictions by task, reader and inputs."""
    found: dict[Kind, list[Prediction]] = {}
    for each in predictions:
        found.setdefault((each.task, each.reader, each.trained_on, each.applied_to), []).append(each)
    return found


def auc_difference(
    predictions: Sequence[Prediction], one: Kind, other: Kind, *, seed: int, resamples: int = RESAMPLES
) -> Estimate:
    """AUC of one row minus that of another, on the same persons, with a paired interval.

    Parameters
    ----------
    one, other
        (task, reader, trained on, applied to), of one task.

    Raises
    ------
    ManifestError
        When there are no such predictions, or the two are not of the same sessions.
    """
    kinds = by_kind(predictions)
    for kind in (one, other):
        if kind not in kinds:
            raise ManifestError(f"no predictions of {kind}; found {', '.join(map(str, kinds)) or 'none'}")
    sessions = [{(p.person, p.session, p.diagnosis) for p in kinds[kind]} for kind in (one, other)]
    if one[0] != other[0] or sessions[0] != sessions[1]:
        raise ManifestError(
            f"{one} and {other} are not of the same task and sessions; a difference needs pairs"
        )
    first, second = (readings_of(kinds[kind]) for kind in (one, other))
    ours, theirs = auc(first), auc(second)
    return bootstrap(
        first.people,
        lambda rows: ours(rows) - theirs(rows),
        seed=seed,
        name="diagnosis",
        resamples=resamples,
    )


def auc_differences(
    predictions: Sequence[Prediction],
    *,
    against: Sequence[str] = (REAL_PET, MRI),
    seed: int,
    resamples: int = RESAMPLES,
) -> list[AucDifference]:
    """Lay every input beside the references, by task and reader; one that was not read has no row.

    Where two are not of the same sessions the difference is not available, with that reason.
    """
    kinds = by_kind(predictions)
    rows = []
    for kind in kinds:
        for name in against:
            other = (kind[0], kind[1], name, name)
            if other in kinds and other != kind:
                rows.append(AucDifference(*kind, name, _paired(predictions, kind, other, seed, resamples)))
    return rows


def _paired(
    predictions: Sequence[Prediction], kind: Kind, other: Kind, seed: int, resamples: int
) -> Estimate:
    own = [p for p in predictions if (p.task, p.reader, p.trained_on, p.applied_to) in (kind, other)]
    try:
        return auc_difference(own, kind, other, seed=seed, resamples=resamples)
    except ManifestError:
        return Estimate(None, why="not of the same sessions: a difference needs pairs")


def _confusion(found: Readings) -> Callable[[Rows], NDArray[np.float64]]:
    """Return what counts rows by diagnosis and answer, (C, C)."""
    classes = found.probabilities.shape[1]
    cells = found.labels * classes + found.probabilities.argmax(axis=1)

    def count(rows: Rows) -> NDArray[np.float64]:
        _refuse_incomplete(found.labels[rows], classes)
        return np.bincount(cells[rows], minlength=classes**2).reshape(classes, classes).astype(np.float64)

    return count


def _above(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Whether row i scores above row j, (N, N); 1/2 where they tie."""
    return np.asarray((scores[:, None] > scores) + 0.5 * (scores[:, None] == scores))


def _refuse_incomplete(labels: Labels, classes: int) -> None:
    """Refuse rows without every class: the resample is left out."""
    if not np.bincount(labels, minlength=classes).all():
        raise ValueError("not every diagnosis is among these subjects")
