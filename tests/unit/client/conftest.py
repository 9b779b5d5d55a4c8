# SPDX-License-Identifier: Apache-2.0
"""A site behind its gate: three subjects train, one validates."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.guard.gate import Gate
from client.guard.supernode import QUIET
from client.kit import Kit, read_kit
from pasta_model.checkpoint import exchanged_layout
from pasta_model.exchange.contents import Parcel, TrainReport
from pasta_model.exchange.steps import Step
from pasta_model.exchange.vectors import float_buffers
from tests.support.guarded import Node, build, open_log, write_keys, write_kit

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
