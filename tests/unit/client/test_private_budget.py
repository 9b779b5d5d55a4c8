# SPDX-License-Identifier: Apache-2.0
"""A site that protects its subjects: what a run may spend, and with what noise."""

import shutil

import numpy as np
import pytest

from client import private as private_module
from client.site import Site
from pasta_model.errors import BudgetError, PrivacyError
from pasta_model.privacy import training as training_module
from pasta_model.privacy.plan import plan_for
from tests.support.accounting import remember
from tests.support.private_site import (
    BARE,
    content,
    cost,
    ledger_of,
    lines,
    move,
    settings_of,
    site,
    with_epsilon,
    with_noise,
)
from tests.support.tasks import Leader, vector


@pytest.fixture(autouse=True)
def each_history_is_accounted_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch)


class TestBudget:
    def test_run_that_asks_for_more_than_it_promised_gets_no_more(self, private, trained) -> None:
        settings = with_epsilon(private(), 1.001 * cost(private(), rounds=2))
        leader = Leader(settings)
        for number in range(2):
            last = leader.task(number)
            leader.follow(site(settings).train(last))
        before = content(settings)
        said = r"site A: run .* nothing was released.*evaluates only"
        with pytest.raises(BudgetError, match=said) as error:
            site(settings).train(leader.task(1))  # the same round, from other weights
        assert "\n" not in str(error.value)
        assert content(settings) == before
        assert trained == [0, 1]
        assert site(settings).evaluate(leader.task(2)).values.keys() == BARE
        site(settings).train(last)  # what was released already is given again

    def test_two_runs_share_what_the_policy_allows(self, settings, trained, policy) -> None:
        """Both were let in, each fits alone; the fourth round of both together does not."""
        little = policy(max_epsilon=1.01 * cost(settings, rounds=3))
        settings = with_epsilon(settings, little.max_epsilon)
        runs = [settings_of(settings, name=name) for name in ("first", "second")]
        leaders = [Leader(run) for run in runs]
        for run in runs:
            site(run, little).report()
        for turn, number in ((0, 0), (1, 0), (0, 1)):
            leaders[turn].follow(site(runs[turn], little).train(leaders[turn].task(number)))
        before = content(settings)
        with pytest.raises(BudgetError, match="the site's policy, over all runs"):
            site(runs[1], little).train(leaders[1].task(1))
        assert content(settings) == before
        assert trained == [0, 0, 1]
        assert site(runs[1], little).evaluate(leaders[1].task(1)).values.keys() == BARE
        site(runs[1], little).report()  # a run that goes on is not refused for what it began

    def test_run_that_costs_more_than_is_left_is_refused_when_it_joins(self, settings, policy) -> None:
        little = policy(max_epsilon=1.01 * cost(settings, rounds=1))
        settings = with_epsilon(settings, little.max_epsilon)
        settings = with_noise(settings, 0.0)  # calibrated: it fits
        site(settings, little).report()
        settings = with_noise(settings, 3.0)
        with pytest.raises(PrivacyError, match=r"2 rounds of .* wanted at most .*holds 1 round") as error:
            site(settings, little).report()
        assert content(settings) == b""
        assert str(error.value).count("\n") == 0

    def test_run_that_does_not_fit_beside_earlier_ones_is_refused_when_it_joins(
        self, settings, trained, policy
    ) -> None:
        usual = policy(max_epsilon=1.01 * cost(settings, rounds=3))
        settings = with_epsilon(settings, usual.max_epsilon)
        leader = Leader(settings)
        for number in range(2):
            leader.follow(site(settings, usual).train(leader.task(number)))
        another, before = settings_of(settings, name="another"), content(settings)
        with pytest.raises(BudgetError) as error:
            site(another, usual).report()
        said = str(error.value)
        for wanted in (
            "site A: 2 rounds of this run would bring epsilon from",
            f"the policy allows {usual.max_epsilon:g} over all runs",
            "unit subject",
            "1 round(s) would fit",
            "Nothing was spent",
        ):
            assert wanted in said
        assert content(settings) == before
        with pytest.raises(BudgetError):  # nor by a server that does not ask it to join
            site(another, usual).train(leader.whole(0))
        assert content(settings) == before

    def test_people_who_join_later_have_their_own_budget(self, settings, trained, policy) -> None:
        little = policy(max_epsilon=1.01 * cost(settings, rounds=2))
        settings = with_epsilon(settings, little.max_epsilon)
        leader = Leader(settings)
        for number in range(2):
            leader.follow(site(settings, little).train(leader.task(number)))
        for name in ("sub-Aada", "sub-Abob", "sub-Acyd"):
            move(settings, name, to="test")
        move(settings, "sub-Adan", to="train")
        another = settings_of(settings, name="another")
        alone = another.privacy.model_copy(update={"subjects_per_step": 1, "noise_multiplier": 0.0})
        another = another.model_copy(update={"privacy": alone})
        site(another, little).report()
        site(another, little).train(Leader(another).task(0))

    def test_delta_that_would_let_a_scan_be_published_is_refused_when_it_joins(self, private) -> None:
        settings = private(privacy__delta=0.34)
        with pytest.raises(PrivacyError, match=r"privacy.delta is 0.34, wanted less than 1 / subjects"):
            site(settings).report()
        with pytest.raises(PrivacyError, match=r"privacy.delta is 0.34"):
            site(settings).train(Leader(settings).task(0))
        assert ledger_of(settings).plans == {}
        assert lines(settings) == []

    def test_site_that_only_measures_needs_no_budget(self, private, policy) -> None:
        little = policy(max_epsilon=0.5)
        settings = private(federation__held_out="A, C", privacy__epsilon=0.5)
        with pytest.raises(PrivacyError):
            site(private(privacy__epsilon=0.5), little).report()
        assert site(settings, little).report().train_subjects == 3
        assert site(settings, little).evaluate(Leader(settings).task(0)).values.keys() == BARE
        assert content(settings) == b""


