# SPDX-License-Identifier: Apache-2.0
"""A run's plan: made before anything is spent, and refused where it promises nothing."""

import re
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.config import Settings
from pasta_model.errors import PrivacyError
from pasta_model.privacy.accounting import LEAST_NOISE, Release, epsilon
from pasta_model.privacy.plan import Plan, delta_problem, error_plan, largest, plan_for, refuse_impossible


@pytest.fixture
def private(make_settings):
    """Settings of a run of ten rounds of four steps, private by subjects."""

    def make(**changes) -> Settings:
        usual = {
            "privacy__unit": "subject",
            "privacy__subjects_per_step": 16,
            "privacy__delta": 1e-3,
            "federation__rounds": 10,
            "training__local_steps": 4,
        }
        return make_settings(**usual | changes)

    return make


class TestMade:
    @pytest.mark.parametrize("accountant", ["prv", "rdp"])
    def test_noise_is_the_least_that_keeps_to_epsilon(self, private, accountant: str) -> None:
        found = plan_for(private(privacy__epsilon=2.0, privacy__accountant=accountant), subjects=250)
        assert (found.subjects, found.steps, found.accountant) == (250, 40, accountant)
        assert (found.sampling_rate, found.delta, found.max_grad_norm) == (16 / 250, 1e-3, 1.0)
        assert found.expected_subjects == pytest.approx(16)
        assert 1.95 < found.epsilon <= 2.0
        assert found.epsilon == epsilon([found.release(40)], delta=1e-3, accountant=accountant)
        less = Release(0.99 * found.noise_multiplier, 16 / 250, 40)
        assert epsilon([less], delta=1e-3, accountant=accountant) > 2.0

    def test_own_noise_is_taken_and_its_cost_told(self, private) -> None:
        found = plan_for(private(privacy__noise_multiplier=1.25, privacy__epsilon=50), subjects=100)
        assert found.noise_multiplier == 1.25
        assert found.release(7) == Release(1.25, 0.16, 7)
        assert found.epsilon == epsilon([Release(1.25, 0.16, 40)], delta=1e-3) < 50

    @pytest.mark.parametrize(
        ("subjects", "rate", "expected"), [(15, 1.0, 15), (16, 1.0, 16), (17, 16 / 17, 16), (64, 0.25, 16)]
    )
    def test_a_small_site_takes_everybody(self, private, subjects: int, rate: float, expected: float) -> None:
        found = plan_for(private(privacy__noise_multiplier=20.0), subjects=subjects)
        assert found.sampling_rate == rate
        assert found.expected_subjects == pytest.approx(expected)

    def test_an_epsilon_without_meaning_needs_hardly_any_noise(self, private) -> None:
        found = plan_for(private(privacy__epsilon=1e6), subjects=250)
        assert found.noise_multiplier == LEAST_NOISE
        assert 100 < found.epsilon < 1e6

    @pytest.mark.parametrize("subjects", [16, 80])
    def test_a_plan_made_is_a_plan_kept(self, private, subjects: int) -> None:
        # The noise that was computed is accepted again, as it is written.
        made = plan_for(private(privacy__epsilon=0.7), subjects=subjects)
        again = private(privacy__epsilon=0.7, privacy__noise_multiplier=float(f"{made.noise_multiplier:g}"))
        assert plan_for(again, subjects=subjects) == made


