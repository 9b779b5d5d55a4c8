# SPDX-License-Identifier: Apache-2.0
"""A ledger under audit: the site makes the rounds in its own way, and what its ledger says is the claim.

Nothing is seeded, as in a release, and no test leaves it to luck. Everybody is in each of T = 80 steps, so a
canary's score is that of N(T, T sigma^2) in clip norms, everybody else's that of N(0, T sigma^2); of the
guesses about the quarters at both ends, 120, so many are right on average, and the audit accuses from:

==========================  =====  ========  ==============  ==========================================
case                        sigma  right     accuses from    probability that a test fails (binomial)
==========================  =====  ========  ==============  ==========================================
honest, epsilon 1.77        20     77        110             2e-12: it would have to accuse
lies, epsilon 1.37 or less  4      117       104             7e-9: it would have to be silent
noise off                   20     all       110             1e-15: fewer than 60 of 240 coins on a side
==========================  =====  ========  ==============  ==========================================
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client import private as private_module
from client.ledger import Ledger
from client.people import default_ledger, names, open_ledger
from client.private import Privacy
from client.spending import Limit
from pasta_model.exchange.contents import TrainTask
from pasta_model.privacy import mechanism
from pasta_model.privacy.attacks.canaries import CanaryAudit, audit_canaries
from pasta_model.privacy.plan import plan_for
from pasta_model.privacy.training import private_steps
from pasta_model.training import Place
from tests.support.tasks import PLAIN

DELTA, ROUNDS, LOCAL_STEPS, CANARIES = 1e-5, 2, 40, 240
PRIVATE = {
    "training__local_steps": LOCAL_STEPS,
    "federation__rounds": ROUNDS,
    "privacy__unit": "subject",
    "privacy__epsilon": 100.0,
    "privacy__delta": DELTA,
    "privacy__subjects_per_step": 3,  # all who train here
    "privacy__accountant": "rdp",  # the quick one, for what is asked before a round
}
Audit = Callable[[float], CanaryAudit]


class Fits:
    """The site's persons, each of whom fits a line."""

    def __init__(self, network: nn.Module, persons: list[str]) -> None:
        self.names = persons
        self._network = network
        data = torch.randn(len(persons), 2, 40, generator=torch.Generator().manual_seed(3))
        self._data = dict(zip(persons, data, strict=True))

    def backward(self, name: str) -> Tensor:
        x, y = self._data[name]
        loss = (self._network(x) - y).square().mean()
        loss.backward()
        return loss.detach()


@pytest.fixture
def audit(make_settings, make_store, monkeypatch) -> Audit:
    """Audit a site that has just been prepared; its ledger is empty."""
    store = make_store()
    path, persons = default_ledger(store.path), store.persons("train")

    def run(sigma: float) -> CanaryAudit:
        settings = make_settings(privacy__noise_multiplier=sigma, **PRIVATE)
        privacy = Privacy(store, settings, None, path)
        network = nn.Linear(40, 40, bias=False)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

        def one_round(number: int, subjects, look) -> None:
            monkeypatch.setattr(private_module, "SlabSubjects", lambda *_, **__: subjects)
            monkeypatch.setattr(private_module, "private_steps", partial(private_steps, on_release=look))
            task, place = TrainTask(store.site, number, PLAIN, "", f"{number:064x}", ()), Place("A", number)
            with privacy.round(task) as plan:
                privacy.train(SimpleNamespace(network=network), None, optimizer, place=place, plan=plan)
                privacy.release(task)

        def claim(steps: int) -> float:
            assert steps == ROUNDS * LOCAL_STEPS
            return open_ledger(path, store).spent(names(store, "train"), Limit(100.0, DELTA))

        return audit_canaries(
            network,
            Fits(network, sorted(persons)),
            optimizer,
            settings=settings,
            plan=plan_for(settings, subjects=len(persons)),
            canaries=CANARIES,
            rounds=ROUNDS,
            rng=np.random.default_rng(),
            one_round=one_round,
            claim=claim,
        )

    return run


def test_a_lower_bound_stays_below_what_an_honest_ledger_says(audit: Audit) -> None:
    found = audit(20.0)
    assert found.claimed == pytest.approx(1.77, abs=0.01)  # of all 80 steps
    assert found.lower_bound <= found.claimed
    assert not found.caught
    assert not found.blind


@pytest.mark.parametrize(
    "lie",
    [
        {"steps": 1},  # a round counts as a step
        {"sampling_rate": 0.01},
        {"noise_multiplier": 40.0},
    ],
    ids=lambda lie: next(iter(lie)),
)
def test_a_ledger_that_lies_is_caught(audit: Audit, monkeypatch, lie: dict[str, float]) -> None:
    reserve = Ledger.reserve

    def lying(self: Ledger, identity: str, release, **about) -> None:
        reserve(self, identity, replace(release, **lie), **about)

    monkeypatch.setattr(Ledger, "reserve", lying)
    found = audit(4.0)
    assert found.claimed < 1.4
    assert found.caught


@pytest.mark.parametrize("way", ["the noise is not added", "the noise is zero"])
def test_noise_that_a_site_switched_off_is_caught(audit: Audit, monkeypatch, way: str) -> None:
    """In the class that releases use: `_Unpredictable`, which no test with a seed ever meets."""
    used = []

    def silent(self) -> None:
        used.append(True)
        for parameter in self.params:
            parameter.grad = parameter.summed_grad.view_as(parameter)

    def zeros(count: int) -> np.ndarray:
        used.append(True)
        return np.zeros(count)

    if way == "the noise is zero":
        monkeypatch.setattr(mechanism, "secure_normals", zeros)
    else:
        monkeypatch.setattr(mechanism._Unpredictable, "add_noise", silent)
    found = audit(20.0)
    assert used
    assert found.claimed == pytest.approx(1.77, abs=0.01)
    assert found.correct == found.guesses
    assert found.caught
