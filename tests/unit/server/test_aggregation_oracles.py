# SPDX-License-Identifier: Apache-2.0
"""The rules and server optimizers against Flower's own strategies, over several rounds."""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedTrimmedAvg,
    FedYogi,
    Strategy,
)
from flwr.supercore.task_identity import TaskIdentity

from pasta_model.federated_sections import AggregationSettings
from server.aggregation import capped_shares, combined, optimizer_state, server_step
from tests.support.grid import InProcessGrid

SITES, WEIGHTS, ROUNDS = 5, 200, 6
SUBJECTS = {f"site-{n}": 3 + 4 * n for n in range(SITES)}

RULES: dict[str, tuple[Callable[[], Strategy], AggregationSettings]] = {
    "fedavg": (FedAvg, AggregationSettings()),
    "fedavgm": (
        lambda: FedAvgM(server_learning_rate=0.7, server_momentum=0.8),
        AggregationSettings(rule="fedavgm", learning_rate=0.7, momentum=0.8),
    ),
    "fedadam": (
        lambda: FedAdam(eta=0.05, beta_1=0.8, beta_2=0.95, tau=1e-3),
        AggregationSettings(rule="fedadam", learning_rate=0.05, momentum=0.8, second_momentum=0.95, tau=1e-3),
    ),
    "fedyogi": (
        lambda: FedYogi(eta=0.02, beta_1=0.85, beta_2=0.9, tau=1e-2),
        AggregationSettings(rule="fedyogi", learning_rate=0.02, momentum=0.85, second_momentum=0.9, tau=1e-2),
    ),
    "fedadagrad": (  # Flower's has no momentum
        lambda: FedAdagrad(eta=0.1, tau=1e-2),
        AggregationSettings(rule="fedadagrad", learning_rate=0.1, momentum=0.0, tau=1e-2),
    ),
    "median": (FedMedian, AggregationSettings(rule="median")),
    "trimmed-mean": (lambda: FedTrimmedAvg(beta=0.2), AggregationSettings(rule="trimmed-mean", trim=0.2)),
    "trimmed-mean of two at each end": (
        lambda: FedTrimmedAvg(beta=0.45),
        AggregationSettings(rule="trimmed-mean", trim=0.45),
    ),
}


def replies(weights: np.ndarray, updates: dict[str, np.ndarray]) -> list[Message]:
    """What sites of Flower's kind answer: their whole weights, and how many subjects they have."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    found = []
    for node, (site, update) in enumerate(updates.items(), start=1):
        asked = Message(RecordDict(), dst_node_id=node, message_type="train")
        asked.metadata.__dict__["_message_id"] = str(node)
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(weights + update)}),
                "metrics": MetricRecord({"num-examples": SUBJECTS[site]}),
            }
        )
        found.append(Message(content, reply_to=asked))
    return found


@pytest.mark.parametrize("name", RULES)
def test_weights_are_flowers_after_every_round(name: str) -> None:
    make, settings = RULES[name]
    strategy, rng = make(), np.random.default_rng(7)
    grid = InProcessGrid(None, run_config={}, nodes=SITES)
    start = rng.normal(size=WEIGHTS).astype(np.float32)
    theirs, ours = start.copy(), start.copy()
    state: dict[str, np.ndarray] = {}
    shares = capped_shares(SUBJECTS, cap=1.0)
    for number in range(ROUNDS):
        drift = rng.normal(size=WEIGHTS)
        updates = {
            site: (0.1 * (drift + 0.5 * rng.normal(size=WEIGHTS))).astype(np.float32) for site in SUBJECTS
        }
        arrays = ArrayRecord({"w": Array(theirs)})
        list(strategy.configure_train(number, arrays, ConfigRecord(), grid))
        record, _ = strategy.aggregate_train(number, replies(theirs, updates))
        theirs = record["w"].numpy().astype(np.float32)

        update = combined(updates.items(), shares, settings)
        ours, state = server_step(ours, update, state, settings=settings, number=number)
        assert ours.dtype == np.float32
        assert all(values.dtype == np.float32 for values in state.values())
        assert set(state) == set(optimizer_state(settings))
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)
    assert np.abs(ours - start).max() > 0.05, "the weights moved"


@pytest.mark.parametrize("rule", ["fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_step_buffer_by_buffer_is_the_step_of_the_whole(rule: str) -> None:
    settings = AggregationSettings(rule=rule)
    rng = np.random.default_rng(0)
    whole, state = rng.normal(size=10).astype(np.float32), {}
    parts, states = [whole[:3], whole[3:]], [{}, {}]
    for number in range(3):
        update = rng.normal(size=10).astype(np.float32)
        whole, state = server_step(whole, update, state, settings=settings, number=number)
        for i, cut in enumerate((update[:3], update[3:])):
            parts[i], states[i] = server_step(parts[i], cut, states[i], settings=settings, number=number)
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("rule", ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_inputs_are_left_alone_and_nothing_moves_where_no_site_moved(rule: str) -> None:
    settings = AggregationSettings(rule=rule)
    weights, update = np.ones(4, np.float32), np.zeros(4, np.float32)
    state = {name: np.zeros(4, np.float32) for name in optimizer_state(settings)}
    moved, _ = server_step(weights, update, state, settings=settings, number=0)
    assert moved.tolist() == weights.tolist() == [1.0] * 4
    assert all((values == 0).all() for values in state.values())
