# SPDX-License-Identifier: Apache-2.0
"""Splits: properties that hold for every cohort."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.data.manifest import DIAGNOSES, Session
from pasta_model.data.splits import apply_splits, assign_splits, refuse_leakage
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
