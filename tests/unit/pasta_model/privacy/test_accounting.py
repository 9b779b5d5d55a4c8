# SPDX-License-Identifier: Apache-2.0
"""What releases cost: closed forms, published numbers, and what must hold of any accountant."""

import math
import resource

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from opacus.accountants.utils import get_noise_multiplier
from scipy.optimize import brentq
from scipy.stats import norm

from pasta_model.errors import PrivacyError
from pasta_model.privacy import accounting
from pasta_model.privacy.accounting import LEAST_NOISE, Release, calibrated, epsilon
from pasta_model.privacy.plan import MOST_STEPS

BOTH = pytest.mark.parametrize("accountant", ["prv", "rdp"])
LOOSE = 0.02  # what PRV adds to be an upper bound


def gaussian_epsilon(releases: list[Release], delta: float) -> float:
    """Return epsilon of all subjects, every time (Balle & Wang 1805.06530, theorem 8): one Gaussian of mu."""
    mu = math.sqrt(sum(r.steps / r.noise_multiplier**2 for r in releases))

    def excess(found: float) -> float:
        above = norm.cdf(-found / mu + mu / 2)
        return above - math.exp(found + norm.logcdf(-found / mu - mu / 2)) - delta

    return 0.0 if excess(0) <= 0 else brentq(excess, 0, mu * mu / 2 + 40 * mu)


def subsampled_epsilon(sigma: float, q: float, delta: float, *, removed: bool) -> float:
    """Return epsilon of one step from the two densities themselves, where their ratio crosses e^epsilon."""

    def excess(found: float) -> float:
        ratio = math.exp(found if removed else -found)  # of mixture to plain Gaussian, on the boundary
        if ratio <= 1 - q:
            return -delta  # the mixture is nowhere so thin
        x = sigma**2 * math.log((ratio - 1 + q) / q) + 0.5
        side = norm.sf if removed else norm.cdf
        plain = side(x, 0, sigma)
        mixture = (1 - q) * plain + q * side(x, 1, sigma)
        more, less = (mixture, plain) if removed else (plain, mixture)
        return more - math.exp(found) * less - delta

    return 0.0 if excess(0) <= 0 else brentq(excess, 0, 50)


class TestGolden:
    def test_opacus_number(self) -> None:
        found = epsilon([Release(1.5, 0.04, 2250)], delta=1e-5, accountant="rdp")
        assert found == pytest.approx(7.32911117143, abs=1e-10)

    @pytest.mark.parametrize(("wanted", "sigma"), [(10, 1.47), (3, 3.39), (1, 8.36)])
    def test_reference_noise_of_the_method(self, wanted: float, sigma: float) -> None:
        found = calibrated(epsilon=wanted, delta=1e-3, sampling_rate=16 / 250, steps=2000, accountant="rdp")
        assert found == pytest.approx(sigma, rel=0.03)
        assert epsilon([Release(sigma, 16 / 250, 2000)], delta=1e-3, accountant="rdp") < wanted * 1.001

    @pytest.mark.parametrize(
        "releases",
        [
            [Release(1.0, 1.0, 1)],
            [Release(10.0, 1.0, 100)],
            [Release(30.0, 1.0, 900), Release(4.0, 1.0, 3)],
            [Release(8.0, 1.0, 20), Release(20.0, 1.0, 7), Release(3.0, 1.0, 1)],
            [Release(1.0, 1.0, 60)],  # an epsilon of 50, on a coarser grid
        ],
    )
    @pytest.mark.parametrize("delta", [1e-3, 1e-6])
    def test_everybody_every_time_is_the_analytic_gaussian(self, releases, delta: float) -> None:
        exact = gaussian_epsilon(releases, delta)
        assert exact <= epsilon(releases, delta=delta) <= exact * 1.003 + LOOSE
        assert exact <= epsilon(releases, delta=delta, accountant="rdp") <= exact * 1.3 + 0.2

    @pytest.mark.parametrize(("sigma", "q"), [(0.6, 0.3), (1.0, 0.064), (2.0, 0.5), (0.5, 0.01)])
    def test_one_sampled_step_is_that_of_its_two_densities(self, sigma: float, q: float) -> None:
        exact = max(subsampled_epsilon(sigma, q, 1e-4, removed=removed) for removed in (True, False))
        assert exact > 0.05
        assert exact <= epsilon([Release(sigma, q, 1)], delta=1e-4) <= exact + LOOSE

    @pytest.mark.parametrize(
        ("history", "delta", "rdp", "pld"),
        [
            ([(1.2, 0.05, 500)], 1e-5, 5.928426128841066, 5.397893379742729),
            ([(1.47, 0.064, 2000)], 1e-3, 9.656458914319265, 8.625221517489033),
            ([(1.0, 0.02, 50), (2.0, 0.1, 42), (4.0, 0.5, 10)], 1e-3, 1.8939357786665558, 1.625091857401095),
        ],
    )
    def test_as_google_counts(self, history, delta: float, rdp: float, pld: float) -> None:
        # dp-accounting 0.6.0, RdpAccountant (with other orders) and PLDAccountant (tight, as PRV is).
        releases = [Release(*values) for values in history]
        assert epsilon(releases, delta=delta, accountant="rdp") == pytest.approx(rdp, rel=0.005)
        assert pld <= epsilon(releases, delta=delta) <= pld + LOOSE


