# SPDX-License-Identifier: Apache-2.0
"""The lower bound of epsilon: against Clopper and Pearson, by hand, and against randomised response."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logit
from scipy.stats import beta

from pasta_model.errors import PrivacyError
from pasta_model.privacy.attacks.bound import lower_bound


@pytest.mark.parametrize(("guesses", "correct"), [(100, 90), (100, 100), (500, 300), (37, 30)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_without_delta_it_is_the_interval_of_clopper_and_pearson(guesses, correct, confidence) -> None:
    accuracy = beta.ppf(1 - confidence, correct, guesses - correct + 1)  # of randomised response
    found = lower_bound(canaries=1000, guesses=guesses, correct=correct, delta=0, confidence=confidence)
    assert found == pytest.approx(max(0.0, logit(accuracy)), abs=1e-9)


def test_one_guess_with_delta_by_hand() -> None:
    # q + 2 delta (1 - q) = 0.7 with delta 0.05: q = 0.6 / 0.9
    found = lower_bound(canaries=1, guesses=1, correct=1, delta=0.05, confidence=0.3)
    assert found == pytest.approx(math.log(2))


def test_two_guesses_with_delta_by_hand() -> None:
    # q^2 + 2 * 2 delta max(2 q (1 - q), (1 - q^2) / 2) = 0.5; the first is the larger one from q = 1/3:
    # 0.92 q^2 + 0.08 q = 0.5 with delta 0.01
    q = (-0.08 + math.sqrt(0.08**2 + 4 * 0.92 * 0.5)) / (2 * 0.92)
    found = lower_bound(canaries=2, guesses=2, correct=2, delta=0.01, confidence=0.5)
    assert found == pytest.approx(math.log(q / (1 - q)))


@given(
    canaries=st.integers(2, 400),
    share=st.floats(0.05, 1),
    delta=st.sampled_from([0.0, 1e-6, 1e-4, 1e-2]),
    data=st.data(),
)
def test_more_right_guesses_say_more_and_larger_deltas_less(canaries, share, delta, data) -> None:
    guesses = max(1, int(share * canaries))
    correct = data.draw(st.integers(0, guesses - 1))
    one = {"canaries": canaries, "guesses": guesses, "delta": delta}
    found = lower_bound(correct=correct, **one)
    assert 0 <= found <= lower_bound(correct=correct + 1, **one)
    assert lower_bound(correct=correct, **one | {"delta": 2 * delta}) <= found
    assert lower_bound(correct=correct, **one | {"canaries": canaries + 50}) <= found
    assert lower_bound(correct=correct, confidence=0.99, **one) <= found


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 0.0), (1.0, 1e-3), (2.0, 1e-2), (3.0, 1e-4)])
def test_at_most_what_randomised_response_has(epsilon, delta) -> None:
    """It answers truly with probability delta, else by a coin that is (epsilon, 0)-private."""
    rng, seeds, m = np.random.default_rng(7), 300, 400
    accuracy = delta + (1 - delta) / (1 + math.exp(-epsilon))
    right = rng.binomial(m, accuracy, size=seeds).tolist()
    known = {v: lower_bound(canaries=m, guesses=m, correct=v, delta=delta) for v in set(right)}
    bounds = [known[v] for v in right]
    missed = sum(bound > epsilon for bound in bounds)
    assert missed <= 0.05 * seeds + 3 * math.sqrt(0.05 * 0.95 * seeds)
    assert max(bounds) > 0.5 * epsilon or m * delta > 1  # and it is no empty statement


def test_guessing_says_nothing() -> None:
    assert lower_bound(canaries=1000, guesses=500, correct=250, delta=1e-5) == 0
    assert lower_bound(canaries=1000, guesses=0, correct=0, delta=1e-5) == 0


@pytest.mark.parametrize("wrong", [{"correct": 11}, {"guesses": 21}, {"delta": 1.0}, {"confidence": 1.0}])
def test_impossible_numbers_are_refused(wrong) -> None:
    usual = {"canaries": 20, "guesses": 10, "correct": 5, "delta": 0.1, "confidence": 0.95}
    with pytest.raises(PrivacyError, match="wanted right <= guesses"):
        lower_bound(**usual | wrong)
