# SPDX-License-Identifier: Apache-2.0
"""The audit in one run: silent about an honest mechanism, loud about planted leaks."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from pasta_model.config import Settings
from pasta_model.errors import PrivacyError
from pasta_model.privacy import mechanism
from pasta_model.privacy.accounting import Release, epsilon
from pasta_model.privacy.attacks.canaries import (
    CanaryAudit,
    WithCanaries,
    accounted,
    audit_canaries,
    judged,
    telling_rounds,
)
from pasta_model.privacy.plan import Plan
from pasta_model.privacy.training import Chance

DELTA = 1e-5
STEPS = 12


class Fits:
    """Eight subjects that fit a line each; one of them far off."""

    def __init__(self, network: nn.Module) -> None:
        self.names = tuple(f"sub-{i}" for i in range(8))
        self._network = network
        generator = torch.Generator().manual_seed(3)
        self._data = torch.randn(8, 2, 30, generator=generator)

    def backward(self, name: str) -> Tensor:
        x, y = self._data[int(name[4:])]
        loss = (self._network(x) - 5 * y).square().mean()
        loss.backward()
        return loss.detach()


def plan_of(sigma: float, *, rate: float = 0.3, steps: int = STEPS) -> Plan:
    cost = epsilon([Release(sigma, rate, steps)], delta=DELTA, accountant="rdp")  # the quick one
    return Plan(8, rate, sigma, 0.7, steps, cost, DELTA, "rdp")


@pytest.fixture
def run(make_settings: Callable[..., Settings]) -> Callable[..., CanaryAudit]:
    def audit(
        plan: Plan, *, seed: int | None = 0, m: int = 240, rounds: int = 2, **more: object
    ) -> CanaryAudit:
        """Audit as a release is made, with the system's noise and draws, where there is no seed."""
        network = nn.Sequential(nn.Linear(30, 30), nn.Tanh(), nn.Linear(30, 30))
        generator = torch.Generator().manual_seed(7)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1, generator=generator)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
        settings = make_settings(training__local_steps=STEPS // 2, federation__rounds=2)
        seeds = () if seed is None else (seed, seed + 1)
        chance = Chance(*(torch.Generator().manual_seed(s) for s in seeds)) if seeds else None
        return audit_canaries(
            network,
            Fits(network),
            optimizer,
            settings=settings,
            plan=plan,
            canaries=m,
            rounds=rounds,
            rng=np.random.default_rng(seed),
            chance=chance,
            **more,
        )

    return audit


@pytest.mark.parametrize("seed", range(5))
def test_an_honest_mechanism_is_not_accused(run, seed) -> None:
    plan = replace(plan_of(1.0), accountant="prv")  # the tight one
    found = run(plan, seed=seed)
    assert found.claimed < plan.epsilon
    assert found.lower_bound <= found.claimed
    assert not found.caught
    assert (found.canaries, found.guesses, found.steps) == (240, 120, STEPS)


def test_an_honest_mechanism_with_little_noise_is_seen_through(run) -> None:
    """The attack works: what is claimed is much, and much of it is shown."""
    found = run(plan_of(0.4, rate=0.9))
    assert 2 < found.lower_bound < found.claimed


def silent(self: DPOptimizer) -> None:
    for p in self.params:
        p.grad = p.summed_grad.view_as(p)


@pytest.mark.parametrize(
    ("seed", "place", "name", "off"),
    [
        (0, DPOptimizer, "add_noise", silent),
        (None, mechanism._Unpredictable, "add_noise", silent),  # without a seed: the noise of releases
        (None, mechanism, "secure_normals", np.zeros),
    ],
)
def test_noise_that_is_switched_off_is_caught(run, monkeypatch, seed, place, name, off) -> None:
    """Also where nobody chose the noise, it is no matter of luck.

    Everybody is in all 12 steps, so a canary stands out by 12 clip norms, and all else is 4 at most. A guess
    is wrong only if fewer than 60 of 240 coins fall on one side: once in 10^15 runs.
    """
    monkeypatch.setattr(place, name, off)
    found = run(plan_of(10.0, rate=1.0), seed=seed)
    assert found.correct == found.guesses
    assert found.caught


def test_the_claim_is_asked_when_all_rounds_are_made(run) -> None:
    made = []

    def one_round(number, subjects, look) -> None:
        made.append((number, len(subjects.names)))
        for _ in range(STEPS // 2):
            look([torch.zeros(30, 30), torch.zeros(30), torch.zeros(30, 30), torch.zeros(30)])

    def claim(steps: int) -> float:
        assert steps == STEPS
        return 7.0 + len(made)

    found = run(plan_of(1.0), one_round=one_round, claim=claim)
    assert [number for number, _ in made] == [0, 1]
    assert min(count for _, count in made) > 8
    assert found.claimed == 9.0


def test_steps_that_are_not_told_are_caught(run) -> None:
    plan = plan_of(2.0, rate=0.9)
    found = run(plan, rounds=4, claim=lambda steps: accounted(plan, 1))
    assert found.caught
    assert found.claimed < found.lower_bound < plan.epsilon  # the truth is above, and no lie is invented


def test_a_sampling_rate_that_is_told_too_small_is_caught(run) -> None:
    plan = plan_of(1.5, rate=0.5)
    assert run(plan, claim=partial(accounted, replace(plan, sampling_rate=0.05))).caught


def test_clipping_that_is_not_done_is_caught(run, monkeypatch) -> None:
    def whole(self: DPOptimizer) -> None:
        for p in self.params:
            total = p.grad_sample.sum(0)
            p.summed_grad = total if p.summed_grad is None else p.summed_grad + total

    monkeypatch.setattr(DPOptimizer, "clip_and_accumulate", whole)
    assert run(plan_of(3.0)).caught


def test_a_canary_is_a_dirac_at_its_own_coordinate() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 2)).to(memory_format=torch.channels_last)
    parameters = list(network.parameters())
    sizes = [p.numel() for p in parameters]  # 54, 3, 8, 2
    coordinates = np.array([53, 0, 54, 56, 57, 66, 7])
    present = np.ones(7, bool)
    joined = WithCanaries(Fits(network), parameters, coordinates, present=present, length=2.5)
    for i, coordinate in enumerate(coordinates):
        network.zero_grad(set_to_none=True)
        assert joined.backward(f"canary {i}") == 0
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([g.flatten() for g in gradients])
        assert flat[coordinate] == 2.5
        assert flat.count_nonzero() == 1
        assert np.array_equal(joined.seen(gradients), 2.5 * (np.arange(7) == i))
    assert sum(sizes) == 67


