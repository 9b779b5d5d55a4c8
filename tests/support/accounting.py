# SPDX-License-Identifier: Apache-2.0
"""The real accountant, which takes a tenth of a second, asked about each history once."""

from collections.abc import Iterable
from functools import cache

import pytest

import client.budget
import client.ledger
import pasta_model.privacy.plan
from pasta_model.privacy.accounting import Accountant, Release, calibrated, epsilon

calibrated_once = cache(calibrated)


@cache
def _asked(history: tuple[Release, ...], delta: float, accountant: Accountant) -> float:
    return epsilon(history, delta=delta, accountant=accountant)


def remembered(releases: Iterable[Release], *, delta: float, accountant: Accountant = "prv") -> float:
    """What `epsilon` says; composition does not depend on the order."""
    history = sorted(releases, key=lambda r: (r.noise_multiplier, r.sampling_rate, r.steps))
    return _asked(tuple(history), delta, accountant)


def remember(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ledgers, plans and accounts ask a cache."""
    for module in (client.ledger, pasta_model.privacy.plan, client.budget):
        monkeypatch.setattr(module, "epsilon", remembered)
    monkeypatch.setattr(pasta_model.privacy.plan, "calibrated", calibrated_once)