class TestRefused:
    def said(self, settings: Settings, subjects: int) -> str:
        with pytest.raises(PrivacyError) as caught:
            plan_for(settings, subjects=subjects)
        return str(caught.value)

    @pytest.mark.parametrize("subjects", [1000, 1001, 5000])
    def test_a_delta_that_lets_a_scan_be_published(self, private, subjects: int) -> None:
        said = self.said(private(), subjects)
        assert "privacy.delta is 0.001, wanted less than 1 / subjects = " in said
        assert f"publishing one of {subjects} scans" in said
        assert "1 problem(s)" in said

    def test_the_largest_delta_is_below_that(self, private) -> None:
        refuse_impossible(private(), subjects=999)

    @pytest.mark.parametrize("subjects", [0, -1])
    def test_a_site_where_nobody_trains(self, private, subjects: int) -> None:
        assert "no subject trains here, wanted at least 1" in self.said(private(), subjects)

    @pytest.mark.parametrize("unit", ["none", "site"])
    def test_another_unit(self, private, unit: str) -> None:
        assert f"privacy.unit is '{unit}', wanted 'subject'" in self.said(
            private(privacy__unit=unit, aggregation__shares="equal"), 100
        )

    def test_all_at_once(self, private) -> None:
        said = self.said(private(privacy__unit="none"), 2000)
        assert "2 problem(s)" in said
        assert "privacy.unit" in said
        assert "privacy.delta" in said

    def test_more_rounds_than_the_budget_holds(self, private) -> None:
        changed = {"privacy__noise_multiplier": 9.0, "privacy__epsilon": 3.0}
        said = self.said(private(**changed, federation__rounds=100), 16)
        whole = epsilon([Release(9.0, 1.0, 400)], delta=1e-3)
        assert (
            f"100 rounds of 4 steps at noise multiplier 9 cost epsilon {whole:.2f}, wanted at most 3" in said
        )
        (fitting,) = map(int, re.findall(r"that holds (\d+) round", said))
        assert 1 < fitting < 100
        assert plan_for(private(**changed, federation__rounds=fitting), subjects=16).epsilon <= 3.0
        one_more = self.said(private(**changed, federation__rounds=fitting + 1), 16)
        assert f"that holds {fitting} round" in one_more

    @pytest.mark.parametrize("noise", [LEAST_NOISE / 2, 0.3])
    def test_noise_of_which_no_round_fits(self, private, noise: float) -> None:
        said = self.said(private(privacy__noise_multiplier=noise, privacy__epsilon=1.0), 100)
        assert "that holds 0 round(s)" in said
        assert "privacy.noise-multiplier = 0" in said

    def test_an_epsilon_that_no_noise_reaches(self, private) -> None:
        said = self.said(private(privacy__epsilon=1e-6), 15)
        assert "no noise multiplier keeps 40 steps within epsilon 1e-06 at delta 0.001" in said


class TestErrors:
    """What noised validation errors cost those who validate."""

    def test_one_with_every_update_and_one_of_the_last_model(self, private) -> None:
        made = error_plan(private(privacy__metrics="noised"))
        assert made is not None
        assert (made.errors, made.noise_multiplier, made.delta) == (11, 10.0, 1e-3)
        assert made.epsilon == epsilon([Release(10.0, 1.0, 11)], delta=1e-3)
        alone = error_plan(private(privacy__metrics="noised"), trains=False)
        assert alone is not None
        assert alone.errors == 1

    @pytest.mark.parametrize(
        "changes",
        [{"privacy__metrics": "withheld"}, {"privacy__unit": "none", "privacy__metrics": "noised"}],
        ids=str,
    )
    def test_none_is_told(self, private, changes: dict[str, str]) -> None:
        assert error_plan(private(**changes)) is None

    def test_more_than_the_run_promises(self, private) -> None:
        """The finding: one error of multiplier 0.5 costs 7.6, and the plan said 2.999."""
        changed = {"privacy__metrics": "noised", "privacy__epsilon": 3.0, "privacy__delta": 1e-4}
        with pytest.raises(PrivacyError) as caught:
            error_plan(private(**changed, privacy__metrics_noise_multiplier=0.5))
        said = str(caught.value)
        assert "11 noised validation error(s)" in said
        assert "that holds 0." in said
        (enough,) = map(float, re.findall(r"Set it to ([\d.]+) or more", said))
        made = error_plan(private(**changed, privacy__metrics_noise_multiplier=enough))
        assert made is not None
        assert made.epsilon <= 3.0
        with pytest.raises(PrivacyError):
            error_plan(private(**changed, privacy__metrics_noise_multiplier=0.98 * enough))


def test_delta_by_name() -> None:
    assert "max-delta is 0.5, wanted less than 1 / subjects = 0.01" in delta_problem(
        "max-delta", 0.5, subjects=100
    )
    assert delta_problem("max-delta", 0.01, subjects=100)
    assert not delta_problem("max-delta", 0.0099, subjects=100)
    assert not delta_problem("max-delta", 0.5, subjects=0)


@given(limit=st.integers(0, 70), most=st.integers(1, 60))
def test_largest_that_holds(limit: int, most: int) -> None:
    assert largest(lambda number: number <= limit, most) == min(limit, most)


def test_a_plan_is_not_changed_later() -> None:
    made = Plan(10, 0.5, 1.0, 1.0, 4, 9.0, 1e-3, "prv")
    with pytest.raises(FrozenInstanceError):
        made.noise_multiplier = 0.0
