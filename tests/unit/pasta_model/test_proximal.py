# SPDX-License-Identifier: Apache-2.0
"""FedProx's pull towards the received weights, by hand (arXiv 1812.06127, eq. 2)."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pasta_model import training
from pasta_model.training import Place, learning_rate, train_steps

MU = 0.5
GRADIENT = 1.5  # of the loss, at every weight and in every step


class Two(nn.Module):
    """One shared weight and one that is personal by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(1, 1, bias=False)
        self.in_norm = nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.body.weight.fill_(2.0)
            self.in_norm.weight.fill_(-1.0)


class Nothing:
    """A loader whose batches are not looked at."""

    def batches(self, size, *, rng):
        while True:
            yield SimpleNamespace(to=lambda *_, **__: None)


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, make_settings):
    """Train with plain gradient descent; return both weights, and the settings."""

    def run(*, frozen: bool = False, **changes):
        monkeypatch.setattr(
            training,
            "step_loss",
            lambda translator, *_, **__: GRADIENT * sum(p.sum() for p in translator.network.parameters()),
        )
        monkeypatch.setattr(training, "read_ahead", lambda batches, pin: batches)
        settings = make_settings(
            training__local_steps=3, training__max_grad_norm=1e9, training__learning_rate=0.1, **changes
        )
        network = Two()
        network.in_norm.weight.requires_grad_(not frozen)
        optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad])
        train_steps(
            SimpleNamespace(network=network), Nothing(), optimizer, settings=settings, place=Place("A", 0)
        )
        return network.body.weight.item(), network.in_norm.weight.item(), settings

    return run


def by_hand(start: float, mu: float, settings) -> float:
    weight = start
    for step in range(3):
        rate = learning_rate(step, total_steps=settings.total_steps, settings=settings.training)
        weight -= rate * (GRADIENT + mu * (weight - start))
    return weight


def test_gradient_is_the_losss_and_the_pulls(train) -> None:
    body, norm, settings = train(aggregation__proximal_mu=MU)
    assert body == pytest.approx(by_hand(2.0, MU, settings), rel=1e-6)
    assert norm == pytest.approx(by_hand(-1.0, MU, settings), rel=1e-6)
    assert body > by_hand(2.0, 0.0, settings) + 0.01, "it ends nearer to where it began"


def test_without_it_training_is_plain(train) -> None:
    body, norm, settings = train()
    assert (body, norm) == pytest.approx(
        (by_hand(2.0, 0.0, settings), by_hand(-1.0, 0.0, settings)), rel=1e-6
    )


def test_personal_parts_are_not_pulled(train) -> None:
    body, norm, settings = train(aggregation__proximal_mu=MU, exchange__personal="norms")
    assert body == pytest.approx(by_hand(2.0, MU, settings), rel=1e-6)
    assert norm == pytest.approx(by_hand(-1.0, 0.0, settings), rel=1e-6)


def test_weights_without_a_gradient_stay(train) -> None:
    _, norm, _ = train(frozen=True, aggregation__proximal_mu=MU)
    assert norm == -1.0
