# SPDX-License-Identifier: Apache-2.0
"""What `pasta-client check` says of the privacy ledger, and what a log says whose head is gone."""

from pathlib import Path

import pytest

from client.audit import AuditLog
from client.checks.finding import Finding
from client.checks.house import check_ledger
from client.kit import Kit
from client.ledger import Ledger
from client.people import everybody, open_ledger
from client.private import TRAINING, VALIDATION
from pasta_model.data.store import SiteStore
from pasta_model.errors import AuditError, PrivacyError
from pasta_model.privacy.accounting import Release
from tests.support.accounting import remember, remembered
from tests.support.guarded import open_log, write_kit

DELTA = 1e-3
STEP, ERROR = Release(3.0, 0.5, 4), Release(1.0, 1.0, 2)


@pytest.fixture(autouse=True)
def each_history_is_accounted_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch)


@pytest.fixture
def kit(tmp_path: Path, store: SiteStore) -> Kit:
    return write_kit(tmp_path / "kit", store.path, max_delta=DELTA, max_epsilon=6.0)


def found_of(kit: Kit) -> Finding:
    where = kit.guard
    (found,) = check_ledger(where.ledger, kit.site.store, policy=where.policy, log=open_log(kit))
    return found


def pay(kit: Kit, release: Release, *, mechanism: str, split: str) -> Ledger:
    store = SiteStore(kit.site.store)
    ledger = open_ledger(kit.guard.ledger, store)
    ledger.open_for(everybody(store))
    words = {"run": "first", "number": 0, "mechanism": mechanism, "persons": store.persons(split)}
    ledger.reserve(mechanism, release, **words, limits=[])  # type: ignore[arg-type]
    return ledger


def test_spent_is_told_as_a_new_run_is_judged(kit: Kit) -> None:
    pay(kit, STEP, mechanism=TRAINING, split="train")
    cost = remembered([STEP], delta=DELTA, accountant="rdp")
    assert f"epsilon {cost:.2f} of 6 is spent, as a new run is judged" in found_of(kit).found


def test_those_who_validate_count_where_they_spent_more(kit: Kit) -> None:
    pay(kit, STEP, mechanism=TRAINING, split="train")
    pay(kit, ERROR, mechanism=VALIDATION, split="valid")
    cost = remembered([ERROR], delta=DELTA, accountant="rdp")
    assert f"epsilon {cost:.2f} of 6 is spent" in found_of(kit).found


def test_log_without_its_head_says_one_thing_to_do(kit: Kit, tmp_path: Path) -> None:
    ledger = pay(kit, STEP, mechanism=TRAINING, split="train")
    ledger.path.with_name(ledger.path.name + ".head").unlink()
    with pytest.raises(PrivacyError) as error:
        ledger.chain = ledger._log.verify()
    said = str(error.value)
    assert said.endswith(
        "whether the log is whole; put it back from a copy: without it nobody can say what was spent."
        " Nothing is released before"
    )
    log = AuditLog(tmp_path / "audit.jsonl", site="A", consortium="c")
    log.append({"event": "sent"})
    (tmp_path / "audit.jsonl.head").unlink()
    with pytest.raises(AuditError, match=r"is whole; put it back, or keep the log aside to begin another$"):
        log.verify()
