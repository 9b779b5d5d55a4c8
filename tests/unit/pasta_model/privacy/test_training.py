# SPDX-License-Identifier: Apache-2.0
"""Private steps: who is drawn and how often, what a step does, and when it stops."""

import math
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

from pasta_model.errors import PrivacyError
from pasta_model.privacy import training
from pasta_model.privacy.plan import Plan
from pasta_model.privacy.training import Chance, private_steps
from pasta_model.training import Place, learning_rate

SIX_ERRORS = 6.0  # by chance once in half a billion checks


class Vectors:
    """Subjects whose loss is their number, and whose gradient is given, at one weight."""

    def __init__(self, weight: nn.Parameter, gradient: Callable[[int, int], float], count: int) -> None:
        self.weight = weight
        self.gradient = gradient
        self.names = [f"subject {number}" for number in range(count)]
        self.drawn: list[int] = []

    def backward(self, name: str) -> torch.Tensor:
        assert self.weight.grad is None, "the gradient of another subject is still there"
        number = self.names.index(name)
        self.weight.grad = torch.full_like(self.weight, self.gradient(number, len(self.drawn)))
        self.drawn.append(number)
        return torch.tensor(float(number))


def plan(*, rate: float, subjects: int, sigma: float = 0.0, clip: float = 1.0) -> Plan:
    return Plan(subjects, rate, sigma, clip, 10, 1.0, 1e-4, "prv")


class Run:
    """A weight at 2, trained by plain gradient descent; notes steps, draws, weights and learning rates."""

    def __init__(self, make_settings, *, gradient=lambda number, turn: 0.1, network=None, **changes) -> None:
        self.network = network or nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.network.weight.fill_(2.0)
        self.settings = make_settings(**{"training__learning_rate": 0.5} | changes)
        self.gradient = gradient
        self.steps: list[tuple[int, int]] = []
        self.weights: list[float] = []
        self.rates: list[float] = []
        self.released: list[float] = []

    def on_step(self, step: int, subjects: int) -> None:
        self.steps.append((step, subjects))
        self.weights.append(self.network.weight.item())
        self.rates.append(self.optimizer.param_groups[0]["lr"])

    def train(self, made: Plan, *, number: int = 0, chance: Chance | None = None) -> float:
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.0)
        self.subjects = Vectors(self.network.weight, self.gradient, made.subjects)
        return private_steps(
            self.network,
            self.subjects,
            self.optimizer,
            settings=self.settings,
            place=Place("A", number),
            plan=made,
            chance=chance,
            on_step=self.on_step,
            on_release=lambda gradients: self.released.append(gradients[0].item()),
        )


@pytest.fixture
def make_run(make_settings):
    return lambda **changes: Run(make_settings, **changes)


def chance(seed: int) -> Chance:
    return Chance(torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1))


class TestWhoIsDrawn:
    def test_everybody_alone_with_the_rate_of_the_plan(self, make_run) -> None:
        steps, subjects, rate = 2500, 8, 0.15
        run = make_run(training__local_steps=steps)
        run.train(plan(rate=rate, subjects=subjects))
        counts = [count for _, count in run.steps]
        assert sum(counts) == len(run.subjects.drawn)
        bound = SIX_ERRORS * math.sqrt(steps * rate * (1 - rate))
        drawn = Counter(run.subjects.drawn)
        assert all(abs(drawn[number] - steps * rate) < bound for number in range(subjects))
        # Not so many a step, but each by a coin of its own: the number is binomial, and two meet by chance.
        mean = subjects * rate
        spread = sum((count - mean) ** 2 for count in counts) / steps
        assert spread == pytest.approx(mean * (1 - rate), rel=0.2)
        empty = (1 - rate) ** subjects
        assert counts.count(0) == pytest.approx(
            steps * empty, abs=SIX_ERRORS * math.sqrt(steps * empty * (1 - empty))
        )
        order, together = iter(run.subjects.drawn), Counter()
        for count in counts:
            together.update(combinations([next(order) for _ in range(count)], 2))
        bound = SIX_ERRORS * math.sqrt(steps * rate**2)
        for pair in combinations(range(subjects), 2):
            assert abs(together[pair] - steps * rate**2) < bound

    def test_the_rate_to_a_thirtieth(self, make_run, monkeypatch) -> None:
        monkeypatch.setattr(training, "Mechanism", MagicMock())  # only the draws are of interest
        monkeypatch.setattr(Vectors, "backward", lambda self, name: torch.zeros(()))
        coins, rate = 5000 * 40, 0.15
        run = make_run(training__local_steps=5000)
        run.train(plan(rate=rate, subjects=40))
        bound = SIX_ERRORS * math.sqrt(coins * rate * (1 - rate))
        assert bound < coins * rate / 30
        assert abs(sum(count for _, count in run.steps) - coins * rate) < bound

    def test_all_at_rate_one(self, make_run) -> None:
        run = make_run(training__local_steps=3)
        assert run.train(plan(rate=1.0, subjects=41)) == pytest.approx(20)  # the mean of 0 to 40
        assert run.subjects.drawn == list(range(41)) * 3

    def test_draws_and_noise_do_not_follow_from_the_seed(self, make_run) -> None:
        draws, noises = [], []
        for _ in range(2):
            run = make_run(training__local_steps=20, run__seed=7)
            run.train(plan(rate=0.5, subjects=8, sigma=1.0))
            draws.append(run.subjects.drawn)
            noises.append(run.released)
        assert draws[0] != draws[1]
        assert not set(noises[0]) & set(noises[1])

    def test_nor_does_anything_follow_from_the_global_seed(self, make_run) -> None:
        state, draws = torch.get_rng_state(), []
        for _ in range(2):
            torch.set_rng_state(state)
            run = make_run(training__local_steps=20)
            run.train(plan(rate=0.5, subjects=8))
            draws.append(run.subjects.drawn)
        assert draws[0] != draws[1]

    def test_chance_makes_a_run_again(self, make_run) -> None:
        found = []
        for seed in (1, 1, 2):
            run = make_run(training__local_steps=8)
            run.train(plan(rate=0.5, subjects=8, sigma=1.0), chance=chance(seed))
            found.append((run.subjects.drawn, run.weights))
        assert found[0] == found[1]
        assert found[0][0] != found[2][0]
        assert found[0][1] != found[2][1]


