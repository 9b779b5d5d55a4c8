# SPDX-License-Identifier: Apache-2.0
"""Numbers of persons that a study tells: none of too few, nor what would tell one by difference."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.data.manifest import Session
from simulation.study.cohort import People
from simulation.study.counts import counted, in_all, table_of_sites, without_few

FEW = "fewer than 5"
SPLITS = ("train", "valid", "test")
Counts = Mapping[str, Mapping[str, tuple[int, int, int]]]


def people_of(counts: Counts, *, held_out: tuple[str, ...] = ()) -> People:
    """Return people from counts of CN, MCI and Dementia by site and split."""
    sessions = [
        Session(f"sub-{site}{split}{diagnosis}{n}", "bl", site, diagnosis, Path(), Path(), split=split)
        for site, splits in counts.items()
        for split, numbers in splits.items()
        for diagnosis, number in zip(("CN", "MCI", "Dementia"), numbers, strict=True)
        for n in range(number)
    ]
    return People(tuple(sessions), tuple(s for s in counts if s not in held_out), held_out)


def test_a_number_of_too_few_is_not_told() -> None:
    assert [counted(n, smallest=5) for n in (5, 4)] == ["5", FEW]
    assert counted(4, smallest=0) == "4"


def test_a_reason_tells_no_number_of_too_few() -> None:
    reason = "A: sums over 3 person(s) would leave; 12 sessions, 4 folds, 2 persons"
    assert without_few(reason, smallest=5) == (
        f"A: sums over {FEW} person(s) would leave; 12 sessions, 4 folds, {FEW} persons"
    )


def test_a_site_of_few_is_not_told_row_by_row() -> None:
    found = people_of(
        {
            "alder": {"train": (6, 5, 5), "valid": (5, 5, 5), "test": (6, 6, 6)},
            "birch": {"train": (1, 2, 1), "valid": (0, 0, 1), "test": (1, 1, 0)},
            "cedar": {"test": (3, 0, 0)},
        },
        held_out=("cedar",),
    )
    assert table_of_sites(found)[1] == ("birch", "4", "1", "2", "2", "3", "2", "")
    rows = {row[0]: row[1:] for row in table_of_sites(found, smallest=5)}
    assert rows["birch"] == (*[FEW] * 6, "")
    assert rows["cedar"] == (*[FEW] * 6, "held out")
    assert rows["alder"][:3] == ("not shown", "not shown", "18"), "a total less alder would be birch"
    assert "not shown" in rows["alder"][3:], "the diagnoses add up to the splits"


def test_in_all_there_is_no_number_that_tells_a_split_of_few() -> None:
    assert in_all(people_of({"A": {"train": (5, 5, 5), "test": (6, 0, 0)}}), smallest=5) == "21"
    assert in_all(people_of({"A": {"train": (5, 5, 5), "test": (2, 0, 0)}}), smallest=5) == "not shown"
    assert in_all(people_of({"A": {"train": (1, 0, 0), "test": (2, 0, 0)}}), smallest=5) == FEW


numbers = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
places = st.dictionaries(
    st.sampled_from("ABC"), st.fixed_dictionaries(dict.fromkeys(SPLITS, numbers)), min_size=2
)


@pytest.mark.slow
@given(places)
def test_no_number_of_few_is_told_or_left_alone(counts: Counts) -> None:
    found = people_of(counts)
    plain, told = table_of_sites(found), table_of_sites(found, smallest=5)
    for before, after in zip(plain, told, strict=True):
        assert all(cell == number for cell, number in zip(after, before, strict=True) if cell.isdigit())
        assert not any(cell.isdigit() and 0 < int(cell) < 5 for cell in after[1:7])
        untold = [int(n) for n, cell in zip(before[1:7], after[1:7], strict=True) if not cell.isdigit()]
        assert len(untold) != 1, "the sums of splits and of diagnoses are the same"
    for column in (1, 2, 3):
        there = [(int(b[column]), a[column]) for b, a in zip(plain, told, strict=True) if int(b[column])]
        hidden = [number for number, cell in there if not cell.isdigit()]
        assert not hidden or len(hidden) == len(there) or (len(hidden) > 1 and sum(hidden) >= 5)
