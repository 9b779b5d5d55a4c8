# SPDX-License-Identifier: Apache-2.0
"""`pasta-client budget`: the account that a data-protection officer reads."""

import re
from pathlib import Path

import pytest

from client.kit import Kit
from client.people import default_ledger, open_ledger
from client.private import TRAINING, VALIDATION
from pasta_model.data.store import SiteStore
from pasta_model.privacy.accounting import Release
from tests.support.accounting import remembered
from tests.support.budgets import DELTA, ERROR, LIMIT, STEP, pay, prv, rdp
from tests.support.guarded import open_log, write_kit


class TestAccount:
    def test_nothing_spent(self, kit: Kit, told) -> None:
        found = told(kit.path)
        assert (found["site"], found["unit"], found["delta"], found["limit"]) == (
            "A",
            "subject",
            DELTA,
            LIMIT,
        )
        assert found["spent"] == {"those who train": [0, 0], "those who validate": [0, 0]}
        assert found["left"] == {"those who train": LIMIT, "those who validate": LIMIT}
        assert (found["rows"], found["lines"]) == ([], 0)
        assert not kit.guard.ledger.parent.exists()

    def test_two_runs_and_two_mechanisms(self, kit: Kit, store: SiteStore, told) -> None:
        ledger = kit.guard.ledger
        for number in range(2):
            pay(ledger, store, number=number)
            pay(ledger, store, ERROR, number=number, mechanism=VALIDATION)
        book = pay(ledger, store, Release(5.0, 0.5, 4), run="second")
        found = told(kit.path.parent)
        rows = [
            (r["run"], r["mechanism"], r["rounds"], r["steps"], r["noise_multiplier"]) for r in found["rows"]
        ]
        assert rows == [
            ("first", TRAINING, 2, 8, 3.0),
            ("first", VALIDATION, 2, 2, 10.0),
            ("second", TRAINING, 1, 4, 5.0),
        ]
        alone = [prv(STEP, STEP), prv(ERROR, ERROR), prv(Release(5.0, 0.5, 4))]
        assert [row["epsilon"] for row in found["rows"]] == pytest.approx(alone)
        both = prv(STEP, STEP, Release(5.0, 0.5, 4))
        spent, checked = found["spent"]["those who train"]
        assert spent == pytest.approx(both)
        assert checked >= spent
        assert found["spent"]["those who validate"][0] == pytest.approx(prv(ERROR, ERROR))
        # What one run showed may have shaped the other: together they count by RDP.
        assert found["left"]["those who train"] == pytest.approx(LIMIT - checked)
        assert (found["lines"], found["hash"]) == (book.chain.lines, book.chain.hash)

    def test_for_a_person(self, kit: Kit, store: SiteStore, call) -> None:
        pay(kit.guard.ledger, store)
        said = call(kit.path)
        assert (said.status, said.err) == (0, "")
        for wanted in (
            "site A: unit subject, 3 train; epsilon at delta 0.001",
            f"those who train: epsilon {prv(STEP):.3f} spent, {LIMIT - rdp(STEP):.3f} of 6 left",
            f" left for a new run, {LIMIT - prv(STEP):.3f} for first where it goes on (RDP",
            "chain of 4 lines holds; note this elsewhere: 4 ",
        ):
            assert wanted in said.out
        assert re.search(r"first +training +1 +4 +3 +0.5 +\d\.\d{3} +20\d\d-", said.out)

    def test_what_was_reserved_and_never_kept_counts(self, kit: Kit, store: SiteStore, told) -> None:
        pay(kit.guard.ledger, store)
        book = open_ledger(kit.guard.ledger, store)
        book.reserve(
            "killed",
            STEP,
            run="first",
            number=1,
            mechanism=TRAINING,
            persons=store.persons("train"),
            limits=[],
        )
        assert told(kit.path)["spent"]["those who train"][0] == pytest.approx(prv(STEP, STEP))

    def test_those_who_were_in_earlier_runs_are_not_forgotten(self, kit, store: SiteStore, told) -> None:
        pay(kit.guard.ledger, store, people=["sub-gone", "sub-Aada"])
        found = told(kit.path)
        assert found["spent"]["those of earlier runs"][0] == pytest.approx(prv(STEP))
        assert found["left"]["those of earlier runs"] == pytest.approx(LIMIT - rdp(STEP))
        assert found["spent"]["those who validate"][0] == 0

    def test_what_is_left_is_what_a_new_run_gets(self, kit: Kit, store: SiteStore, told) -> None:
        """One run is in the ledger: it is judged by PRV, and the next one, beside it, by RDP."""
        pay(kit.guard.ledger, store)
        found = told(kit.path)
        assert found["left"]["those who train"] == pytest.approx(LIMIT - rdp(STEP))
        assert found["left_to_run"]["first"]["those who train"] == pytest.approx(LIMIT - prv(STEP))
        pay(kit.guard.ledger, store, run="second")
        found = told(kit.path)
        assert found["left"]["those who train"] == pytest.approx(LIMIT - rdp(STEP, STEP))
        assert found["left_to_run"] == {}

    def test_delta_of_the_policy_that_promises_nothing(self, tmp_path: Path, store, refused) -> None:
        loose = write_kit(tmp_path / "loose", store.path, max_delta=0.5, max_epsilon=LIMIT)
        said = refused(loose.path)
        assert "max-delta in the site's policy is 0.5, wanted less than 1 / subjects = 0.33" in said

    def test_more_spent_than_the_policy_now_allows(self, kit: Kit, store: SiteStore, told) -> None:
        pay(kit.guard.ledger, store, Release(1.0, 0.5, 400))
        assert told(kit.path)["left"]["those who train"] == 0

    def test_updates_that_nothing_protected_are_told(self, kit: Kit, call, told) -> None:
        assert told(kit.path)["bare"] == 0
        assert "not covered" not in call(kit.path).out
        log = open_log(kit)
        for kind in ("train", "train", "evaluate"):
            log.append({"event": "sent", "kind": kind, "content": "x"})
        log.append({"event": "refused", "kind": "train"})
        assert told(kit.path)["bare"] == 2
        assert "not covered: 2 update(s) of runs without subject privacy left this site" in call(kit.path).out

    def test_store_without_a_kit(self, store: SiteStore, call, told, monkeypatch: pytest.MonkeyPatch) -> None:
        book = pay(default_ledger(store.path), store)
        book.note_plan("first", store.persons("train"), {"delta": 0.01})
        monkeypatch.chdir(store.path)
        for way in (store.path, Path()):
            found = told(way)
            assert (found["limit"], found["left"], found["delta"]) == (None, {}, 0.01)
            assert found["spent"]["those who train"][0] == pytest.approx(remembered([STEP], delta=0.01))
        assert "left" not in call(store.path).out

    def test_name_of_a_run_is_shown_as_it_is(self, kit: Kit, store: SiteStore, call) -> None:
        pay(kit.guard.ledger, store, run="[red]a[/blue]")
        assert "[red]a[/blue]" in call(kit.path).out
