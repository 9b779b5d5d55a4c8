# SPDX-License-Identifier: Apache-2.0
"""The loop at a site: schedule, accumulation, determinism, and when it stops."""

import math
from types import SimpleNamespace

import pytest
import torch

from pasta_model import training
from pasta_model.checkpoint import new_translator
from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.data.slabs import Batch, SlabLoader
from pasta_model.errors import TrainingError
from pasta_model.sections import TrainingSettings
from pasta_model.training import Place, learning_rate, make_optimizer, train_steps

PLAIN = Standardisation((65.0, 0.0, 14.0, 0.0, 0.0, 0.0), (10.0,) * 6)


class TestLearningRate:
    settings = TrainingSettings(learning_rate=1e-2, warmup_steps=4)

    def at(self, step: int, total: int = 104) -> float:
        return learning_rate(step, total_steps=total, settings=self.settings)

    def test_by_hand(self) -> None:
        assert [self.at(step) for step in range(4)] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
        assert self.at(4) == pytest.approx(0.01)
        assert self.at(54) == pytest.approx(0.01 * (0.05 + 0.95 / 2))  # half of the cosine
        assert self.at(104) == pytest.approx(0.0005)
        assert self.at(10_000) == pytest.approx(0.0005)

    def test_falls_after_the_warm_up(self) -> None:
        rates = [self.at(step) for step in range(4, 105)]
        assert rates == sorted(rates, reverse=True)

    @pytest.mark.parametrize(("warmup", "total"), [(0, 1), (5, 5), (50, 3)])
    def test_any_length(self, warmup: int, total: int) -> None:
        settings = TrainingSettings(warmup_steps=warmup)
        for step in range(total + 1):
            rate = learning_rate(step, total_steps=total, settings=settings)
            assert math.isfinite(rate)
            assert 0 < rate <= settings.learning_rate


class TestOptimizer:
    def test_weight_decay_arrives_and_spares_biases_and_normalisation(self) -> None:
        network = torch.nn.Sequential(
            torch.nn.Linear(2, 3), torch.nn.GroupNorm(1, 3), torch.nn.Conv1d(3, 3, 1)
        )
        optimizer = make_optimizer(network, TrainingSettings(weight_decay=0.25, learning_rate=0.5))
        decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
        names = {name: decays[id(p)] for name, p in network.named_parameters()}
        assert names == {
            "0.weight": 0.25, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "2.weight": 0.25, "2.bias": 0.0
        }  # fmt: skip
        # Without a gradient only the decay moves a weight: w (1 - lr x decay).
        before = network[0].weight.detach().clone()
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        torch.testing.assert_close(network[0].weight.detach(), before * (1 - 0.5 * 0.25))


class Toy(torch.nn.Module):
    """A network of one weight, for losses that can be computed by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[2.0]]))


class Numbers:
    """A loader whose slabs are numbers, in a fixed order."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def batches(self, batch_size, *, rng):
        for start in range(0, len(self.values), batch_size):
            slab = torch.tensor(self.values[start : start + batch_size]).reshape(-1, 1, 1, 1)
            yield Batch(slab, slab, slab, None)


def toy_run(monkeypatch, make_settings, loss, loader, **changes):
    """Train the toy with the given loss; return the weight after each step."""
    toy = Toy()
    monkeypatch.setattr(
        training, "step_loss", lambda translator, batch, *, settings, generator: loss(toy.weight, batch)
    )
    optimizer = torch.optim.SGD(toy.parameters(), lr=0.0)
    weights: list[float] = []
    settings = make_settings(training__max_grad_norm=1e6, **changes)
    train_steps(
        SimpleNamespace(network=toy),
        loader,
        optimizer,
        settings=settings,
        place=Place("A", 0),
        on_step=lambda step, value: weights.append(toy.weight.item()),
    )
    return weights, toy


def squares(weight: torch.Tensor, batch: Batch) -> torch.Tensor:
    return ((weight.squeeze() - batch.pet) ** 2).mean()


class TestAccumulation:
    def test_equals_one_larger_batch(self, monkeypatch, make_settings) -> None:
        # METHOD, fault 5: with gradients cleared inside the loop only the last part would count.
        common = {"training__local_steps": 2, "training__learning_rate": 0.1}
        numbers = (1.0, 5.0, -3.0, 2.0, 0.0, 4.0, 7.0, 1.0)
        large, _ = toy_run(
            monkeypatch, make_settings, squares, Numbers(*numbers), training__batch_size=4, **common
        )
        parts, _ = toy_run(
            monkeypatch, make_settings, squares, Numbers(*numbers), training__batch_size=1,
            training__accumulation=4, **common,
        )  # fmt: skip
        assert parts == pytest.approx(large)
        # By hand: the gradient is 2 (w - mean) = 2 (2 - 1.25), the first rate is 0.1.
        assert large[0] == pytest.approx(2 - 0.1 * 1.5)

    def test_mean_loss_is_that_of_all_parts(self, monkeypatch, make_settings) -> None:
        toy = Toy()
        monkeypatch.setattr(training, "step_loss", lambda *a, **k: a[1].pet.mean() + 0 * toy.weight.sum())
        found = train_steps(
            SimpleNamespace(network=toy),
            Numbers(1.0, 2.0, 6.0, 7.0),
            torch.optim.SGD(toy.parameters()),
            settings=make_settings(training__accumulation=2),
            place=Place("A", 0),
        )
        assert found == pytest.approx(4.0)

    def test_gradient_is_clipped(self, monkeypatch, make_settings) -> None:
        toy = Toy()
        monkeypatch.setattr(training, "step_loss", lambda *a, **k: 1000 * toy.weight.sum())
        settings = make_settings(
            training__local_steps=1, training__learning_rate=0.1, training__max_grad_norm=0.5
        )
        train_steps(
            SimpleNamespace(network=toy),
            Numbers(1.0),
            torch.optim.SGD(toy.parameters()),
            settings=settings,
            place=Place("A", 0),
        )
        assert toy.weight.item() == pytest.approx(2 - 0.1 * 0.5, rel=1e-4)


