# SPDX-License-Identifier: Apache-2.0
"""What the server makes of the sites' updates, one buffer at a time: combine them, then take a step.

The rules are those of Flower's strategies, and the tests hold them against Flower's own classes. They are
written here because Flower's keep every reply in memory, FedAdam answers in float64, and an optimizer's state
is lost with its object; here a buffer is at most 4 MiB and the state is on disk with the round.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pasta_model.errors import ExchangeError
from pasta_model.federated_sections import AggregationSettings

Floats = NDArray[np.float32]


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


def equal_shares(sites: Iterable[str]) -> dict[str, float]:
    """Return the same share for every site, whatever it brings: there is nothing to cap."""
    names = list(sites)
    return {site: 1 / len(names) for site in names}


def combined(
    updates: Iterable[tuple[str, Floats]], shares: Mapping[str, float], settings: AggregationSettings
) -> Floats:
    """Make one update of the sites': their mean by shares, or coordinate-wise median or trimmed mean.

    The mean holds one update at a time; the other two hold this buffer of every site.
    """
    if settings.rule == "median":
        return np.asarray(np.median([values for _, values in updates], axis=0), np.float32)
    if settings.rule == "trimmed-mean":
        stack = np.stack([values for _, values in updates])
        return np.asarray(stats.trim_mean(stack, settings.trim, axis=0), np.float32)
    return weighted_sum(updates, shares).astype(np.float32)


def weighted_sum(updates: Iterable[tuple[str, Floats]], weights: Mapping[str, float]) -> NDArray[np.float64]:
    """Add the sites' updates, each times its weight, in float64; one is held at a time.

    Raises
    ------
    ExchangeError
        When there is none.
    """
    total: NDArray[np.float64] | None = None
    for site, values in updates:
        part = weights[site] * values.astype(np.float64)
        total = part if total is None else total + part
    if total is None:
        raise ExchangeError("no site's update arrived; nothing to average")
    return total


STATES = {"fedavgm": ("momentum",), "fedadam": ("momentum", "second")}
STATES |= dict.fromkeys(("fedyogi", "fedadagrad"), STATES["fedadam"])


def optimizer_state(settings: AggregationSettings) -> tuple[str, ...]:
    """Names of the vectors that the server optimizer remembers."""
    return STATES.get(settings.rule, ())


def server_step(
    weights: Floats,
    update: Floats,
    state: Mapping[str, Floats],
    *,
    settings: AggregationSettings,
    number: int,
) -> tuple[Floats, dict[str, Floats]]:
    """Take a step of the server optimizer (Reddi et al., 2003.00295, algorithm 2) on one buffer.

    Parameters
    ----------
    weights, update
        The global weights, and the sites' combined difference to what they received.
    state
        What the optimizer remembers; empty in the first round, which is to say zero.
    number
        Of the round, from 0.
    """
    s, lr = settings, np.float32(settings.learning_rate)
    zero = np.zeros_like(weights)
    if s.rule == "fedavgm":
        # Hsu et al. (1909.06335): v = beta v + update; w = w + lr v.
        momentum = np.float32(s.momentum) * state.get("momentum", zero) + update
        return weights + lr * momentum, {"momentum": momentum}
    if s.rule in STATES:
        b1, b2 = np.float32(s.momentum), np.float32(s.second_momentum)
        momentum = b1 * state.get("momentum", zero) + (1 - b1) * update
        second, square = state.get("second", zero), update * update
        if s.rule == "fedadagrad":
            second = second + square
        elif s.rule == "fedyogi":
            second = second - (1 - b2) * square * np.sign(second - square)
        else:
            second = b2 * second + (1 - b2) * square
            # Adam's bias correction (1412.6980, section 2), as Flower does.
            corrected = s.learning_rate * np.sqrt(1 - s.second_momentum ** (number + 1))
            lr = np.float32(corrected / (1 - s.momentum ** (number + 1)))
        moved = weights + lr * momentum / (np.sqrt(second) + np.float32(s.tau))
        return moved, {"momentum": momentum, "second": second}
    return weights + lr * update, {}


def moving_average(average: Floats, current: Floats, *, decay: float) -> Floats:
    """Exponential moving average of the weights: decay * average + (1 - decay) * current."""
    return (decay * average + (1 - decay) * current).astype(np.float32)
