# SPDX-License-Identifier: Apache-2.0
"""A privacy ledger and its limits: beyond one, nothing is written."""

from pathlib import Path

import pytest

from client.spending import Limit
from pasta_model.errors import BudgetError
from pasta_model.privacy.accounting import Release
from tests.support.accounting import remember, remembered
from tests.support.ledgers import (
    DELTA,
    PEOPLE,
    PLENTY,
    STEP,
    content,
    opened,
    oracle,
    release,
    reserve,
    spent,
)


@pytest.fixture(autouse=True)
def each_history_is_accounted_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch)


class TestLimits:
    @pytest.mark.parametrize("people", [PEOPLE, ("sub-new", "sub-ada")])
    def test_beyond_a_limit_nothing_is_written(self, tmp_path: Path, people: tuple[str, ...]) -> None:
        release(opened(tmp_path), "1")
        ledger, before = opened(tmp_path), content(tmp_path)
        limit = Limit(1.2 * oracle(STEP), DELTA)
        with pytest.raises(BudgetError) as error:
            reserve(ledger, "2", number=7, persons=people, limits=[PLENTY, limit])
        assert content(tmp_path) == before
        said = str(error.value)
        assert said.startswith("site alder: the site's policy, over all runs: epsilon ")
        for wanted in (
            f"epsilon {oracle(STEP):.3f} of {limit.epsilon:g} is spent",
            f"it would be {oracle(STEP, STEP):.3f}",
            "unit subject",
            "delta 0.0001",
            "training of round 7",
            "nothing was released",
            "evaluates only",
        ):
            assert wanted in said
        assert spent(ledger) == spent(opened(tmp_path)) == pytest.approx(oracle(STEP), rel=1e-9)

    def test_exactly_the_limit_is_within_it(self, tmp_path: Path) -> None:
        ledger = opened(tmp_path)
        release(ledger, "1", limits=[Limit(remembered([STEP], delta=DELTA, accountant="rdp"), DELTA)])
        assert spent(ledger) == remembered([STEP], delta=DELTA, accountant="rdp")

    def test_limit_of_a_run_counts_the_run_alone(self, tmp_path: Path) -> None:
        ledger = opened(tmp_path)
        release(ledger, "1")
        own = Limit(1.01 * oracle(STEP), DELTA, "second")
        release(ledger, "2", run="second", limits=[own])
        with pytest.raises(BudgetError, match="run second: epsilon "):
            reserve(ledger, "3", run="second", limits=[own])

    def test_a_run_of_another_name_does_not_get_a_policys_budget_again(self, tmp_path: Path) -> None:
        ledger = opened(tmp_path)
        policy = Limit(1.01 * oracle(STEP, STEP), DELTA)
        for number in range(2):
            run = f"run-{number}"
            release(ledger, run, run=run, limits=[Limit(10.0, DELTA, run), policy])
        with pytest.raises(BudgetError, match="the site's policy, over all runs"):
            reserve(ledger, "run-2", run="run-2", limits=[Limit(10.0, DELTA, "run-2"), policy])

    def test_every_limit_is_asked_at_its_own_delta(self, tmp_path: Path) -> None:
        loose, tight = Limit(1.01 * oracle(STEP), DELTA), Limit(1.01 * oracle(STEP), DELTA / 1000)
        reserve(opened(tmp_path), "1", limits=[loose])
        with pytest.raises(BudgetError):
            reserve(opened(tmp_path / "other"), "1", limits=[loose, tight])

    def test_no_noise_is_beyond_every_limit(self, tmp_path: Path) -> None:
        with pytest.raises(BudgetError):
            reserve(opened(tmp_path), "1", Release(0.0, 0.2, 1))
