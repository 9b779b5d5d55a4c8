# SPDX-License-Identifier: Apache-2.0
"""A coordinator's folder, with scripts in the place of Flower's commands."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from server.deployment import launcher as launcher_module
from server.deployment import superlink as superlink_module
from server.deployment.flower import Flower
from server.deployment.folder import Deployment
from server.provision.steps import provision
from tests.support.deployed import FLWR, SUPERLINK, FakeControl


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        '[consortium]\nname = "north-sea"\nnames = ["localhost"]\nsuperlink-port = 12345\n'
        '[[sites]]\nname = "alder"\n[[sites]]\nname = "birch"\n'
    )
    provision(plan, tmp_path / "house")
    return Deployment.at(tmp_path / "house")


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> FakeControl:
    fake = FakeControl()
    monkeypatch.setattr(superlink_module, "Control", fake)
    monkeypatch.setattr(launcher_module, "Control", fake)
    return fake


@pytest.fixture
def flower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put scripts in the place of Flower's commands; SuperLink is healthy once it has begun."""

    def install(*, status: str = "finished:completed", seconds: float = 0.0) -> None:
        settings = f"STATUS, SECONDS = {status!r}, {seconds}\n"
        for name, body in {"flwr": settings + FLWR, "flower-superlink": SUPERLINK}.items():
            (tmp_path / name).write_text(f"#!{sys.executable}\n{body}")
            (tmp_path / name).chmod(0o755)
        for module in ("server.deployment.flower", "server.deployment.superlink"):
            monkeypatch.setattr(f"{module}.script", lambda name: str(tmp_path / name))
        monkeypatch.setattr(Flower, "answers", lambda self: (self.state / "started.json").exists())
        monkeypatch.setattr(launcher_module, "bundle_hash", lambda _: "0" * 64)

    install()
    return install


@pytest.fixture
def live(deployment: Deployment, flower: Callable[..., None]) -> Deployment:
    """A deployment whose SuperLink answers."""
    (deployment.flower.state / "started.json").touch()
    return deployment
