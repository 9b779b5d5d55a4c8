# SPDX-License-Identifier: Apache-2.0
"""Folds: nobody is on both sides, and every diagnosis is everywhere."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.diagnosis.folds import person_folds, untrainable
from pasta_model.diagnosis.tasks import CN_MCI_DEMENTIA


@st.composite
def visits(draw) -> tuple[list[str], list[int], int]:
    """At least a person of each class for each fold, with visits in any order; some fall ill in between."""
    folds = draw(st.integers(2, 4))
    rows = []
    for label in range(3):
        for number in range(draw(st.integers(folds, 9))):
            seen = draw(st.lists(st.integers(0, label), max_size=3))
            rows += [(f"p{label}{number}", found) for found in [label, *seen]]
    rows = draw(st.permutations(rows))
    return [person for person, _ in rows], [label for _, label in rows], folds


@given(visits(), st.integers(0, 5))
def test_folds_never_split_a_person(cohort: tuple[list[str], list[int], int], seed: int) -> None:
    people, labels, folds = cohort
    held = person_folds(people, labels, folds=folds, seed=seed)
    places, members = defaultdict(set), defaultdict(set)
    for person, fold in zip(people, held, strict=True):
        places[person].add(fold)
        members[person[1], fold].add(person)  # the worst diagnosis stands in the name
    assert all(len(where) == 1 for where in places.values())
    assert set(held) == set(range(folds))
    for label in "012":
        counts = [len(members[label, fold]) for fold in range(folds)]
        assert max(counts) - min(counts) <= 1


def test_order_of_sessions_does_not_matter_and_the_seed_does() -> None:
    people, labels = [f"p{n:02}" for n in range(40)], [n % 2 for n in range(40)]
    held = person_folds(people, labels, folds=4, seed=1)
    back = person_folds(people[::-1], labels[::-1], folds=4, seed=1)
    np.testing.assert_array_equal(held, back[::-1])
    assert (held != person_folds(people, labels, folds=4, seed=2)).any()


@pytest.mark.parametrize(
    ("held", "why"), [([0, 1, 0, 1, 0, 0], "Dementia: all persons fall into one fold"), ([0, 1] * 3, "")]
)
def test_a_fold_without_a_diagnosis_to_learn_from(held: list[int], why: str) -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert untrainable(CN_MCI_DEMENTIA, labels, np.array(held)) == why
