# SPDX-License-Identifier: Apache-2.0
"""A server whose network is one small matrix, and a way to run it."""

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest

from pasta_model import checkpoint
from pasta_model.privacy.normals import Normals, secure_normals
from server import members, records, rounds, start, watch, wire
from server.records import Progress
from server.rounds import Federation
from server.wire import GridPost
from tests.support.grid import InProcessGrid
from tests.support.sites import LAYOUT, OneMatrix, Sites, make_settings, prepared

Run = Callable[..., tuple[Progress, Path]]


VERSION = cache(version)


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server train one matrix, and wait for milliseconds where it waits for seconds."""
    monkeypatch.setattr(start, "new_network", lambda settings: OneMatrix())
    for name in ("network_layout", "exchanged_layout"):
        monkeypatch.setattr(records, name, lambda settings: LAYOUT)
    monkeypatch.setattr(checkpoint, "version", VERSION)
    monkeypatch.setattr(wire, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(members, "SETTLE_SECONDS", 0.001)
    monkeypatch.setattr(rounds, "WAIT_SECONDS", 0.001)
    monkeypatch.setattr(rounds, "LONGEST_WAIT", 0.001)


class Noted:
    """In the place of TensorBoard, which is slow to start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def scalars(self, values: Mapping[str, float], number: int) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Close nothing."""


@pytest.fixture(autouse=True)
def no_tensorboard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do without TensorBoard where a test does not ask for it with the mark `usefixtures("tensorboard")`."""
    if "tensorboard" not in request.fixturenames:
        monkeypatch.setattr(watch, "TensorBoard", Noted)


@pytest.fixture
def tensorboard() -> None:
    """Ask for the real TensorBoard."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a federation and return how far it came, and its folder; `run.grid` is the grid of the last."""

    def start(
        sites: Sites | None = None,
        *,
        tamper=None,
        output: str = "run",
        deadline: float = 0.02,
        keys: Mapping[int, bytes] | None = None,
        absent: set[int] | None = None,
        normals: Normals = secure_normals,
        **changes: bool | float | str,
    ) -> tuple[Progress, Path]:
        sites = sites or Sites()
        prepared(tmp_path, sites.names)
        settings = make_settings(tmp_path, tmp_path / output, **changes)
        start.grid = grid = InProcessGrid(
            sites.app, run_config={}, nodes=len(sites.names), tamper=tamper, keys=keys
        )
        grid.absent = set() if absent is None else absent
        post = GridPost(grid, deadline=deadline, settle_checks=0)
        federation = Federation(post, settings, normals=normals)
        return federation.run(), tmp_path / output

    return start
