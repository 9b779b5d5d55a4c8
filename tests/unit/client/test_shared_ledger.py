# SPDX-License-Identifier: Apache-2.0
"""One ledger for a hospital: several stores and kits, of whatever site names, share the people's budget."""

import shutil
from pathlib import Path

import pytest

from client.budget import account_of, read_place
from client.ledger import Ledger
from client.people import everybody, names, open_ledger
from client.spending import Limit
from pasta_model.errors import BudgetError, PrivacyError
from pasta_model.privacy.accounting import Release, epsilon
from tests.support.guarded import write_kit

PEOPLE = [("rid:1", "sub-1"), ("rid:2", "sub-2")]
STEP = Release(2.0, 0.05, 300)
DELTA = 1e-4


def opened(folder: Path, site: str, *, persons=PEOPLE, where: str = "hospital") -> Ledger:
    """A store of its own at the site, and the hospital's ledger."""
    ledger = Ledger(folder / where / "ledger.jsonl", site=site, witness=folder / site / "state/ledger.json")
    ledger.open_for(persons)
    return ledger


def spend(ledger: Ledger, *, allowed: float = 100.0, persons=PEOPLE) -> None:
    run, limit = f"{ledger.site}-{len(ledger.spendings)}", Limit(allowed, DELTA, accountant="rdp")
    words = {"run": run, "number": 0, "mechanism": "training", "persons": persons, "limits": [limit]}
    ledger.reserve(run, STEP, **words)  # type: ignore[arg-type]
    ledger.note_released(run)


def cost(*releases: Release) -> float:
    return epsilon(releases, delta=DELTA, accountant="rdp")


def test_two_stores_do_not_get_the_budget_twice(tmp_path: Path) -> None:
    """Two consortia, two site names, the same people; the ledgers of before did not know of each other."""
    allowed = 1.01 * cost(STEP)
    spend(opened(tmp_path, "clinic"), allowed=allowed)
    other = opened(tmp_path, "clinic-in-B")
    assert other.spent(PEOPLE, Limit(0, DELTA, accountant="rdp")) == pytest.approx(cost(STEP))
    with pytest.raises(BudgetError, match="site clinic-in-B: "):
        spend(other, allowed=allowed)


def test_people_whom_the_other_store_lacks_have_spent_nothing(tmp_path: Path) -> None:
    spend(opened(tmp_path, "clinic"))
    more = [*PEOPLE, ("sub-3",)]
    other = opened(tmp_path, "clinic-3mm", persons=more)
    limit = Limit(0, DELTA, accountant="rdp")
    assert other.spent([("sub-3",)], limit) == 0
    assert other.spent([("sub-2",)], limit) == pytest.approx(cost(STEP)), "by whichever name"


def test_they_take_turns(tmp_path: Path) -> None:
    for site in ("clinic", "clinic-in-B", "clinic", "clinic-in-B"):
        spend(opened(tmp_path, site))
    for site in ("clinic", "clinic-in-B"):
        ledger = opened(tmp_path, site)
        assert ledger.chain.holds
        assert len(ledger.spendings) == 4
    with ledger.alone(), pytest.raises(PrivacyError, match="another run trains on these data now"):
        opened(tmp_path, "clinic").alone().__enter__()


def test_opened_by_another_store_meanwhile(tmp_path: Path) -> None:
    waiting = Ledger(tmp_path / "hospital/ledger.jsonl", site="b", witness=tmp_path / "b/state/ledger.json")
    spend(opened(tmp_path, "a"))
    with waiting.alone():
        waiting.open_for(PEOPLE)
        spend(waiting)
    assert len(opened(tmp_path, "a").spendings) == 2


def test_two_kits_that_name_one_ledger(tmp_path: Path, make_store) -> None:
    """As a person sees it: what one kit spent, the other one's account shows."""
    first = make_store().path
    second = Path(shutil.copytree(first, tmp_path / "other" / "A"))
    index = second / "index.json"
    index.write_text(index.read_text().replace('"site": "A"', '"site": "A-in-B"'))
    kits = [write_kit(tmp_path / name, path, max_delta=DELTA) for name, path in (("a", first), ("b", second))]
    shared = tmp_path / "hospital" / "ledger.jsonl"
    for kit in kits:
        table = kit.path.read_text()
        kit.path.write_text(table.replace("[guard]\n", f'[guard]\nledger = "{shared}"\n'))
    one, other = (read_place(kit.path) for kit in kits)
    assert other.store.site == "A-in-B"
    store = one.store
    ledger = open_ledger(one.ledger, store)
    ledger.open_for(everybody(store))
    spend(ledger, persons=names(store, "train"))
    found = account_of(other)
    assert found.spent["those who train"][1] == pytest.approx(cost(STEP))
    assert found.ledger == str(shared)


class TestWrongOne:
    def test_each_store_remembers_its_own(self, tmp_path: Path) -> None:
        spend(opened(tmp_path, "clinic"))
        spend(opened(tmp_path, "clinic-in-B", where="elsewhere"))
        for site, where in (("clinic", "elsewhere"), ("clinic-in-B", "hospital")):
            with pytest.raises(PrivacyError, match="taken away or replaced, or a kit keeps it elsewhere"):
                opened(tmp_path, site, where=where)

    def test_older_copy_is_noticed_by_the_store_that_saw_more(self, tmp_path: Path) -> None:
        spend(opened(tmp_path, "clinic"))
        shutil.copytree(tmp_path / "hospital", tmp_path / "copy")
        spend(opened(tmp_path, "clinic-in-B"))
        with pytest.raises(PrivacyError, match="put it back"):
            opened(tmp_path, "clinic-in-B", where="copy")

    def test_of_other_people(self, tmp_path: Path) -> None:
        spend(opened(tmp_path, "clinic"))
        with pytest.raises(PrivacyError, match="the ledger of another data set"):
            opened(tmp_path, "elsewhere", persons=[("sub-x",)])

    def test_name_of_who_opened_it_is_part_of_the_chain(self, tmp_path: Path) -> None:
        spend(opened(tmp_path, "clinic"))
        path = tmp_path / "hospital/ledger.jsonl"
        path.write_bytes(path.read_bytes().replace(b'"site":"clinic"', b'"site":"clinik"'))
        with pytest.raises(PrivacyError, match="line 1: it was changed"):
            opened(tmp_path, "clinic-in-B")
