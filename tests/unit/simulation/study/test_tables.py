# SPDX-License-Identifier: Apache-2.0
"""A study of several tables: nobody becomes one person with another, and nobody is there twice."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pasta_model.data.manifest import Session, write_manifest
from pasta_model.data.splits import people
from pasta_model.errors import ManifestError
from simulation.study.tables import read_tables

Make = Callable[..., Session]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def table(name: str, *sessions: Session) -> Path:
        write_manifest(tmp_path / f"{name}.tsv", sessions)
        return tmp_path / f"{name}.tsv"

    return table


def refused(*paths: Path) -> str:
    with pytest.raises(ManifestError) as error:
        read_tables(paths)
    return str(error.value)


def test_two_hospitals_that_number_alike_are_refused_and_all_is_said_at_once(
    make_session: Make, write: Write
) -> None:
    alder = write("alder", *(make_session(f"sub-{n}", site="alder") for n in (1, 2)))
    birch = write("birch", *(make_session(f"sub-{n}", site="birch", session="m06") for n in (1, 2)))
    message = refused(alder, birch)
    for subject in ("sub-1", "sub-2"):
        assert f"{subject}: at alder in {alder} and at birch in {birch}; rename one" in message


def test_a_session_in_two_tables_is_refused_naming_both(make_session: Make, write: Write) -> None:
    old = write("old", *(make_session(f"sub-{n}") for n in (1, 2, 3)))
    new = write("new", *(make_session(f"sub-{n}") for n in (2, 3, 4)))
    message = refused(old, new)
    assert "2 problem(s)" in message
    assert f"sub-2_bl: in {new} and {old}" in message
    assert f"sub-3_bl: in {new} and {old}" in message


def test_a_rid_makes_one_person_of_two_rows_only_where_both_have_it(make_session: Make, write: Write) -> None:
    first = write("first", make_session("sub-1", site="alder", rid="0017"))
    moved = write("moved", make_session("sub-1", site="birch", rid="17", session="m06"))
    found = read_tables([first, moved])
    assert [s.site for s in found] == ["alder", "birch"]
    assert set(people(found).values()) == {"rid:17"}
    without = write("without", make_session("sub-1", site="birch", session="m12"))
    assert "give both the RID if they are one" in refused(first, without)


def test_two_rids_under_one_name_are_refused_also_at_one_site(make_session: Make, write: Write) -> None:
    first = write("first", make_session("sub-1", rid="17"))
    second = write("second", make_session("sub-1", rid="18", session="m06"))
    assert f"sub-1: is rid:17 in {first} and rid:18 in {second}; wanted one RID" in refused(first, second)


def test_visits_of_a_person_may_stand_in_several_tables_of_a_site(make_session: Make, write: Write) -> None:
    first = write("first", make_session("sub-1", split=None), make_session("sub-2", split=None))
    later = write("later", make_session("sub-1", split=None, session="m06"))
    assert [s.name for s in read_tables([first, later])] == ["sub-1_bl", "sub-2_bl", "sub-1_m06"]


def test_a_table_is_named_once(make_session: Make, write: Write) -> None:
    table = write("people", make_session("sub-1"))
    again = Path(os.path.join(table.parent, "..", table.parent.name, table.name))  # noqa: PTH118
    message = refused(table, again)
    assert "named 2 times, wanted once" in message
    assert "1 problem(s)" in message