class TestCorners:
    """All that settings accept, against the analytic Gaussian, computed here by hand."""

    @pytest.mark.parametrize("mu", [0.03, 0.1, 0.3, 0.7, 1.2, 2.0, 4.0])
    @pytest.mark.parametrize("delta", [1e-12, 1e-11, 1e-10, 3e-10, 1e-9, 9.9e-9])
    @pytest.mark.parametrize("steps", [1, 100_000, MOST_STEPS])
    def test_deltas_for_which_prv_is_not_asked(self, steps: int, delta: float, mu: float) -> None:
        releases = [Release(math.sqrt(steps) / mu, 1.0, steps)]
        assert gaussian_epsilon(releases, delta) <= epsilon(releases, delta=delta)

    def test_the_least_delta_and_the_most_steps_for_which_it_is(self) -> None:
        releases = [Release(math.sqrt(MOST_STEPS) / 0.7, 1.0, MOST_STEPS)]
        exact = gaussian_epsilon(releases, 1e-8)
        found = epsilon(releases, delta=1e-8)
        assert exact <= found <= exact * 1.003 + LOOSE
        assert abs(found - exact - 0.01) < 0.002, "PRV adds 0.01 to its estimate, which is off by far less"

    def test_the_most_steps_for_every_delta(self) -> None:
        both = [Release(2000.0, 1.0, MOST_STEPS), Release(3000.0, 1.0, 1)]
        rdp = epsilon(both, delta=1e-8, accountant="rdp")
        assert epsilon(both, delta=1e-8) == rdp
        assert epsilon(both[1:], delta=1e-8) < epsilon(both[1:], delta=1e-8, accountant="rdp")


class TestEdges:
    @BOTH
    def test_nothing_costs_nothing(self, accountant: str) -> None:
        for nothing in ([], [Release(1.0, 0.1, 0)], [Release(0.0, 0.1, 0)], [Release(0.0, 0.0, 9)]):
            assert epsilon(nothing, delta=1e-4, accountant=accountant) == 0.0

    @BOTH
    @pytest.mark.parametrize("sigma", [0.0, LEAST_NOISE / 2, math.nan])
    def test_no_noise_costs_everything(self, accountant: str, sigma: float) -> None:
        releases = [Release(5.0, 0.1, 10), Release(sigma, 0.1, 1)]
        assert epsilon(releases, delta=1e-4, accountant=accountant) == math.inf

    def test_an_accountant_that_fails_says_everything(self, monkeypatch) -> None:
        class Lost:
            def get_epsilon(self, **_: float) -> float:
                return math.nan

        monkeypatch.setattr(accounting, "create_accountant", lambda _: Lost())
        assert epsilon([Release(1.0, 0.1, 10)], delta=1e-4) == math.inf

    def test_large_epsilons_fit_into_memory(self) -> None:
        # PRV's table for this one would have 3.7e9 rows.
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = epsilon([Release(0.3, 1.0, 10_000)], delta=1e-4)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert found >= gaussian_epsilon([Release(0.3, 1.0, 10_000)], 1e-4)
        assert after - before < 200_000  # kB

    def test_delta_of_anything_is_no_less_than_nothing(self) -> None:
        # RDP's conversion falls below 0 for a large delta.
        assert epsilon([Release(700.0, 1.0, 1)], delta=0.05, accountant="rdp") == 0.0


