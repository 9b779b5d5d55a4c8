# SPDX-License-Identifier: Apache-2.0
"""A site that is ready to join, which a test breaks."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pasta_model.costs
from client.checks import machine
from pasta_model.config import Settings
from pasta_model.costs import TrainingMemory
from simulation.consortium import change_toml
from tests.support.checks import Door, Health, Scene, listen, make_consortium


def step_memory(settings: Settings, *, batch_size: int) -> TrainingMemory:
    """Stands for the estimate, which takes a while: 7 GB, or 2 where it is frugal."""
    assert settings.data.spacing == 3.0, "as the store's"
    frugal = settings.training.checkpointing and batch_size == 1
    return TrainingMemory(0, 0, 0, int(2e9 if frugal else 7e9))


@pytest.fixture
def scene(
    tmp_path: Path, make_store: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    monkeypatch.setattr(pasta_model.costs, "training_memory", step_memory)
    monkeypatch.setattr(machine, "memory_of", lambda _: 8e9)
    make_store("alder")
    make_store("birch")
    with Door(("127.0.0.1", 0), Health) as door:
        found = make_consortium(tmp_path / "north-sea", port=door.server_port)
        scene = Scene(found / "kits" / "alder", found, door)
        scene.change(store=f'"{tmp_path / "sites" / "alder"}"', size='"tiny"')
        change_toml(scene.kit / "policy.toml", {"min-subjects": "3"})
        listen(door, found)
        yield scene
        door.shutdown()
