# SPDX-License-Identifier: Apache-2.0
"""What releases cost, by Opacus's accountants; nothing here is our own mathematics.

The neighbours of a data set are those with one subject more or less. A release is a Poisson-subsampled
Gaussian mechanism; releases on the same subject compose.
"""

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from opacus.accountants import create_accountant
from opacus.accountants.utils import get_noise_multiplier

from pasta_model.errors import PrivacyError

Accountant = Literal["prv", "rdp"]
ROUNDED_UP = 1e-3  # noise multipliers are rounded up to a multiple of it
LEAST_NOISE = 0.1  # below it accountants take minutes and epsilons are in the hundreds


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
    """
    history = [
        (r.noise_multiplier, r.sampling_rate, r.steps)
        for r in _merged(releases)
        if r.steps and r.sampling_rate
    ]
    if not history:
        return 0.0
    if min(sigma for sigma, _, _ in history) < LEAST_NOISE:
        return math.inf
    found = create_accountant(accountant)
    found.history = history
    with _quiet():
        return max(0.0, float(found.get_epsilon(delta=delta)))


def calibrated(
    *, epsilon: float, delta: float, sampling_rate: float, steps: int, accountant: Accountant = "prv"
) -> float:
    """Return the least noise multiplier with which so many steps cost at most `epsilon`, rounded up.

    Raises
    ------
    PrivacyError
        When no noise multiplier up to a million is enough.
    """
    try:
        with _quiet():
            found: float = get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=sampling_rate,
                steps=steps,
                accountant=accountant,
                epsilon_tolerance=min(0.01, epsilon / 100),
            )
    except ValueError as error:
        raise PrivacyError(
            f"no noise multiplier keeps {steps} steps within epsilon {epsilon:g} at delta {delta:g};"
            " allow a larger epsilon, or fewer rounds or local steps"
        ) from error
    return max(LEAST_NOISE, math.ceil(found / ROUNDED_UP) * ROUNDED_UP)


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
