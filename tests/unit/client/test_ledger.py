# SPDX-License-Identifier: Apache-2.0
"""A site's privacy ledger: it forgets nothing, and counts what a person lost."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from client import ledger as ledger_module
from client.people import names
from client.spending import Limit
from pasta_model.errors import BudgetError
from pasta_model.privacy.accounting import Release
from tests.support.accounting import remember
from tests.support.ledgers import (
    DELTA,
    PEOPLE,
    STEP,
    content,
    lines_of,
    opened,
    oracle,
    release,
    reserve,
    spent,
)


@pytest.fixture(autouse=True)
def each_history_is_accounted_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A ledger of a run of two rounds."""
    ledger = opened(tmp_path)
    ledger.note_plan("first", PEOPLE, {"noise_multiplier": 1.1})
    for number in range(2):
        release(ledger, f"task-{number}", number=number)
    return tmp_path


class TestComposition:
    def test_epsilon_is_the_accountants_over_rounds_runs_and_reopened_ledgers(self, tmp_path: Path) -> None:
        history = [STEP, STEP, Release(1.1, 0.2, 3), Release(2.0, 0.05, 40), Release(10.0, 1.0, 1)]
        for number, one in enumerate(history):
            run = "first" if number < 3 else "second"
            release(opened(tmp_path), f"task-{number}", one, run=run, number=number)
            assert spent(opened(tmp_path)) == pytest.approx(oracle(*history[: number + 1]), rel=1e-9)
        assert spent(opened(tmp_path), run="first") == pytest.approx(oracle(*history[:3]), rel=1e-9)
        assert spent(opened(tmp_path), run="second") == pytest.approx(oracle(*history[3:]), rel=1e-9)
        assert spent(opened(tmp_path), run="third") == 0
        wanted = oracle(*history, accountant="prv")
        assert spent(opened(tmp_path), accountant="prv") == pytest.approx(wanted, abs=0.03)

    def test_a_person_pays_for_what_was_released_of_this_person_only(self, tmp_path: Path) -> None:
        dan, other = "sub-dan", Release(0.9, 0.3, 4)
        ledger = opened(tmp_path)
        release(ledger, "1", STEP, persons=PEOPLE)
        release(ledger, "2", other, run="second", persons=["sub-ada", dan])
        assert spent(ledger, dan) == pytest.approx(oracle(other), rel=1e-9)
        assert spent(ledger, "sub-bob") == pytest.approx(oracle(STEP), rel=1e-9)
        assert spent(ledger, "sub-ada") == pytest.approx(oracle(STEP, other), rel=1e-9)
        assert spent(ledger, "sub-eve") == 0
        assert spent(ledger, dan, "sub-bob", "sub-ada", "sub-eve") == spent(ledger, "sub-ada")

    def test_the_person_of_whom_most_was_released_decides(self, tmp_path: Path) -> None:
        ledger = opened(tmp_path)
        release(ledger, "1", STEP, persons=["sub-ada"])
        limit = Limit(1.01 * oracle(STEP), DELTA)
        release(ledger, "2", STEP, run="second", persons=["sub-bob", "sub-cyd"], limits=[limit])
        with pytest.raises(BudgetError):
            reserve(ledger, "3", STEP, run="third", persons=["sub-ada", "sub-dan"], limits=[limit])

    def test_two_mechanisms_of_a_round_compose(self, tmp_path: Path) -> None:
        ledger, error = opened(tmp_path), Release(10.0, 1.0, 1)
        release(ledger, "1")
        release(ledger, "2", error, mechanism="validation error")
        assert spent(ledger) == pytest.approx(oracle(STEP, error), rel=1e-9)

    def test_order_and_place_of_a_persons_name_do_not_matter(self, tmp_path: Path) -> None:
        ledger = opened(tmp_path)
        release(ledger, "1", persons=["sub-ada", "sub-bob"])
        release(ledger, "2", persons=["sub-bob", "sub-ada"])
        assert len(ledger.cohorts) == 1
        assert spent(ledger, "sub-bob") == pytest.approx(oracle(STEP, STEP), rel=1e-9)


