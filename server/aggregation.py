# SPDX-License-Identifier: Apache-2.0
"""Averaging the sites' weights: FedAvg by subjects, with a cap, one reply at a time."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class _Contribution:
    site: str
    subjects: int
    buffers: Buffers


class CappedAverage:
    """Mean of the sites' buffers by subjects, none above the cap, added one at a time.

    Who answers is known only at the end, and so are the shares. At most 1 / cap sites can be capped,
    and only the largest: those are held, all others go into one sum. Memory is bounded by 1 / cap + 2
    models, however many sites there are.
    """

    def __init__(self, *, cap: float) -> None:
        self._cap = cap
        self._held: list[_Contribution] = []
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._summed = 0
        self._subjects: dict[str, int] = {}

    def add(self, site: str, buffers: Buffers, *, subjects: int) -> None:
        """Add one site's buffers.

        Raises
        ------
        ExchangeError
            When the buffers are not those of the sites before, or cannot be averaged.
        """
        if self._held:
            shapes, wanted = ({n: b.shape for n, b in x.items()} for x in (buffers, self._held[0].buffers))
            if shapes != wanted:
                raise ExchangeError(f"buffers of shapes {shapes} do not fit the others', {wanted}")
        for name in buffers:
            if not name.startswith(("float32.", "float64.", "float16.")):
                raise ExchangeError(f"buffer {name!r} cannot be averaged; wanted floating point")
        self._subjects[site] = subjects
        self._held.append(_Contribution(site, subjects, buffers))
        self._held.sort(key=lambda c: (c.subjects, c.site))
        if len(self._held) > max(1, int(1 / self._cap + 1e-9)):
            self._fold(self._held.pop(0))

    def shares(self) -> dict[str, float]:
        """Return the share of each site that was added."""
        return capped_shares(self._subjects, cap=self._cap)

    def result(self) -> Buffers:
        """Return the mean, in the buffers' own dtypes.

        Raises
        ------
        ExchangeError
            When nothing was added.
        """
        if not self._held:
            raise ExchangeError("no site's weights arrived; nothing to average")
        shares = self.shares()
        rest = max(0.0, 1 - sum(shares[c.site] for c in self._held))
        mean: Buffers = {}
        for name, buffer in self._held[0].buffers.items():
            total = np.zeros(buffer.shape, np.float64)
            if self._summed:
                total += self._sums[name] * (rest / self._summed)
            for held in self._held:
                total += shares[held.site] * held.buffers[name].astype(np.float64)
            mean[name] = total.astype(buffer.dtype)
        return mean

    def _fold(self, smallest: _Contribution) -> None:
        for name, buffer in smallest.buffers.items():
            part = smallest.subjects * buffer.astype(np.float64)
            self._sums[name] = self._sums[name] + part if name in self._sums else part
        self._summed += smallest.subjects


def moving_average(average: Buffers, current: Buffers, *, decay: float) -> Buffers:
    """Exponential moving average of the weights: decay * average + (1 - decay) * current."""
    return {
        name: (decay * average[name] + (1 - decay) * value).astype(value.dtype)
        for name, value in current.items()
    }