class TestPlan:
    def test_it_is_made_once_and_read_back(self, settings, trained, monkeypatch) -> None:
        made, used, leader = [], [], Leader(settings)
        train = private_module.private_steps

        def plan(settings, *, subjects):
            made.append(plan_for(settings, subjects=subjects))
            return made[-1]

        def spy(*arguments, plan, **words):
            used.append(plan)
            return train(*arguments, plan=plan, **words)

        monkeypatch.setattr(private_module, "plan_for", plan)
        monkeypatch.setattr(private_module, "private_steps", spy)
        for number in range(2):
            leader.follow(site(settings).train(leader.task(number)))
        assert len(made) == 1
        assert used == [made[0]] * 2
        (line,) = ledger_of(settings).plans.values()
        assert line["noise_multiplier"] == 3.0
        assert line["epsilon"] == pytest.approx(cost(settings, rounds=2), rel=1e-9)

    @pytest.mark.parametrize("subject", ["sub-Acyd", "sub-Adan"])
    def test_people_who_changed_while_a_run_went_on_are_refused(self, settings, trained, subject) -> None:
        leader = Leader(settings)
        leader.follow(site(settings).train(leader.task(0)))
        before = content(settings)
        move(settings, subject, to="train" if subject == "sub-Adan" else "test")
        with pytest.raises(PrivacyError, match=r"training subjects changed.*begin a new run \(run.name\)"):
            site(settings).train(leader.task(1))
        assert content(settings) == before
        assert trained == [0]
        move(settings, subject, to="valid" if subject == "sub-Adan" else "train")
        site(settings).train(leader.task(1))

    def test_ledger_says_what_the_sampler_was_given(self, private, monkeypatch) -> None:
        given = []
        real = training_module.UniformWithReplacementSampler

        def spy(**words):
            given.append(words)
            return real(**words)

        monkeypatch.setattr(training_module, "UniformWithReplacementSampler", spy)
        settings = private(training__local_steps=3)
        site(settings).train(Leader(settings).task(0))
        (words,), (line,) = given, lines(settings)
        assert words["sample_rate"] == line.release.sampling_rate == pytest.approx(2 / 3)
        assert words["steps"] == line.release.steps == 3
        assert words["num_samples"] == 3


class TestNoise:
    def test_no_setting_of_a_run_chooses_it(self, settings, monkeypatch) -> None:
        """All that a server can say are settings and tasks; neither holds a seed of the noise."""
        names = set(settings.flat())
        assert {name for name in names if "seed" in name} == {"run.seed"}
        assert {name for name in names if "noise" in name} == {
            "privacy.noise-multiplier",
            "privacy.metrics-noise-multiplier",
            "sampling.noise",
        }
        assert not {name for name in names if "generator" in name or "chance" in name}
        given: dict[str, object] = {}
        monkeypatch.setattr(private_module, "private_steps", lambda *_, **words: given.update(words) or 0.5)
        site(settings).train(Leader(settings).task(0))
        assert given.keys() == {"settings", "place", "plan"}, "a release has no generator of its own"

    @pytest.mark.parametrize("unit", ["subject", "none"])
    def test_same_seed_and_data_do_not_give_the_same_update(self, private, store, unit, tmp_path) -> None:
        settings = private(privacy__unit=unit)
        shutil.copytree(store.path, tmp_path / "other" / "A")
        leader = Leader(settings)
        places = (store.path, tmp_path / "other" / "A")
        found = [vector(Site(place, settings).train(leader.task(0)), settings) for place in places]
        assert np.array_equal(*found) == (unit == "none")
