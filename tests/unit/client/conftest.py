# SPDX-License-Identifier: Apache-2.0
"""A site behind its gate: three subjects train, one validates."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from client import private as private_module
from client.guard.gate import Gate
from client.guard.supernode import QUIET
from client.kit import Kit, read_kit
from client.policy import Policy
from pasta_model.checkpoint import exchanged_layout
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from pasta_model.exchange.contents import Parcel, TrainReport
from pasta_model.exchange.steps import Step
from pasta_model.exchange.vectors import float_buffers
from tests.support.guarded import Node, build, open_log, write_keys, write_kit
from tests.support.private_site import PRIVATE

SMALLEST = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"


@pytest.fixture
def make_node(tmp_path: Path, make_settings, make_store) -> Callable[..., Node]:
    """A node whose site has approved the bundle, unless told otherwise."""

    def make(*, approved: bool = True, policy: dict[str, object] | None = None, **changes) -> Node:
        store = make_store()
        settings = make_settings(network__shape=SMALLEST, sampling__hop=4, **changes)
        kit = write_kit(tmp_path / "kit", store.path, **(policy or {}))
        node = Node(kit, settings, build(settings), Gate(kit, open_log(kit)))
        if approved:
            node.approve()
        return node

    return make


@pytest.fixture
def node(make_node) -> Node:
    return make_node()


@pytest.fixture
def update() -> Callable[..., Parcel]:
    """A site's answer to training, exact in every way, with some of it changed."""

    def make(node: Node, number: int = 0, **changes: object) -> Parcel:
        settings = node.settings
        sizes = float_buffers(exchanged_layout(settings))
        arrays = {name: np.full(size, 1e-3, np.float32) for name, size in sizes.items()}
        step = Step(settings.exchange.uplink, arrays)
        report = TrainReport("A", number, 3, 0.5, 0.25, 1.5, step).parcel()
        values = report.values | {name.replace("_", "-"): value for name, value in changes.items()}
        return Parcel({n: v for n, v in values.items() if v is not None}, dict(report.arrays))

    return make


@pytest.fixture
def restored_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back afterwards what `start` changes in this process."""
    import logging

    from flwr.supernode import start_client_internal as loop
    from flwr.supernode.fleet_http_client import FleetHttpClient

    for name in ("FLWR_HOME", "PATH", *QUIET):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    for name in ("_pull_and_store_message", "_push_messages"):
        monkeypatch.setattr(loop, name, getattr(loop, name))
    monkeypatch.setattr(FleetHttpClient, "from_server_address", FleetHttpClient.from_server_address)
    ours = logging.getLogger("client")
    for name in ("handlers", "propagate", "level"):
        monkeypatch.setattr(ours, name, getattr(ours, name))


@pytest.fixture
def make_ready_kit(tmp_path: Path, make_store) -> Callable[..., Kit]:
    """A kit with keys that fit each other, whose store is prepared."""

    def make(*, site: str = "A") -> Kit:
        kit = write_kit(tmp_path / "kit", make_store().path, site=site)
        write_keys(kit)
        return read_kit(kit.path)

    return make


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path, prepared: Path) -> SiteStore:
    """A site of three who train and one who validates, prepared once for all tests."""
    if not prepared.exists():
        shutil.copytree(request.getfixturevalue("make_store")().path, prepared)
        return SiteStore(tmp_path / "sites" / "A")
    return SiteStore(shutil.copytree(prepared, tmp_path / "sites" / "A"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared") / "A"


@pytest.fixture
def private(make_settings, store: SiteStore) -> Callable[..., Settings]:
    """Settings of a private run of this store."""
    return lambda **changes: make_settings(data__sites=str(store.path.parent), **(PRIVATE | changes))


@pytest.fixture
def settings(private) -> Settings:
    return private()


@pytest.fixture
def policy() -> Callable[..., Policy]:
    def make(**changes: object) -> Policy:
        usual = {"aggregations": ["fedavg"], "min_subjects": 1, "max_rounds": 9, "metrics_min_subjects": 1}
        usual |= {"metrics": ["train-loss", "valid-mae", "seconds"], "max_epsilon": 50.0, "max_delta": 1e-3}
        return Policy(**(usual | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rounds that were trained; training itself is a fresh random number added to every weight."""
    rounds: list[int] = []

    def train(network, subjects, optimizer, *, settings, place, plan) -> float:
        rounds.append(place.round)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1e-3 * float(np.random.default_rng().normal()))
        return 0.5

    monkeypatch.setattr(private_module, "private_steps", train)
    return rounds
