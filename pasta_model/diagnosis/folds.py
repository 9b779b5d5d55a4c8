# SPDX-License-Identifier: Apache-2.0
"""Who is held out when: by person, each diagnosis spread evenly over the folds."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from pasta_model.diagnosis.tasks import Task
from pasta_model.seeding import numpy_generator


def person_folds(people: Sequence[str], labels: Sequence[int], *, folds: int, seed: int) -> NDArray[np.intp]:
    """Return the fold that each session is held out in, (sessions,), from 0 to `folds` - 1.

    All sessions of a person fall into one. Persons are spread by the worst of their diagnoses, so that each
    fold has as many of each as any other, give or take one. The order of the sessions does not matter.

    Parameters
    ----------
    people, labels
        Whose each session is, and its diagnosis, as a number that is higher for a worse one.

    Raises
    ------
    ValueError
        When no diagnosis has a person for each fold.
    """
    worst: dict[str, int] = {}
    for person, label in zip(people, labels, strict=True):
        worst[person] = max(label, worst.get(person, label))
    names = sorted(worst)
    state = int(numpy_generator(seed, "diagnosis", "folds").integers(2**31))
    split = StratifiedKFold(folds, shuffle=True, random_state=state).split(names, [worst[n] for n in names])
    held = {names[i]: fold for fold, (_, rows) in enumerate(split) for i in rows}
    return np.array([held[person] for person in people], dtype=np.intp)


def untrainable(task: Task, labels: NDArray[np.intp], held: NDArray[np.intp]) -> str:
    """Return why a reader of some fold could not be trained, "" if each sees every diagnosis of the task."""
    for fold in np.unique(held):
        there = set(labels[held != fold].tolist())
        missing = [name for label, name in enumerate(task.classes) if label not in there]
        if missing:
            return f"{' and '.join(missing)}: all persons fall into one fold"
    return ""