def test_only_those_whom_the_coin_chose_are_there() -> None:
    network = nn.Linear(30, 30)
    present = np.array([True, False, True])
    joined = WithCanaries(
        Fits(network), list(network.parameters()), np.arange(3), present=present, length=1.0
    )
    assert joined.names == (*Fits(network).names, "canary 0", "canary 2")


def test_the_surest_quarters_are_guessed() -> None:
    scores = np.array([0.1, 5.0, -3.0, 0.2, 4.0, -2.0, 0.3, 0.0])
    present = np.array([0, 1, 0, 1, 0, 0, 0, 1], bool)  # 5.0 in: right; 4.0 out: wrong; -3 and -2 out: right
    found = judged(scores, present, claimed=1.0, delta=0.0, confidence=0.9, steps=1)
    assert (found.guesses, found.correct) == (4, 3)


def test_so_many_rounds_that_a_leak_could_be_seen(make_settings) -> None:
    settings = make_settings(training__local_steps=10, federation__rounds=40)
    plan = plan_of(4.0, steps=400)
    rounds = telling_rounds(settings, plan, canaries=1000)
    assert 1 < rounds < 40
    costs = [epsilon([plan.release(10 * r)], delta=DELTA, accountant="rdp") for r in (rounds, rounds + 1)]
    assert costs[0] <= 5.0875 / 2 < costs[1]  # half of what 500 right guesses of 500 say
    assert telling_rounds(settings, plan_of(0.5, steps=400), canaries=1000) == 1
    assert telling_rounds(settings, plan_of(50.0, steps=400), canaries=1000) == 40


def test_a_claim_above_the_ceiling_is_blind(run) -> None:
    found = run(plan_of(0.2, rate=0.9), m=20)
    assert found.blind
    assert not found.caught
    assert not replace(found, claimed=0.1).blind


@pytest.mark.parametrize("m", [3, 2000])
def test_more_canaries_than_coordinates_are_refused(run, m) -> None:
    with pytest.raises(PrivacyError, match=f"{m} canaries for a network of 1860 trained values"):
        run(plan_of(1.0), m=m)