def test_no_name_of_a_person_is_in_the_file(tmp_path: Path) -> None:
    release(opened(tmp_path), "1")
    assert content(tmp_path).keys() == {"ledger.jsonl", "ledger.jsonl.head"}
    for found in (*content(tmp_path).values(), (tmp_path / "store/state/ledger.json").read_bytes()):
        assert not [name for name in PEOPLE if name.encode() in found]
    assert (tmp_path / "ledger.jsonl").stat().st_mode & 0o077 == 0


def test_hashes_of_names_are_not_the_same_at_two_sites(tmp_path: Path) -> None:
    """Who has a list of names cannot hash them and look: the key is the ledger's own."""
    found = []
    for name in ("alder", "birch"):
        ledger = opened(tmp_path / name, site=name)
        release(ledger, "1")
        found.append(frozenset[str]().union(*ledger.cohorts.values()))
    assert len(found[0]) == len(found[1]) == len(PEOPLE)
    assert not found[0] & found[1]


class TestReservation:
    def test_it_counts_before_anything_is_released(self, tmp_path: Path) -> None:
        reserve(opened(tmp_path), "1")
        assert spent(opened(tmp_path)) == pytest.approx(oracle(STEP), rel=1e-9)

    def test_killed_between_reservation_and_release_the_same_task_goes_on(self, tmp_path: Path) -> None:
        reserve(opened(tmp_path), "1")
        before = content(tmp_path)
        reserve(opened(tmp_path), "1")
        reserve(opened(tmp_path), "1", limits=[Limit(1.01 * oracle(STEP), DELTA)])
        assert content(tmp_path) == before

    def test_another_task_pays_for_itself(self, tmp_path: Path) -> None:
        reserve(opened(tmp_path), "1")
        reserve(opened(tmp_path), "2")
        assert spent(opened(tmp_path)) == pytest.approx(oracle(STEP, STEP), rel=1e-9)

    def test_the_same_task_with_another_mechanism_pays_for_itself(self, tmp_path: Path) -> None:
        reserve(opened(tmp_path), "1")
        stronger = Release(0.7, 0.2, 5)
        reserve(opened(tmp_path), "1", stronger)
        assert spent(opened(tmp_path)) == pytest.approx(oracle(STEP, stronger), rel=1e-9)

    def test_the_same_task_on_other_people_pays_for_itself(self, tmp_path: Path) -> None:
        reserve(opened(tmp_path), "1", persons=["sub-ada"])
        reserve(opened(tmp_path), "1", persons=["sub-ada", "sub-bob"])
        assert spent(opened(tmp_path), "sub-ada") == pytest.approx(oracle(STEP, STEP), rel=1e-9)

    def test_what_was_released_is_released_no_second_time_for_nothing(self, tmp_path: Path) -> None:
        release(opened(tmp_path), "1")
        release(opened(tmp_path), "1")
        assert spent(opened(tmp_path)) == pytest.approx(oracle(STEP, STEP), rel=1e-9)
        with pytest.raises(BudgetError):
            reserve(opened(tmp_path), "1", limits=[Limit(1.01 * oracle(STEP, STEP), DELTA)])

    def test_reservation_that_another_took_the_place_of_is_used_by_nobody(self, tmp_path: Path) -> None:
        """Killed, then the people changed, then released twice: three releases, not two."""
        reserve(opened(tmp_path), "1", persons=["sub-ada"])
        reserve(opened(tmp_path), "1", persons=["sub-ada", "sub-bob"])
        for _ in range(2):
            release(opened(tmp_path), "1", persons=["sub-ada", "sub-bob"])
        assert spent(opened(tmp_path), "sub-bob") == pytest.approx(oracle(STEP, STEP), rel=1e-9)

    def test_noting_a_release_twice_changes_nothing(self, tmp_path: Path) -> None:
        release(opened(tmp_path), "1")
        before = content(tmp_path)
        opened(tmp_path).note_released("1")
        opened(tmp_path).note_released("never reserved")
        assert content(tmp_path) == before

    def test_two_processes_that_note_the_same_release(self, tmp_path: Path) -> None:
        """Both have read that it is open; the update is still known, and the next one still costs."""
        reserve(opened(tmp_path), "1")
        both = [opened(tmp_path), opened(tmp_path)]
        for ledger in both:
            ledger.note_released("1")
        assert opened(tmp_path).released("first", 0, "training") == 1
        release(opened(tmp_path), "1")
        assert opened(tmp_path).released("first", 0, "training") == 2
        assert spent(opened(tmp_path)) == pytest.approx(oracle(STEP, STEP), rel=1e-9)

    def test_what_is_known_of_a_round(self, tmp_path: Path) -> None:
        ledger = opened(tmp_path)
        assert ledger.released("first", 0, "training") == 0
        reserve(ledger, "1")
        assert opened(tmp_path).released("first", 0, "training") == 0, "reserved is not released"
        opened(tmp_path).note_released("1")
        found = opened(tmp_path)
        assert found.released("first", 0, "training") == 1
        assert found.released("first", 1, "training") == 0
        assert found.released("second", 0, "training") == 0
        assert found.released("first", 0, "validation error") == 0
        reserve(found, "1")  # once more, and killed: what had left by then had been paid for
        assert opened(tmp_path).released("first", 0, "training") == 1