class TestStep:
    def test_by_hand(self, make_run) -> None:
        # Gradients 1/4, 1/2, 3 of three subjects, clipped to 1: the mean over 3 is (1/4 + 1/2 + 1) / 3.
        run = make_run(
            gradient=lambda number, _: (0.25, 0.5, 3.0)[number],
            training__local_steps=2,
            training__warmup_steps=2,
        )
        run.train(plan(rate=1.0, subjects=3))
        mean = 1.75 / 3
        assert run.released == pytest.approx([mean, mean])
        assert run.weights == pytest.approx([2 - 0.25 * mean, 2 - 0.75 * mean])  # rates 1/4, 1/2

    def test_the_plan_says_what_a_sum_is_divided_by(self, make_run) -> None:
        run = make_run(gradient=lambda *_: 0.5, training__local_steps=200)
        run.train(plan(rate=0.25, subjects=8))
        wanted = [0.5 * count / 2 for _, count in run.steps]  # 2 are expected
        assert run.released == pytest.approx(wanted)

    def test_steps_are_counted_exactly_with_and_without_subjects(self, make_run) -> None:
        run = make_run(training__local_steps=5)
        assert run.train(plan(rate=1e-12, subjects=2, sigma=1.0), number=3) == 0.0
        assert run.steps == [(15, 0), (16, 0), (17, 0), (18, 0), (19, 0)]
        assert len(run.released) == 5
        assert len({2.0, *run.weights}) == 6, "each moved the weights: nobody sees that it was empty"

    def test_learning_rate_follows_the_global_step(self, make_run) -> None:
        run = make_run(training__local_steps=3, federation__rounds=4, training__warmup_steps=2)
        for number in (0, 3):
            run.train(plan(rate=0.5, subjects=2), number=number)
        wanted = [
            learning_rate(step, total_steps=12, settings=run.settings.training)
            for step in (0, 1, 2, 9, 10, 11)  # rounds 1 and 2 were missed
        ]
        assert run.rates == pytest.approx(wanted)

    def test_fedprox_pulls_after_clip_and_noise(self, make_run) -> None:
        run = make_run(training__local_steps=2, aggregation__proximal_mu=0.3, training__learning_rate=0.1)
        on_step = run.on_step

        def push(step: int, subjects: int) -> None:
            on_step(step, subjects)
            with torch.no_grad():
                run.network.weight.add_(50.0)  # as if training had gone far

        run.on_step = push
        run.train(plan(rate=1e-12, subjects=2))
        # mu (w - w_0) = 15, of a clip norm of 1; nothing at the start; and none of it in what is released.
        assert run.weights == pytest.approx([2.0, 52 - run.rates[1] * 15.0])
        assert run.released == [0.0, 0.0]


class TestStops:
    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_a_gradient_that_is_no_number_is_told_to_the_sites_log_alone(
        self, make_run, bad: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = make_run(gradient=lambda _, turn: bad if turn == 4 else 0.1, training__local_steps=3)
        run.train(plan(rate=1.0, subjects=3), number=2)
        assert [step for step, _ in run.steps] == [6, 7, 8]
        assert run.released == pytest.approx([0.1, 0.2 / 3, 0.1])
        assert "site A, round 2: the gradients of 1 of 9 drawn subjects were not finite" in caplog.text

    def test_batch_statistics_before_anybody_is_looked_at(self, make_run) -> None:
        class Mixing(nn.Linear):
            def __init__(self) -> None:
                super().__init__(1, 1, bias=False)
                self.between = nn.BatchNorm1d(1)

        run = make_run(network=Mixing())
        with pytest.raises(PrivacyError, match="between is BatchNorm1d"):
            run.train(plan(rate=1.0, subjects=3))
        assert run.subjects.drawn == []
        assert run.released == []


def test_the_network_trains(make_run) -> None:
    run = make_run()
    run.network.eval()
    run.train(plan(rate=1.0, subjects=1))
    assert run.network.training