RELEASES = st.builds(
    Release,
    noise_multiplier=st.floats(0.8, 30),
    sampling_rate=st.floats(0.005, 0.2),
    steps=st.integers(1, 400),
)


@hypothesis_settings(max_examples=5)
@given(release=RELEASES, more=st.integers(1, 400), factor=st.floats(1.1, 3))
def test_less_noise_more_draws_or_more_steps_cost_more(release: Release, more: int, factor: float) -> None:
    sigma, q, steps = release.noise_multiplier, release.sampling_rate, release.steps
    worse = [
        Release(sigma / factor, q, steps),
        Release(sigma, min(1.0, q * factor), steps),
        Release(sigma, q, steps + more),
    ]
    tight, loose = (epsilon([release], delta=1e-4, accountant=a) for a in ("prv", "rdp"))
    assert 0 < tight <= loose + LOOSE
    for other in worse:
        assert epsilon([other], delta=1e-4) > tight - 1e-4  # PRV's grid
        assert epsilon([other], delta=1e-4, accountant="rdp") >= loose - 1e-9


@BOTH
def test_order_and_division_do_not_matter(accountant: str) -> None:
    a, b, c = Release(2.0, 0.1, 30), Release(1.0, 0.02, 50), Release(2.0, 0.1, 12)
    costs = {epsilon(order, delta=1e-4, accountant=accountant) for order in ([a, b, c], [c, a, b], [b, c, a])}
    costs.add(epsilon([b, Release(2.0, 0.1, 42)], delta=1e-4, accountant=accountant))
    costs.add(epsilon([Release(2.0, 0.1, 1)] * 42 + [b], delta=1e-4, accountant=accountant))
    assert len(costs) == 1
    assert costs.pop() > epsilon([a, b], delta=1e-4, accountant=accountant)


class TestCalibrated:
    @BOTH
    @pytest.mark.parametrize(
        ("wanted", "q", "steps"),
        [
            (0.3, 0.05, 40),
            (3.0, 0.064, 100),
            (8.0, 1.0, 50),
            (1000.0, 0.064, 640),  # Opacus's own search takes gigabytes here
        ],
    )
    def test_keeps_to_epsilon_and_is_the_least(self, accountant, wanted: float, q: float, steps: int) -> None:
        sigma = calibrated(epsilon=wanted, delta=1e-4, sampling_rate=q, steps=steps, accountant=accountant)
        assert epsilon([Release(sigma, q, steps)], delta=1e-4, accountant=accountant) <= wanted
        less = epsilon([Release(0.99 * sigma, q, steps)], delta=1e-4, accountant=accountant)
        assert less > wanted or sigma == LEAST_NOISE
        assert round(1000 * sigma) / 1000 == sigma, "as it is written, so it is"

    @pytest.mark.filterwarnings("ignore:Optimal order", "ignore:divide by zero")
    @BOTH
    def test_opacus_finds_the_same(self, accountant: str) -> None:
        common = {"steps": 640, "accountant": accountant}
        ours = calibrated(epsilon=3.0, delta=1e-4, sampling_rate=1.0, **common)
        theirs = get_noise_multiplier(
            target_epsilon=3.0, target_delta=1e-4, sample_rate=1.0, epsilon_tolerance=0.003, **common
        )
        assert ours == pytest.approx(theirs, rel=0.005)

    def test_an_epsilon_that_no_noise_reaches(self) -> None:
        with pytest.raises(PrivacyError, match=r"10 steps within epsilon 0\.001 at delta 0\.0001; allow"):
            calibrated(epsilon=0.001, delta=1e-4, sampling_rate=1.0, steps=10)
