# SPDX-License-Identifier: Apache-2.0
"""Scores of predictions, by scikit-learn, with intervals over persons.

What counts once is a person in one state: visits of a person with the same diagnosis are averaged, so that
who comes often does not count more; who fell ill in between counts once in either state. Folds are pooled.
Intervals draw persons, with all their states.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from pasta_model.diagnosis.results import DiagnosisRow, Prediction
from pasta_model.diagnosis.tasks import TASKS
from pasta_model.errors import ManifestError
from pasta_model.evaluation.estimates import RESAMPLES, Estimate, bootstrap

Labels = NDArray[np.intp]
Probabilities = NDArray[np.float64]
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


def balanced_accuracy(labels: Labels, probabilities: Probabilities) -> float:
    """Mean over the classes of the share that is recognised; the most probable class is the answer."""
    return float(balanced_accuracy_score(labels, probabilities.argmax(axis=1)))


def macro_f1(labels: Labels, probabilities: Probabilities) -> float:
    """Mean over the classes of F1; a class that is never named has 0."""
    classes = list(range(probabilities.shape[1]))
    answers = probabilities.argmax(axis=1)
    return float(f1_score(labels, answers, labels=classes, average="macro", zero_division=0.0))


def auc(labels: Labels, probabilities: Probabilities) -> float:
    """Area under the ROC curve; of three classes the mean of each against the others."""
    scores = probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities
    return float(roc_auc_score(labels, scores, multi_class="ovr", average="macro"))


def row_of(predictions: Sequence[Prediction], *, seed: int, resamples: int = RESAMPLES) -> DiagnosisRow:
    """Score the predictions of one task, reader and pair of inputs."""
    first, found = predictions[0], readings_of(predictions)

    def estimate(measure: Callable[[Labels, Probabilities], float]) -> Estimate:
        return bootstrap(
            found.people,
            lambda rows: measure(*_complete(found, rows)),
            seed=seed,
            name="diagnosis",
            resamples=resamples,
        )

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


@dataclass(frozen=True, eq=False)
class Scoring:
    """What a process needs to score a row."""

    predictions: tuple[Prediction, ...]
    seed: int
    resamples: int


def score(scoring: Scoring) -> DiagnosisRow:
    """Score a row, in any process."""
    return row_of(scoring.predictions, seed=scoring.seed, resamples=scoring.resamples)


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
    return bootstrap(
        first.people,
        lambda rows: auc(*_complete(first, rows)) - auc(*_complete(second, rows)),
        seed=seed,
        name="diagnosis",
        resamples=resamples,
    )


def _complete(found: Readings, rows: NDArray[np.intp]) -> tuple[Labels, Probabilities]:
    """Return rows, or refuse those without every class: the resample is left out."""
    labels, probabilities = found.labels[rows], found.probabilities[rows]
    if len(np.unique(labels)) < probabilities.shape[1]:
        raise ValueError("not every diagnosis is among these subjects")
    return labels, probabilities