# --- Whatever happens, it never forgets --------------------------------------------------------

NAMES, GROUPS = st.sampled_from("abc"), st.sampled_from([PEOPLE, PEOPLE[:1], PEOPLE[1:], ("sub-dan",)])
MOVES = st.one_of(
    st.tuples(st.just("reserve"), NAMES, GROUPS, st.sampled_from([STEP, Release(0.8, 0.1, 2)])),
    st.tuples(st.just("release"), NAMES),
    st.tuples(st.just("reopen")),
)


@hypothesis_settings(max_examples=25)
@given(moves=st.lists(MOVES, max_size=12))
def test_spent_never_falls_and_every_release_was_paid_for(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple]
) -> None:
    everybody, made = (*PEOPLE, "sub-dan"), dict.fromkeys((*PEOPLE, "sub-dan"), 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_module, "epsilon", in_steps)
        folder = tmp_path_factory.mktemp("ledger")
        ledger, waiting = opened(folder), dict[str, tuple]()
        before = dict.fromkeys(everybody, 0.0)
        for kind, *rest in moves:
            if kind == "reserve":
                task, people, one = rest
                reserve(ledger, task, one, persons=people)
                waiting[task] = (people, one)  # a process that is killed here begins the task again
            elif kind == "release" and rest[0] in waiting:
                people, one = waiting.pop(rest[0])
                ledger.note_released(rest[0])
                for name in people:
                    made[name] += in_steps([one], delta=DELTA, accountant="rdp")
            else:
                ledger = opened(folder, people=everybody)
            after = {name: spent(ledger, name) for name in everybody}
            assert all(after[name] >= before[name] for name in everybody)
            assert all(after[name] >= made[name] - 1e-9 for name in everybody)
            assert spent(ledger, *everybody) == max(after.values())
            before = after


def in_steps(releases: Sequence[Release], *, delta: float, accountant: str) -> float:
    """A cost that adds up, in place of an accountant's."""
    return sum(r.steps * r.sampling_rate / r.noise_multiplier for r in releases)


def test_lines_say_what_an_auditor_wants_to_know(folder: Path) -> None:
    entries = [json.loads(line) for line in lines_of(folder)]
    assert [e["event"] for e in entries] == ["opened", "cohort", "plan", *["reserved", "released"] * 2]
    reserved = entries[3]
    for name, wanted in {
        "run": "first",
        "round": 0,
        "mechanism": "training",
        "noise_multiplier": 1.1,
        "sampling_rate": 0.2,
        "steps": 5,
    }.items():
        assert reserved[name] == wanted
    assert reserved["epsilon"] == [pytest.approx(oracle(STEP), abs=1e-4)]
    assert entries[1]["cohort"] == reserved["cohort"]
    assert len(entries[1]["persons"]) == len(PEOPLE)


def test_all_names_of_a_person_are_known_so_that_a_new_rid_forgets_nothing(tmp_path: Path) -> None:
    def entry(person: str, subject: str) -> SimpleNamespace:
        return SimpleNamespace(person=person, subject=subject)

    before, after = (
        SimpleNamespace(entries=entries, indices=lambda _: range(2))
        for entries in (
            [entry("sub-1", "sub-1"), entry("rid:7", "sub-2")],
            [entry("rid:5", "sub-1"), entry("rid:3", "sub-2")],  # an RID that was not known; one that links
        )
    )
    ledger = opened(tmp_path)
    release(ledger, "1", persons=names(before, "train"))
    assert spent(ledger, *names(after, "train")) == oracle(STEP)
