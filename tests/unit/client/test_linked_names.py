# SPDX-License-Identifier: Apache-2.0
"""Names that a later table links are one person's: what any of them took part in was spent of that person."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.special import ndtr

from client import ledger as ledger_module
from client.ledger import Ledger
from client.people import everybody, names
from client.register import Links, of_one_person
from client.spending import LedgerLog, Limit
from pasta_model.data.store import Entry
from pasta_model.errors import BudgetError
from pasta_model.privacy.accounting import Release, epsilon

DELTA = 1e-4
PLENTY = Limit(1e3, DELTA, accountant="rdp")
STEP = Release(2.0, 0.05, 300)


def opened(folder: Path) -> Ledger:
    """A new process at the site opens its ledger."""
    ledger = Ledger(folder / "ledger.jsonl", site="alder", witness=folder / "store" / "state" / "ledger.json")
    if ledger.is_new:
        ledger.open_for(["sub-1"])
    return ledger


def release(folder: Path, persons: Sequence, one: Release = STEP, *, mechanism: str = "training") -> None:
    """A release in a run of its own, made and kept."""
    ledger = opened(folder)
    run = f"run-{len(ledger.spendings)}"
    words = {"run": run, "number": 0, "mechanism": mechanism, "persons": persons, "limits": [PLENTY]}
    ledger.reserve(run, one, **words)  # type: ignore[arg-type]
    ledger.note_released(run)


def spent(folder: Path, *persons: object) -> float:
    return opened(folder).spent(persons, PLENTY)  # type: ignore[arg-type]


def cost(*releases: Release) -> float:
    return epsilon(releases, delta=DELTA, accountant="rdp")


def store(*people: tuple[str, str, str]) -> SimpleNamespace:
    """A store of (person, subject, split)."""
    entries = [Entry(s, "ses-1", "CN", split, {}, 1.0, "m", "p", who) for who, s, split in people]
    return SimpleNamespace(
        entries=entries, indices=lambda split: [i for i, e in enumerate(entries) if e.split == split]
    )


class TestPeopleOfAStore:
    def test_each_goes_by_all_names(self) -> None:
        here = store(("rid:5", "sub-1", "train"), ("rid:5", "sub-2", "train"), ("sub-9", "sub-9", "valid"))
        assert names(here, "train") == [("rid:5", "sub-1", "sub-2")]
        assert names(here, "valid") == [("sub-9",)]
        assert everybody(here) == [("rid:5", "sub-1", "sub-2"), ("sub-9",)]


class TestLinkedLater:
    def test_two_runs_on_two_names_are_two_runs_on_the_person(self, tmp_path: Path) -> None:
        """Year 1 sub-1, year 2 sub-2; year 3 an RID says that they are one."""
        release(tmp_path, names(store(("sub-1", "sub-1", "train"), ("sub-9", "sub-9", "train")), "train"))
        release(tmp_path, names(store(("sub-2", "sub-2", "train")), "train"))
        assert spent(tmp_path, "sub-1", "sub-2") == pytest.approx(cost(STEP))
        linked = names(store(("rid:5", "sub-1", "train"), ("rid:5", "sub-2", "train")), "train")
        assert spent(tmp_path, *linked) == pytest.approx(cost(STEP, STEP))
        limit = Limit(1.01 * cost(STEP, STEP), DELTA, accountant="rdp")
        words = {"run": "third", "number": 0, "mechanism": "training", "persons": linked}
        with pytest.raises(BudgetError):
            opened(tmp_path).reserve("3", STEP, **words, limits=[limit])  # type: ignore[arg-type]

    def test_one_name_trained_and_the_other_validated(self, tmp_path: Path) -> None:
        error = Release(10.0, 1.0, 1)
        release(tmp_path, ["sub-1"])
        release(tmp_path, ["sub-2"], error, mechanism="validation error")
        assert spent(tmp_path, ("rid:5", "sub-1", "sub-2")) == pytest.approx(cost(STEP, error))

    @pytest.mark.parametrize("number", [2, 3])
    def test_side_by_side_in_one_release(self, tmp_path: Path, number: int) -> None:
        """Each was clipped to C on its own, so the person changed the sum by so many C."""
        everyone, one = [f"sub-{i}" for i in range(number)], Release(4.0, 1.0, 4)
        release(tmp_path, [*everyone, "sub-9"], one)
        assert spent(tmp_path, ("rid:5", *everyone)) == pytest.approx(cost(Release(4.0 / number, 1.0, 4)))
        assert spent(tmp_path, "sub-9") == pytest.approx(cost(one))

    def test_linked_when_it_was_made_it_is_one_release(self, tmp_path: Path) -> None:
        person = ("rid:5", "sub-1", "sub-2")
        release(tmp_path, [person, ("sub-9",)])
        assert spent(tmp_path, person) == spent(tmp_path, "sub-2") == pytest.approx(cost(STEP))

    def test_through_a_name_that_is_gone(self, tmp_path: Path) -> None:
        """sub-1 and sub-3 were never in one table; each was linked to sub-2 once."""
        release(tmp_path, [("sub-1", "sub-2")])
        release(tmp_path, [("sub-2", "sub-3")])
        assert spent(tmp_path, "sub-3") == spent(tmp_path, "sub-1") == pytest.approx(cost(STEP, STEP))

    def test_a_link_that_was_taken_back_is_not_forgotten(self, tmp_path: Path) -> None:
        release(tmp_path, [("rid:5", "sub-1", "sub-2")])
        release(tmp_path, ["sub-1", "sub-2"])
        twice = of_one_person(STEP, 2)
        assert spent(tmp_path, "sub-1") == pytest.approx(cost(STEP, twice))
        more = opened(tmp_path).spent(["sub-1", "sub-2"], PLENTY, more=[STEP])
        assert more == pytest.approx(cost(STEP, twice, twice)), "as would the next one"

    def test_others_are_those_of_no_linked_name(self, tmp_path: Path) -> None:
        release(tmp_path, ["sub-1", "sub-9"])
        assert opened(tmp_path).releases([("rid:5", "sub-1")], others=True) == [[STEP]]
        assert opened(tmp_path).releases([("rid:5", "sub-1", "sub-9")], others=True) == []

    def test_reservation_of_a_killed_process_is_not_used_once_names_are_linked(self, tmp_path: Path) -> None:
        words = {"run": "first", "number": 0, "mechanism": "training", "limits": [PLENTY]}
        for persons in (["sub-1", "sub-2"], [("sub-1", "sub-2")]):
            opened(tmp_path).reserve("1", STEP, persons=persons, **words)  # type: ignore[arg-type]
        assert len(opened(tmp_path).spendings) == 2


def test_ledger_of_format_1_counts_every_name_as_somebody_else(tmp_path: Path) -> None:
    opened(tmp_path)
    release(tmp_path, [("sub-1", "sub-2"), ("sub-9",)])
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    for path in (*tmp_path.glob("ledger.jsonl*"), tmp_path / "store/state/ledger.json"):
        path.unlink()
    log = LedgerLog(tmp_path / "ledger.jsonl", opener="alder")
    for line in lines:
        if line["event"] == "cohort":
            line["persons"] = sorted(name for person in line["persons"] for name in person)
        log.append({k: v for k, v in line.items() if k not in ("number", "time", "before", "hash")})
    assert spent(tmp_path, "sub-9") == pytest.approx(cost(STEP))
    assert spent(tmp_path, ("sub-1", "sub-2")) == pytest.approx(cost(of_one_person(STEP, 2)))


# --- What a person who was two units lost ---------------------------------------------------


def falls_short(shifts: dict[float, float], sigma: float, *, level: float) -> float:
    """The larger delta at an epsilon of sum_j p_j N(j, sigma^2) and N(0, sigma^2), in either direction."""
    x = np.linspace(-12 * sigma, 12 * sigma + max(shifts), 400_001)
    nothing = np.exp(-0.5 * (x / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    with_person = sum(
        p * np.exp(-0.5 * ((x - j) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
        for j, p in shifts.items()
    )
    grow = math.exp(level)
    both = (with_person - grow * nothing, nothing - grow * with_person)
    return max(float(np.trapezoid(np.maximum(d, 0), x)) for d in both)


@pytest.mark.parametrize(("sigma", "rate"), [(1.0, 0.05), (2.0, 0.3), (0.7, 0.5), (3.0, 1.0)])
@pytest.mark.parametrize("units", [2, 3])
def test_it_is_dominated_by_the_release_that_is_counted(sigma: float, rate: float, units: int) -> None:
    """Exact: k units of shift 1, each drawn with probability q, against one of shift k."""
    drawn = {float(j): math.comb(units, j) * rate**j * (1 - rate) ** (units - j) for j in range(units + 1)}
    counted = of_one_person(Release(sigma, rate, 1), units)
    assert counted.noise_multiplier == sigma / units
    one = {0.0: 1 - counted.sampling_rate, float(units): counted.sampling_rate}
    for level in (0.0, 0.1, 0.5, 1.0, 2.0, 4.0):
        assert falls_short(drawn, sigma, level=level) <= falls_short(one, sigma, level=level) + 1e-9


def test_dividing_the_noise_alone_would_not_do() -> None:
    """Two units are drawn more often than one, too, and at small epsilons that weighs more."""
    drawn, alone = {0.0: 0.81, 1.0: 0.18, 2.0: 0.01}, {0.0: 0.9, 2.0: 0.1}
    assert falls_short(drawn, 3.0, level=0.0) > falls_short(alone, 3.0, level=0.0)
    by_hand = 0.1 * (2 * ndtr(0.5) - 1)  # the distance of N(0, 1) and N(1, 1), a tenth of it
    assert falls_short({0.0: 0.9, 1.0: 0.1}, 1.0, level=0.0) == pytest.approx(by_hand, abs=1e-6)


def test_one_unit_is_the_release_itself() -> None:
    assert of_one_person(STEP, 1) is STEP
    assert of_one_person(Release(4.0, 1.0, 3), 4) == Release(1.0, 1.0, 3)
    assert of_one_person(Release(4.0, 0.5, 3), 2) == Release(2.0, 0.75, 3)


# --- Whatever is linked, and whenever -------------------------------------------------------

SUBJECTS = [f"sub-{i}" for i in range(5)]
LINKS = st.tuples(st.just("link"), st.sampled_from(SUBJECTS), st.sampled_from(SUBJECTS))
MADE = st.tuples(
    st.just("release"),
    st.sets(st.sampled_from(SUBJECTS), min_size=1),
    st.sampled_from([Release(1.0, 0.5, 3), Release(5.0, 1.0, 1)]),
)


@hypothesis_settings(max_examples=40)
@given(moves=st.lists(st.one_of(LINKS, MADE), max_size=8))
def test_spent_never_falls_when_names_are_linked_and_no_release_is_missed(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple]
) -> None:
    folder, linked = tmp_path_factory.mktemp("ledger"), list[frozenset[str]]()
    made = list[tuple[Release, list[frozenset[str]]]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_module, "epsilon", adds_up)
        before = dict.fromkeys(SUBJECTS, 0.0)
        for kind, *rest in moves:
            if kind == "link":
                linked.append(frozenset(rest))
            else:
                who, one = rest
                cohort = [person & who for person in persons_of(linked) if person & who]
                release(folder, [tuple(sorted(unit)) for unit in cohort], one)
                made.append((one, cohort))
            persons = persons_of(linked)
            for person in persons:
                found = spent(folder, tuple(sorted(person)))
                assert found >= max(before[name] for name in person) - 1e-9, "it fell"
                assert found >= lost(made, person) - 1e-9, "a release is missing"
                before |= dict.fromkeys(person, found)
            everyone = spent(folder, *(tuple(sorted(person)) for person in persons))
            assert everyone == pytest.approx(max(before.values()))


def persons_of(linked: Iterable[frozenset[str]]) -> list[frozenset[str]]:
    """Group the subjects by what is linked, the slow way."""
    groups = [{name} for name in SUBJECTS]
    for link in linked:
        touched = [group for group in groups if group & link]
        groups = [group for group in groups if not group & link] + [set().union(*touched)]
    return [frozenset(group) for group in groups]


def lost(made: Iterable[tuple[Release, list[frozenset[str]]]], person: frozenset[str]) -> float:
    """What the releases cost a person: of each, as many units as had any of the person's names."""
    units = [(one, sum(bool(unit & person) for unit in cohort)) for one, cohort in made]
    return sum(adds_up([of_one_person(one, n)], delta=DELTA, accountant="rdp") for one, n in units if n)


def adds_up(releases: Iterable[Release], *, delta: float, accountant: str) -> float:
    """A cost that adds up, in place of an accountant's."""
    return sum(r.steps * r.sampling_rate / r.noise_multiplier for r in releases)


def test_links_do_not_depend_on_their_order() -> None:
    groups = [frozenset("ab"), frozenset("cd"), frozenset("bc"), frozenset("e")]
    for order in (groups, groups[::-1]):
        links = Links(order)
        assert len({links.who(name) for name in "abcd"}) == 1
        assert links.who("e") != links.who("a")
