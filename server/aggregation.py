# SPDX-License-Identifier: Apache-2.0
"""Averaging the sites' weights: FedAvg by subjects, with a cap, one reply at a time."""

from collections.abc import Mapping

import numpy as np

from pasta_model.errors import ExchangeError
from pasta_model.exchange.packing import Buffers


def capped_shares(subjects: Mapping[str, int], *, cap: float) -> dict[str, float]:
    """Each site's share of the average, by its subjects, none above `cap`.

    What a capped site loses goes to the others in proportion. With too few sites for the cap to be
    possible (cap x sites < 1) all shares are equal.

    Raises
    ------
    ExchangeError
        When a site has no subject.
    """
    empty = sorted(site for site, n in subjects.items() if n <= 0)
    if empty:
        raise ExchangeError(f"sites without a training subject: {', '.join(empty)}; leave them out")
    if cap * len(subjects) <= 1:
        return {site: 1 / len(subjects) for site in subjects}
    shares: dict[str, float] = {}
    free = dict(subjects)
    while True:
        rest, total = 1 - sum(shares.values()), sum(free.values())
        over = [site for site, n in free.items() if rest * n / total > cap * (1 + 1e-12)]
        if not over:
            return {**shares, **{site: rest * n / total for site, n in free.items()}}
        for site in over:
            shares[site] = cap
            del free[site]


class RunningAverage:
    """Weighted mean of buffers, added one at a time: memory for two models, however many sites."""

    def __init__(self) -> None:
        self._sums: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
        self._dtypes: dict[str, np.dtype[np.generic]] = {}
        self._weight = 0.0

    def add(self, buffers: Buffers, *, weight: float) -> None:
        """Add one site's buffers.

        Raises
        ------
        ExchangeError
            When the buffers are not those of the sites before, or cannot be averaged.
        """
        if not self._sums:
            self._sums = {name: np.zeros(b.shape, np.float64) for name, b in buffers.items()}
            self._dtypes = {name: b.dtype for name, b in buffers.items()}
        shapes = {name: b.shape for name, b in buffers.items()}
        if shapes != {name: s.shape for name, s in self._sums.items()}:
            raise ExchangeError(f"buffers of shapes {shapes} do not fit those of the other sites")
        for name, buffer in buffers.items():
            if not name.startswith(("float32.", "float64.", "float16.")):
                raise ExchangeError(f"buffer {name!r} cannot be averaged; wanted floating point")
            self._sums[name] += weight * buffer.astype(np.float64)
        self._weight += weight

    def result(self) -> Buffers:
        """Return the mean, in the buffers' own dtypes.

        Raises
        ------
        ExchangeError
            When nothing was added.
        """
        if self._weight <= 0:
            raise ExchangeError("no site's weights arrived; nothing to average")
        return {n: (s / self._weight).astype(self._dtypes[n]) for n, s in self._sums.items()}


def moving_average(average: Buffers, current: Buffers, *, decay: float) -> Buffers:
    """Exponential moving average of the weights: decay * average + (1 - decay) * current."""
    return {
        name: (decay * average[name] + (1 - decay) * value).astype(value.dtype)
        for name, value in current.items()
    }
