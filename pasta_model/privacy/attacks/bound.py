# SPDX-License-Identifier: Apache-2.0
"""How private a mechanism can be at most, from guesses about one run (Steinke, Nasr, Jagielski 2305.08846).

Each of m canaries was in the run or not, by a coin of its own; the attacker guesses r of the coins and is
right about v. Were the run (epsilon, delta)-private, so many right guesses would be too lucky.
"""

import math

import numpy as np
from scipy.stats import binom

from pasta_model.errors import PrivacyError

HALVINGS = 50


def lower_bound(
    *, canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.95
) -> float:
    """Return the largest epsilon that is refuted: the truth is above it, with this confidence.

    Parameters
    ----------
    canaries, guesses, correct
        m, r and v: all that there were, those guessed at, those guessed right.

    Raises
    ------
    PrivacyError
        When no experiment has these numbers.
    """
    if not (0 <= correct <= guesses <= canaries and 0 <= delta < 1 and 0 < confidence < 1):
        raise PrivacyError(
            f"found {correct} right of {guesses} guesses at {canaries} canaries, delta {delta:g}, confidence"
            f" {confidence:g}; wanted right <= guesses <= canaries, delta in [0, 1), confidence in (0, 1)"
        )

    def refuted(epsilon: float) -> bool:
        luck = probability(canaries=canaries, guesses=guesses, correct=correct, epsilon=epsilon, delta=delta)
        return luck < 1 - confidence

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def probability(*, canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return at most how probable it is that so many guesses or more are right (theorem 5.2).

    With X ~ Binomial(r, q), q = e^epsilon / (1 + e^epsilon)::

        P[X >= v] + 2 m delta max_i P[v - i <= X < v] / i
    """
    q = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, q))
    if not (delta and correct):
        return min(1.0, tail)
    # A failure of probability delta may turn up to i wrong guesses into right ones, at a price of i.
    just_missed = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, q))
    worst = float((just_missed / np.arange(1, correct + 1)).max())
    return min(1.0, tail + 2 * canaries * delta * worst)
