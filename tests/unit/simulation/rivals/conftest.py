# SPDX-License-Identifier: Apache-2.0
"""What the tests of rivals share: settings of the smallest networks, and a training of a few steps."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from simulation.rivals import networks
from simulation.rivals.training import train_rival

SMALLEST = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"


@pytest.fixture(autouse=True)
def narrow_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the critic as small as the networks that it judges."""
    monkeypatch.setattr(networks, "CRITIC_WIDTH", 4)


@pytest.fixture
def quick(make_settings: Callable[..., Settings]) -> Callable[..., Settings]:
    """Settings of the smallest networks, with some of them changed."""
    usual = {"network__shape": SMALLEST, "sampling__hop": 4, "sampling__steps": 2}

    def make(**changes: bool | float | str) -> Settings:
        return make_settings(**usual | changes)

    return make


@pytest.fixture
def stores(make_store: Callable[..., SiteStore]) -> list[Path]:
    """Two prepared sites."""
    return [make_store(site).path for site in ("A", "B")]


@pytest.fixture
def trained(stores: list[Path], quick: Callable[..., Settings], tmp_path: Path) -> Callable[..., Path]:
    """Train a rival on both sites; return the folder of its models."""

    def train(name: str, folder: str = "out", *, steps: int = 3, **changes: object) -> Path:
        own = {k: changes.pop(k) for k in ("progress", "checkpoint_steps") if k in changes}
        train_rival(name, stores, quick(**changes), tmp_path / folder, steps=steps, **own)
        return tmp_path / folder

    return train