def test_learning_rate_follows_the_global_step(monkeypatch, make_settings) -> None:
    rates: dict[int, float] = {}
    toy = Toy()
    optimizer = torch.optim.SGD(toy.parameters(), lr=0.0)
    monkeypatch.setattr(training, "step_loss", lambda *a, **k: toy.weight.sum())
    settings = make_settings(
        training__local_steps=3, federation__rounds=4, training__warmup_steps=2, training__learning_rate=1.0
    )

    def note(step: int, _: float) -> None:
        rates[step] = optimizer.param_groups[0]["lr"]

    for number in (0, 1, 3):  # round 2 was in another process, or was missed
        train_steps(
            SimpleNamespace(network=toy), Numbers(*[1.0] * 3), optimizer, settings=settings,
            place=Place("A", number), on_step=note,
        )  # fmt: skip
    assert list(rates) == [0, 1, 2, 3, 4, 5, 9, 10, 11]
    # Warm-up 1/2, 1; then the cosine over the 10 steps from 2 to 12.
    wanted = [0.5, 1.0] + [0.05 + 0.475 * (1 + math.cos(math.pi * k / 10)) for k in (0, 1, 2, 3, 7, 8, 9)]
    assert list(rates.values()) == pytest.approx(wanted)


def test_noise_follows_seed_site_and_round(monkeypatch, make_settings) -> None:
    drawn: list[float] = []

    def loss(translator, batch, *, settings, generator):
        drawn.append(torch.rand((), generator=generator).item())
        return translator.network.weight.sum()

    monkeypatch.setattr(training, "step_loss", loss)
    for seed, site, number in [(1, "A", 0), (1, "A", 0), (2, "A", 0), (1, "B", 0), (1, "A", 1)]:
        toy = Toy()
        train_steps(
            SimpleNamespace(network=toy),
            Numbers(1.0),
            torch.optim.SGD(toy.parameters()),
            settings=make_settings(training__local_steps=1, run__seed=seed),
            place=Place(site, number),
        )
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4


class TestNotFinite:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_loss_stops_before_the_step(self, monkeypatch, make_settings, value: float) -> None:
        toy = Toy()
        monkeypatch.setattr(training, "step_loss", lambda *a, **k: a[1].pet.mean() * toy.weight.sum())
        settings = make_settings(
            training__local_steps=3, training__accumulation=2, training__learning_rate=0.1
        )
        weights: list[float] = []
        with pytest.raises(TrainingError, match="site A, round 2, step 7"):  # 3 steps a round
            train_steps(
                SimpleNamespace(network=toy),
                Numbers(1.0, 1.0, 1.0, value, 1.0, 1.0),
                torch.optim.SGD(toy.parameters()),
                settings=settings,
                place=Place("A", 2),
                on_step=lambda *_: weights.append(toy.weight.item()),
            )
        assert weights == [toy.weight.item()]  # the first step stands, the second left no trace
        assert math.isfinite(toy.weight.item())

    def test_gradient_stops_before_the_step(self, monkeypatch, make_settings) -> None:
        toy = Toy()
        # The loss is 0 and its gradient is infinite: the square root at 0.
        monkeypatch.setattr(training, "step_loss", lambda *a, **k: (toy.weight - 2).sum().sqrt())
        with pytest.raises(TrainingError, match="site A, round 0, step 0"):
            train_steps(
                SimpleNamespace(network=toy),
                Numbers(1.0, 1.0),
                torch.optim.SGD(toy.parameters()),
                settings=make_settings(),
                place=Place("A", 0),
            )
        assert toy.weight.item() == 2.0


class TestRealNetwork:
    def run(self, store, settings, *, site: str = "A", number: int = 0) -> dict[str, torch.Tensor]:
        translator = new_translator(settings)
        loader = SlabLoader(
            store, split="train", slab_slices=15, scheme=SCHEMES["adni"], standardisation=PLAIN
        )
        optimizer = make_optimizer(translator.network, settings.training)
        train_steps(translator, loader, optimizer, settings=settings, place=Place(site, number))
        return translator.network.state_dict()

    def test_weights_follow_seed_site_and_round(self, make_store, make_settings) -> None:
        store, settings = make_store(), make_settings(training__local_steps=1)
        first = self.run(store, settings)
        again = self.run(store, settings)
        assert all(torch.equal(first[name], again[name]) for name in first)
        others = [
            self.run(store, settings, site="B"),
            self.run(store, settings, number=1),
            self.run(store, make_settings(training__local_steps=1, run__seed=1)),
        ]
        for other in others:
            assert any(not torch.equal(first[name], other[name]) for name in first)

    def test_loss_falls(self, make_store, make_settings) -> None:
        losses: list[float] = []
        settings = make_settings(training__local_steps=12, federation__rounds=5)
        translator = new_translator(settings)
        loader = SlabLoader(
            make_store(), split="train", slab_slices=15, scheme=SCHEMES["adni"], standardisation=PLAIN
        )
        train_steps(
            translator,
            loader,
            make_optimizer(translator.network, settings.training),
            settings=settings,
            place=Place("A", 0),
            on_step=lambda _, loss: losses.append(loss),
        )
        assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
