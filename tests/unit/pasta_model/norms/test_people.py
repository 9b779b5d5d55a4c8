# SPDX-License-Identifier: Apache-2.0
"""Whose PETs make norms: healthy at every visit, once, with an age; alike from a table and from a store."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pasta_model.data.manifest import Session
from pasta_model.data.store import prepare_store
from pasta_model.data.volume import read_volume
from pasta_model.errors import VolumeError
from pasta_model.norms.people import choose_entries, choose_sessions, people_of_sessions, people_of_store


def visit(
    subject: str, session: str = "bl", diagnosis: str = "CN", age: float | None = 70, **more
) -> Session:
    clinical = {"age": age}
    return Session(subject, session, "A", diagnosis, Path("m"), Path("p"), clinical, **more)


def test_one_visit_of_each_healthy_person() -> None:
    table = [
        visit("late", "m24", age=72),
        visit("late", "bl", age=70),
        visit("ill", diagnosis="Dementia"),
        visit("converts", "bl"),
        visit("converts", "m12", diagnosis="MCI"),
        visit("plain"),
    ]
    chosen = choose_sessions(table)
    assert (chosen.rows, chosen.ageless) == ([1, 5], 0)


def test_the_first_visit_with_an_age_counts_and_who_has_none_is_counted() -> None:
    table = [visit("a", "bl", age=None), visit("a", "m12", age=71), visit("b", age=None)]
    assert choose_sessions(table) == ([1], 1)


def test_names_of_one_person_are_one_person() -> None:
    assert choose_sessions([visit("a", rid="12"), visit("b", "m12", age=69, rid="0012")]).rows == [1]


def test_only_people_of_a_split() -> None:
    table = [visit("a", split="train"), visit("b", split="test"), visit("c", split="train")]
    assert choose_sessions(table, split="train").rows == [0, 2]
    assert choose_sessions(table, split="valid").rows == []


def test_a_store_gives_the_same_people_as_its_table(make_session, tmp_path) -> None:
    table = [
        make_session("sub-A1"),
        make_session("sub-A2", diagnosis="MCI"),
        make_session("sub-A3", split="test"),
        make_session("sub-A4"),
    ]
    store = prepare_store(tmp_path / "A", table, spacing=3.0)
    assert choose_entries(store).rows == choose_sessions(table, split="train").rows == [0, 3]
    known = store.template
    pairs = zip(people_of_sessions(table, split="train"), people_of_store(store), strict=True)
    for whole, part in pairs:
        assert (whole.person, whole.age) == (part.person, part.age)
        assert part.pet.unit == whole.pet.unit == "SUVR"
        np.testing.assert_array_equal(part.pet.affine, known.crop.affine)
        np.testing.assert_allclose(part.pet.data, whole.pet.data[known.slices], atol=2e-3)  # float16
        np.testing.assert_array_equal(part.brain, whole.brain[known.slices])


def test_people_come_with_their_own_pet(make_session) -> None:
    table = [make_session("sub-A1"), make_session("sub-A2")]
    for one, session in zip(people_of_sessions(table), table, strict=True):
        np.testing.assert_array_equal(one.pet.data, read_volume(session.pet).data)
        assert one.age == session.clinical["age"]


def test_a_scan_that_cannot_be_read_is_named(make_session, tmp_path) -> None:
    broken = replace(make_session("sub-A1"), pet=tmp_path / "gone.nii")
    with pytest.raises(VolumeError, match=r"sub-A1_bl: .*gone\.nii"):
        list(people_of_sessions([broken]))
