# SPDX-License-Identifier: Apache-2.0
"""Noised errors: paid for by those who validate, counted before the run, and missed aloud."""

import logging

import pytest

from client.private import VALIDATION
from pasta_model.errors import BudgetError, PrivacyError
from pasta_model.privacy.accounting import Release
from tests.support.accounting import remember, remembered
from tests.support.private_site import BARE, content, lines, move, settings_of, site, spent
from tests.support.tasks import Leader


@pytest.fixture(autouse=True)
def each_history_is_accounted_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch)


def cost_of(errors: int, *, noise: float) -> float:
    return remembered([Release(noise, 1.0, errors)], delta=1e-3, accountant="rdp")


class TestJoin:
    def test_errors_that_cost_more_than_the_run_promises(self, private) -> None:
        """Two rounds and the last model: three errors."""
        allowed = 1.01 * cost_of(2, noise=0.8)
        run = private(
            privacy__metrics="noised", privacy__metrics_noise_multiplier=0.8, privacy__epsilon=allowed
        )
        with pytest.raises(PrivacyError, match=r"3 noised validation error.* wanted at most .* holds 2\."):
            site(run).report()
        assert content(run) == b""
        enough = private(
            privacy__metrics="noised", privacy__metrics_noise_multiplier=2.0, privacy__epsilon=allowed
        )
        site(enough).report()

    def test_errors_that_do_not_fit_beside_earlier_runs(self, private, policy, trained) -> None:
        little = policy(max_epsilon=1.01 * cost_of(4, noise=1.0))
        changes = {"privacy__metrics": "noised", "privacy__metrics_noise_multiplier": 1.0}
        run = private(**changes, privacy__epsilon=little.max_epsilon)
        site(run, little).report()
        leader = Leader(run)
        for number in range(2):
            leader.follow(site(run, little).train(leader.task(number)))
        site(run, little).report()  # goes on: one error more, not three
        another, before = settings_of(run, name="another"), content(run)
        with pytest.raises(BudgetError) as error:
            site(another, little).report()
        assert "3 noised errors of this run would bring epsilon of those who validate from" in str(
            error.value
        )
        assert "2 noised error(s) would fit. Nothing was spent" in str(error.value)
        assert content(run) == before

    def test_nobody_validates_or_the_policy_keeps_them_back(self, private, policy) -> None:
        run = private(privacy__metrics="noised", privacy__metrics_noise_multiplier=0.05)
        site(run, policy(metrics=["seconds"])).report()
        with pytest.raises(PrivacyError, match="noised validation error"):
            site(run).report()
        move(run, "sub-Adan", to="test")
        site(run).report()

    def test_held_out_site_tells_one(self, private) -> None:
        changes = {"federation__held_out": "A, C", "privacy__metrics": "noised"}
        changes |= {"privacy__metrics_noise_multiplier": 0.8, "privacy__noise_multiplier": 0.2}
        site(private(**changes, privacy__epsilon=1.01 * cost_of(1, noise=0.8))).report()
        with pytest.raises(PrivacyError, match="1 noised validation error"):
            site(private(**changes, privacy__epsilon=0.9 * cost_of(1, noise=0.8))).report()


class TestSpent:
    def test_error_that_is_not_told_is_logged(self, private, trained, caplog) -> None:
        run = private(privacy__metrics="noised", privacy__metrics_noise_multiplier=0.05)
        with caplog.at_level(logging.WARNING, logger="client.private"):
            answer = site(run).train(Leader(run).task(0))
        assert answer.values.keys() == BARE | {"codec"}
        (record,) = [r for r in caplog.records if r.name == "client.private"]
        said = record.getMessage()
        assert record.levelno == logging.WARNING
        assert said.startswith("round 0: no validation error leaves: site A: run ")
        assert "sub-" not in said
        assert str(run.data.sites) not in said
        assert lines(run, VALIDATION) == []
        assert spent(run, "valid") == 0


class TestLargeDelta:
    """With delta of 1 / subjects or more, publishing somebody's scans would keep to it."""

    @pytest.mark.parametrize("largest", [0.5, 1 / 3])
    def test_of_the_policy(self, private, policy, trained, largest: float) -> None:
        run, loose = private(privacy__metrics="noised"), policy(max_delta=largest)
        leader = Leader(run)
        for ask in (
            lambda found: found.report(),
            lambda found: found.train(leader.task(0)),
            lambda found: found.evaluate(leader.task(0)),
        ):
            with pytest.raises(PrivacyError) as error:
                ask(site(run, loose))
            wanted = f"max-delta in the site's policy is {largest:g}, wanted less than 1 / subjects = 0.33"
            assert wanted in str(error.value)
            assert "nothing was spent" in str(error.value)
        assert trained == []
        assert content(run) == b""

    def test_counts_those_who_validate_where_they_are_more(self, private, policy) -> None:
        held_out = {"privacy__metrics": "noised", "federation__held_out": "A, C"}
        run = private(**held_out)
        for name in ("sub-Aada", "sub-Abob"):
            move(run, name, to="valid")
        with pytest.raises(
            PrivacyError, match=r"max-delta .* is 0\.4, wanted less than 1 / subjects = 0\.33"
        ):
            site(run, policy(max_delta=0.4)).evaluate(Leader(run).task(0))
        with pytest.raises(
            PrivacyError, match=r"privacy.delta is 0\.4, wanted less than 1 / subjects = 0\.33"
        ):
            site(private(**held_out, privacy__delta=0.4)).report()

    def test_site_that_tells_nothing_is_not_asked(self, private, policy) -> None:
        run = private(federation__held_out="A, C")
        site(run, policy(max_delta=0.5)).report()
        assert site(run, policy(max_delta=0.5)).evaluate(Leader(run).task(0)).values.keys() == BARE
