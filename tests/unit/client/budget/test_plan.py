# SPDX-License-Identifier: Apache-2.0
"""`pasta-client budget --settings`: the plan before a run."""

import re
from pathlib import Path
from typing import Any

import pytest

from client.kit import Kit
from client.memory import run_name
from client.private import VALIDATION
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from pasta_model.privacy.accounting import Release
from tests.support.accounting import calibrated_once
from tests.support.budgets import DELTA, ERROR, LIMIT, RUN, STEP, pay, prv, rdp


class TestPlan:
    def test_it_is_shown_before_anything_is_spent(self, kit: Kit, told, plan, call) -> None:
        found = told(kit.path, "--settings", plan())["plan"]
        sigma = calibrated_once(epsilon=3.0, delta=DELTA, sampling_rate=2 / 3, steps=20, accountant="prv")
        assert found["noise_multiplier"] == sigma
        assert (found["subjects"], found["steps"], found["delta"]) == (3, 20, DELTA)
        assert found["sampling_rate"] == pytest.approx(2 / 3)
        assert found["epsilon"] == pytest.approx(prv(Release(sigma, 2 / 3, 20)))
        assert found["epsilon"] <= 3.0
        assert found["afterwards"] == pytest.approx(found["epsilon"])
        said = call(kit.path, "--settings", plan()).out
        assert (
            f"noise multiplier {sigma:g}, clip norm 1: epsilon {found['epsilon']:.2f} at delta 0.001" in said
        )
        assert "Nothing was spent now" in said

    def test_on_top_of_what_was_spent(self, kit: Kit, store: SiteStore, told, plan) -> None:
        pay(kit.guard.ledger, store)
        found = told(kit.path, "--settings", plan())["plan"]
        whole = Release(found["noise_multiplier"], found["sampling_rate"], 20)
        assert found["afterwards"] == pytest.approx(rdp(STEP, whole))

    def test_run_that_has_begun_is_not_counted_twice(self, kit, store: SiteStore, told, plan) -> None:
        path = plan()
        found = told(kit.path, "--settings", path)["plan"]
        settings = Settings.model_validate(RUN | {"federation": {"rounds": 5}})
        rate, run = found["sampling_rate"], run_name(settings)
        for number in range(2):
            pay(kit.guard.ledger, store, Release(found["noise_multiplier"], rate, 4), run=run, number=number)
        again = told(kit.path, "--settings", path)["plan"]
        assert again["afterwards"] == pytest.approx(found["afterwards"])

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"epsilon": 0.0}, "privacy.epsilon: found 0.0, wanted greater than 0"),
            ({"epsilon": -1.0}, "privacy.epsilon: found -1.0"),
            ({"epsilon": float("inf")}, "privacy.epsilon: found inf"),
            ({"delta": 0.0}, "privacy.delta: found 0.0"),
            ({"delta": 1.0}, "privacy.delta: found 1.0, wanted less than 1"),
            ({"max_grad_norm": 0.0}, "privacy.max-grad-norm: found 0.0"),
            ({"max_grad_norm": float("nan")}, "privacy.max-grad-norm: found nan"),
            ({"noise_multiplier": -1.0}, "privacy.noise-multiplier: found -1.0"),
            ({"subjects_per_step": 0}, "privacy.subjects-per-step: found 0"),
            ({"epsilon": 7.0}, "privacy.epsilon is 7; the policy allows 6"),
            ({"delta": 0.01}, "privacy.delta is 0.01; the policy allows 0.001"),
            ({"unit": "none"}, "privacy.unit is 'none', wanted 'subject'"),
            ({"noise_multiplier": 3.0}, "wanted at most 3; that holds 4 round(s)"),
            ({"rounds": 10}, "federation.rounds is 10; the policy allows 9"),
        ],
        ids=str,
    )
    def test_impossible_ones(self, kit: Kit, refused, plan, changes: dict[str, Any], said: str) -> None:
        assert said in refused(kit.path, "--settings", plan(**changes))
        assert said in refused(kit.path, "--settings", plan(**changes), "--json")

    def test_all_that_is_impossible_is_told_at_once(self, kit: Kit, refused, plan) -> None:
        said = refused(kit.path, "--settings", plan(epsilon=0.0, delta=2.0, max_grad_norm=-1.0))
        assert "3 problem(s)" in said

    def test_delta_that_would_let_a_scan_be_published(self, store: SiteStore, refused, plan) -> None:
        said = refused(store.path, "--settings", plan(delta=0.4))
        assert "privacy.delta is 0.4, wanted less than 1 / subjects = 0.33" in said

    def test_more_rounds_than_the_budget_holds(self, kit: Kit, store: SiteStore, refused, plan) -> None:
        before = Release(1.8, 0.5, 20)
        pay(kit.guard.ledger, store, before)
        assert 3 < rdp(before) < LIMIT
        said = refused(kit.path, "--settings", plan())
        assert "site A: 5 rounds of this run would bring epsilon from" in said
        assert "the policy allows 6 over all runs" in said
        assert re.search(r"[1-4] round\(s\) would fit\. Nothing was spent", said)

    def test_errors_have_an_account_of_their_own(self, kit: Kit, store, told, plan, call, refused) -> None:
        path = plan(metrics="noised", metrics_noise_multiplier=8.0)
        assert told(kit.path, "--settings", plan())["plan"]["errors"] is None
        found = told(kit.path, "--settings", plan(metrics="noised", metrics_noise_multiplier=8.0))["plan"]
        whole = Release(8.0, 1.0, 6)
        assert found["errors"]["errors"] == 6
        assert found["errors"]["epsilon"] == found["errors"]["afterwards"] == pytest.approx(prv(whole))
        assert "those who validate: 6 noised errors, noise multiplier 8: epsilon" in (
            call(kit.path, "--settings", path).out
        )
        pay(kit.guard.ledger, store, ERROR, mechanism=VALIDATION)
        found = told(kit.path, "--settings", path)["plan"]
        assert found["errors"]["afterwards"] == pytest.approx(rdp(ERROR, whole))
        assert found["afterwards"] == pytest.approx(found["rdp"], rel=0.5)
        said = refused(kit.path, "--settings", plan(metrics="noised", metrics_noise_multiplier=0.5))
        assert "6 noised validation error(s)" in said

    def test_settings_that_are_not_there(self, kit: Kit, refused, tmp_path: Path) -> None:
        assert "cannot be read" in refused(kit.path, "--settings", tmp_path / "nothing.toml")
