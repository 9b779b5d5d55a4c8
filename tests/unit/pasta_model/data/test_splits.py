# SPDX-License-Identifier: Apache-2.0
"""Splits: properties that hold for every cohort."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.data.manifest import DIAGNOSES, SPLITS, Session
from pasta_model.data.splits import apply_splits, assign_splits, people, refuse_leakage
from pasta_model.errors import ConfigError, SplitError

PATH = Path("scan.nii")
SEEDS = st.integers(0, 2**32)


def session(subject: str, site: str = "A", visit: str = "bl", diagnosis: str = "CN", **more) -> Session:
    return Session(subject, visit, site, diagnosis, PATH, PATH, **more)


@st.composite
def cohorts(draw: st.DrawFn) -> list[Session]:
    """One to three sites, each with a few subjects of one to three visits."""
    sessions = []
    for site in "ABC"[: draw(st.integers(1, 3))]:
        for number in range(draw(st.integers(1, 25))):
            visits = draw(st.lists(st.sampled_from(DIAGNOSES), min_size=1, max_size=3))
            sessions += [session(f"{site}{number}", site, f"v{v}", d) for v, d in enumerate(visits)]
    return sessions


@st.composite
def tangled_cohorts(draw: st.DrawFn) -> list[Session]:
    """Sites of their own persons, whose visits go under several names, some without the RID."""
    sessions = []
    for site in "AB"[: draw(st.integers(1, 2))]:
        numbers = st.tuples(st.integers(0, 9), st.integers(0, 4) | st.none(), st.sampled_from(DIAGNOSES))
        for visit, (name, rid, diagnosis) in enumerate(draw(st.lists(numbers, min_size=1, max_size=20))):
            # Site A has even RIDs, site B odd ones: nobody is at both.
            number = "" if rid is None else str(2 * rid + (site == "B"))
            sessions.append(session(f"{site}{name}", site, f"v{visit}", diagnosis, rid=number))
    return sessions


def linked(sessions: list[Session]) -> list[set[str]]:
    """Find who is one person the slow way: join groups that share a name or a RID until nothing changes."""
    groups = [{s.subject} | ({f"rid:{s.rid}"} if s.rid else set()) for s in sessions]
    while True:
        joined: list[set[str]] = []
        for group in groups:
            near = [other for other in joined if other & group]
            joined = [other for other in joined if not other & group] + [set.union(group, *near)]
        if len(joined) == len(groups):
            return joined
        groups = joined


@given(tangled_cohorts(), SEEDS, st.randoms(use_true_random=False))
def test_nobody_is_in_two_splits_whatever_the_names(sessions, seed, random) -> None:
    splits = assign_splits(sessions, seed=seed)
    assert set(splits) == {s.subject for s in sessions}
    for group in linked(sessions):
        assert len({splits[name] for name in group if not name.startswith("rid:")}) == 1
    refuse_leakage(apply_splits(sessions, splits))
    shuffled = list(sessions)
    random.shuffle(shuffled)
    assert assign_splits(shuffled, seed=seed) == splits


@given(tangled_cohorts(), st.randoms(use_true_random=False))
def test_people_are_those_who_are_linked(sessions, random) -> None:
    found = people(sessions)
    for group in linked(sessions):
        names = {name for name in group if not name.startswith("rid:")}
        assert {found[name] for name in names} <= group
        assert len({found[name] for name in names}) == 1
    assert len(set(found.values())) == len(linked(sessions))
    random.shuffle(sessions)
    assert people(sessions) == found


@given(tangled_cohorts(), SEEDS, st.data())
def test_given_splits_stay_and_the_rest_is_drawn(sessions, seed, data) -> None:
    persons = people(sessions)
    choice = st.sampled_from([None, *SPLITS])
    chosen = {person: data.draw(choice) for person in sorted(set(persons.values()))}
    # Of a person's names, some are in the given table.
    given = {s: str(chosen[p]) for s, p in persons.items() if chosen[p] and data.draw(st.booleans())}
    given["left-the-study"] = "test"
    splits = assign_splits(sessions, seed=seed, given=given)
    assert {subject: splits[subject] for subject in given} == given
    assert set(splits) == set(persons) | {"left-the-study"}
    apply_splits(sessions, splits)


@given(cohorts(), cohorts(), SEEDS)
def test_a_site_that_grows_keeps_its_splits_and_its_fractions(before, after, seed) -> None:
    old = assign_splits(before, seed=seed)
    after = [replace(s, subject=f"new-{s.subject}") for s in after]
    splits = assign_splits([*before, *after], valid=0.1, test=0.2, seed=seed, given=old)
    assert {subject: splits[subject] for subject in old} == old
    sites = {s.subject: s.site for s in [*before, *after]}
    for site in set(sites.values()):
        count = Counter(splits[subject] for subject in sites if sites[subject] == site)
        assert count["train"] >= 1
        if count.total() >= 3:
            assert abs(count["valid"] - 0.1 * count.total()) <= 1
            assert abs(count["test"] - 0.2 * count.total()) <= 1


def test_given_splits_that_fill_the_test_leave_the_new_to_train() -> None:
    # 10 at the site and 2 wanted in the test; 4 are given: none of the new 6 but one goes to valid.
    rows = [session(f"s{i}") for i in range(10)]
    splits = assign_splits(rows, seed=1, given={f"s{i}": "test" for i in range(4)})
    assert Counter(splits.values()) == {"test": 4, "valid": 1, "train": 5}


def test_the_worst_diagnosis_of_a_person_counts() -> None:
    # 5 converters (CN, later Dementia) and 15 healthy; 20 % of each group are held out.
    rows = [session(f"s{i}") for i in range(20)]
    rows += [session(f"s{i}", visit="m6", diagnosis="Dementia") for i in range(5)]
    rows += [session(f"s{i}", visit="m12", diagnosis="MCI") for i in range(5)]
    for order in (rows, rows[::-1]):
        splits = assign_splits(order, valid=0.0, test=0.2, seed=7)
        assert sum(splits[f"s{i}"] == "test" for i in range(5)) == 1
        assert sum(splits[f"s{i}"] == "test" for i in range(5, 20)) == 3


@given(cohorts(), SEEDS, st.randoms(use_true_random=False))
def test_no_leakage_and_no_influence_of_the_order(sessions, seed, random) -> None:
    splits = assign_splits(sessions, seed=seed)
    assert set(splits) == {s.subject for s in sessions}
    shuffled = list(sessions)
    random.shuffle(shuffled)
    assert assign_splits(shuffled, seed=seed) == splits
    for subject in splits:
        assert len({s.split for s in apply_splits(sessions, splits) if s.subject == subject}) == 1


@given(cohorts(), SEEDS)
def test_every_site_trains_and_fractions_are_near(sessions, seed) -> None:
    splits = assign_splits(sessions, valid=0.1, test=0.2, seed=seed)
    sites = {s.subject: s.site for s in sessions}
    for site in set(sites.values()):
        count = Counter(splits[subject] for subject in sites if sites[subject] == site)
        total = count.total()
        assert count["train"] >= 1
        if total < 3:
            assert count["train"] == total
        else:
            assert count["valid"] >= 1
            assert count["test"] >= 1
            assert abs(count["valid"] - 0.1 * total) <= 1
            assert abs(count["test"] - 0.2 * total) <= 1


@given(st.integers(1, 12), st.sampled_from([(0.4, 0.4), (0.1, 0.8), (0.45, 0.5), (0.0, 0.9)]), SEEDS)
def test_every_site_trains_with_unusual_fractions(subjects, fractions, seed) -> None:
    valid, test = fractions
    splits = assign_splits([session(f"s{i}") for i in range(subjects)], valid=valid, test=test, seed=seed)
    assert "train" in splits.values()


def test_sites_do_not_influence_each_other() -> None:
    here = [session(f"A{i}", "A") for i in range(9)]
    there = [session(f"B{i}", "B") for i in range(5)]
    alone = assign_splits(here, seed=3)
    together = assign_splits([*here, *there], seed=3)
    assert {subject: together[subject] for subject in alone} == alone


def test_seeds_give_different_splits() -> None:
    sessions = [session(f"s{i}") for i in range(30)]
    assert len({tuple(sorted(assign_splits(sessions, seed=seed).items())) for seed in range(5)}) == 5


def test_case_mix_is_kept() -> None:
    # 20 of each diagnosis, 20 % held out for the test: 4 of each.
    sessions = [session(f"{d}{i}", diagnosis=d) for d in DIAGNOSES for i in range(20)]
    splits = assign_splits(sessions, valid=0.0, test=0.2, seed=1)
    assert Counter(s.diagnosis for s in sessions if splits[s.subject] == "test") == dict.fromkeys(
        DIAGNOSES, 4
    )


def test_no_held_out_part_when_none_is_asked_for() -> None:
    splits = assign_splits([session(f"s{i}") for i in range(10)], valid=0.0, test=0.0, seed=1)
    assert set(splits.values()) == {"train"}


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (-0.1, 0.2), (0.0, 1.0)])
def test_impossible_fractions(fractions: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="nothing to train on"):
        assign_splits([session("s")], valid=fractions[0], test=fractions[1], seed=1)


class TestRefusals:
    def test_subject_at_two_sites(self) -> None:
        with pytest.raises(SplitError, match="s1: at sites A, B"):
            assign_splits([session("s1", "A"), session("s1", "B", "v2")], seed=1)

    def test_every_leaking_subject_is_named(self) -> None:
        rows = [
            session("s1", split="train"),
            session("s1", visit="m12", split="test"),
            session("s2", "A", split="train"),
            session("s2", "B", split="train"),
            session("s3", split="valid"),
        ]
        with pytest.raises(SplitError, match=r"(?s)2 problem.*s1: in splits test, train.*s2: at sites A, B"):
            refuse_leakage(rows)

    def test_two_names_of_one_rid_leak(self) -> None:
        rows = [session("s1", rid="7", split="train"), session("s2", rid="007", split="test")]
        with pytest.raises(SplitError, match=r"rid:7 \(s1, s2\): in splits test, train; wanted one"):
            refuse_leakage(rows)
        with pytest.raises(SplitError, match=r"rid:7 \(s1, s2\): in splits"):
            apply_splits([replace(row, split=None) for row in rows], {"s1": "train", "s2": "test"})

    def test_two_names_of_one_rid_at_two_sites(self) -> None:
        with pytest.raises(SplitError, match=r"rid:7 \(s1, s2\): at sites A, B"):
            assign_splits([session("s1", "A", rid="7"), session("s2", "B", rid="7")], seed=1)

    def test_a_rid_that_some_rows_lack_still_links(self) -> None:
        rows = [session("s1", split="train"), session("s1", visit="m6", rid="7", split="train")]
        with pytest.raises(SplitError, match=r"rid:7 \(s1, s2\): in splits"):
            refuse_leakage([*rows, session("s2", rid="7", split="valid")])

    def test_a_subject_called_like_a_rid_is_somebody_else(self) -> None:
        refuse_leakage([session("7", split="train"), session("s2", rid="7", split="test")])

    def test_given_splits_that_leak_or_are_unknown(self) -> None:
        rows = [session("s1", rid="7"), session("s2", rid="7"), session("s3")]
        with pytest.raises(
            SplitError, match=r"(?s)2 problem.*rid:7 \(s1, s2\): in splits test, train.*s3: split dev, wanted"
        ):
            assign_splits(rows, seed=1, given={"s1": "train", "s2": "test", "s3": "dev"})

    def test_splits_that_do_not_fit_the_manifest(self) -> None:
        rows = [session("s1", split="test"), session("s2")]
        with pytest.raises(
            SplitError, match=r"(?s)s1: manifest says test, splits say train.*s2: has no split"
        ):
            apply_splits(rows, {"s1": "train"})

    def test_apply_refuses_a_subject_at_two_sites(self) -> None:
        with pytest.raises(SplitError, match="at sites"):
            apply_splits([session("s1", "A"), session("s1", "B")], {"s1": "train"})

    def test_apply_keeps_everything_else(self) -> None:
        row = session("s1", clinical={"age": 70.0})
        assert apply_splits([row], {"s1": "valid"}) == (replace(row, split="valid"),)
