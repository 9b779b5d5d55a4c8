# SPDX-License-Identifier: Apache-2.0
"""What releases cost, by Opacus's accountants; nothing here is our own mathematics.

Neighbours are two data sets of which one has a subject's data where the other has nothing in its place
("zero-out": Ponomareva et al., How to DP-fy ML, 2303.00654). How many subjects there are is no secret: it is
told, and sampling rate, noise and divisor are functions of it. A subject's gradient is clipped, and that of
nothing is 0, so the sum changes as with one subject more or less, which is what the accountants count. A
release is a Poisson-subsampled Gaussian mechanism; releases on the same subject compose.
"""

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from opacus.accountants import create_accountant
from scipy.optimize import brentq

from pasta_model.errors import PrivacyError

Accountant = Literal["prv", "rdp"]
LEAST_NOISE, MOST_NOISE = 0.1, 1e6  # below the least, epsilons are in the hundreds
FEW_ORDERS = (1.1, 1.25, 1.5, *range(2, 64))
PAST_MEANING = 100.0  # an epsilon from which on a tight bound is not worth its gigabytes
# PRV composes by a Fourier transform in float64, and its bound leaves rounding out: measured against the
# analytic Gaussian, the delta of a million steps is off by some 1e-10. A hundred times that is wanted.
PRV_DELTA, ROUNDING = 1e-8, 1e-14  # the least delta it is asked for, and the least of every step
FINE, TINY = 1e-3, 1e-12  # how close the least noise is found, of itself; nothing, where there are logarithms


@dataclass(frozen=True)
class Release:
    """A mechanism, used `steps` times with fresh noise.

    Attributes
    ----------
    noise_multiplier
        Standard deviation of the noise in units of what one subject can change.
    sampling_rate
        Probability with which a subject was drawn into a step; 1: all subjects, every time.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int


def epsilon(releases: Iterable[Release], *, delta: float, accountant: Accountant = "prv") -> float:
    """Return what these releases cost together: an upper bound of epsilon at `delta`; infinity without noise.

    PRV (Gopi et al., 2106.02848) is tight; RDP (Mironov et al., 1908.10530) is looser and cross-checks it.
    Both are upper bounds, so the smaller one is, too. RDP alone is the answer where PRV's rounding could
    count (a delta below 1e-8, or steps by the million), and, since PRV's memory grows with epsilon, where RDP
    (of few orders, which is quick) says that nothing is left to protect.
    """
    history = [
        (r.noise_multiplier, r.sampling_rate, r.steps)
        for r in _merged(releases)
        if r.steps and r.sampling_rate
    ]
    if not history:
        return 0.0
    if not all(sigma >= LEAST_NOISE for sigma, _, _ in history):
        return math.inf
    if accountant == "rdp" or delta < max(PRV_DELTA, ROUNDING * sum(steps for _, _, steps in history)):
        return _spent("rdp", history, delta=delta)
    bound = _spent("rdp", history, delta=delta, alphas=FEW_ORDERS)
    if bound > PAST_MEANING:
        return bound
    return min(bound, _spent("prv", history, delta=delta, eps_error=max(0.01, bound / 1000)))


def calibrated(
    *, epsilon: float, delta: float, sampling_rate: float, steps: int, accountant: Accountant = "prv"
) -> float:
    """Return the least noise multiplier with which so many steps cost at most `epsilon`, in thousandths.

    Raises
    ------
    PrivacyError
        When no noise multiplier up to a million is enough.
    """

    def excess(sigma: float) -> float:
        cost = _cost(Release(sigma, sampling_rate, steps), delta=delta, accountant=accountant)
        return math.log(max(cost, TINY) / epsilon)

    high = LEAST_NOISE
    while excess(high) > 0:
        high *= 2
        if high > MOST_NOISE:
            raise PrivacyError(
                f"no noise multiplier keeps {steps} steps within epsilon {epsilon:g} at delta {delta:g};"
                " allow a larger epsilon, or fewer rounds or local steps"
            )
    if high == LEAST_NOISE:
        return high
    found = float(brentq(excess, high / 2, high, rtol=FINE))
    while excess(found := math.ceil(1000 * found) / 1000) > 0:
        found *= 1 + FINE
    return found


def _cost(release: Release, *, delta: float, accountant: Accountant) -> float:
    return epsilon([release], delta=delta, accountant=accountant)


def _spent(name: Accountant, history: list[tuple[float, float, int]], **how: object) -> float:
    found = create_accountant(name)
    found.history = history
    try:
        with _quiet():
            spent = float(found.get_epsilon(**how))
    except (ValueError, ArithmeticError, MemoryError) as error:
        raise PrivacyError(
            f"the cost of {history} cannot be computed at {how} ({error}); choose a delta, noise multiplier"
            " and number of steps nearer to usual ones"
        ) from error
    return math.inf if math.isnan(spent) else max(0.0, spent)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Opacus's accountants say about bounds that hold all the same.

    RDP: the best order is the first or last of its table. PRV: log 0 = -infinity, as it should be.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _merged(releases: Iterable[Release]) -> list[Release]:
    """Count the steps of equal mechanisms together: composition does not depend on the order."""
    steps: dict[tuple[float, float], int] = {}
    for release in releases:
        key = (release.noise_multiplier, release.sampling_rate)
        steps[key] = steps.get(key, 0) + release.steps
    return [Release(sigma, rate, count) for (sigma, rate), count in sorted(steps.items())]
