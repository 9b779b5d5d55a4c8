# SPDX-License-Identifier: Apache-2.0
"""Groups and which of them are shown: nobody can be computed from what is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.errors import ConfigError
from pasta_model.evaluation.groups import age_band, group_of, groups_of, persons, suppressed
from tests.support.scores import a_score


@pytest.mark.parametrize(
    ("age", "band"),
    [
        (18.0, "<65"),
        (64.99, "<65"),
        (65.0, "65-74"),
        (74.9, "65-74"),
        (75.0, "75-84"),
        (85.0, ">=85"),
        (101.0, ">=85"),
        (None, "unknown"),
    ],
)
def test_age_bands(age: float | None, band: str) -> None:
    assert age_band(age) == band


def test_groups_come_in_the_order_of_a_table() -> None:
    scores = [
        a_score("1", "B", diagnosis="Dementia", sex="", age=90.0),
        a_score("2", "A", diagnosis="CN", sex="M", age=None),
        a_score("3", "A", diagnosis="MCI", sex="F", age=60.0),
        a_score("4", "C", diagnosis="other", sex="F", age=70.0),
    ]
    assert list(groups_of(scores, "site")) == ["A", "B", "C"]
    assert list(groups_of(scores, "diagnosis")) == ["CN", "MCI", "Dementia", "other"]
    assert list(groups_of(scores, "sex")) == ["F", "M", "unknown"]
    assert list(groups_of(scores, "age")) == ["<65", "65-74", ">=85", "unknown"]
    assert [s.subject for s in groups_of(scores, "site")["A"]] == ["2", "3"]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="'scanner', wanted some of site, diagnosis, sex, age"):
        group_of(a_score("1"), "scanner")


def test_persons_count_once() -> None:
    assert persons([a_score("a"), a_score("a", session="m12"), a_score("b", person="rid:1")]) == 2
    assert persons([a_score("a", person="rid:1"), a_score("b", "B", person="rid:1")]) == 1


def test_small_groups_are_hidden() -> None:
    hidden = suppressed({"A": 3, "B": 4, "C": 9}, smallest=5)
    assert hidden == dict.fromkeys("AB", "fewer than 5 subjects, too few to tell")


def test_a_lone_small_group_takes_the_next_smallest_along() -> None:
    hidden = suppressed({"A": 3, "B": 20, "C": 9}, smallest=5)
    assert list(hidden) == ["A", "C"]
    assert hidden["C"] == "would tell by difference of a group with fewer than 5 subjects, too few to tell"


def test_small_groups_that_are_small_together_too() -> None:
    assert list(suppressed({"A": 1, "B": 2, "C": 9, "D": 8}, smallest=5)) == ["A", "B", "D"]


def test_without_a_policy_all_are_shown() -> None:
    assert suppressed({"A": 1, "B": 2}, smallest=0) == {}
    assert suppressed({"A": 1, "B": 2}, smallest=1) == {}
    assert list(suppressed({"A": 1}, smallest=2)) == ["A"]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(0, 12))
def test_total_minus_what_is_shown_is_never_a_small_group(sizes: list[int], smallest: int) -> None:
    groups = {f"g{i}": size for i, size in enumerate(sizes)}
    hidden = suppressed(groups, smallest=smallest)
    assert {name for name, size in groups.items() if size < smallest} <= set(hidden)
    rest = sum(groups[name] for name in hidden)
    shown = len(groups) - len(hidden)
    assert not hidden or not shown or (rest >= smallest and len(hidden) > 1)
