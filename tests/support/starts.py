# SPDX-License-Identifier: Apache-2.0
"""A model to start from, and what a run that started from it has left."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from client.memory import run_folder
from pasta_model.checkpoint import Checkpoint, load_checkpoint, new_network, save_checkpoint
from pasta_model.config import Settings
from pasta_model.data.clinical import Standardisation
from tests.support.tasks import SMALLEST

ALL = {"partition-id": 0, "num-partitions": 1}
OWN = Standardisation((70.0, 0.4, 15.0, 26.0, 18.0, 0.5), (8.0, 0.5, 3.0, 3.0, 9.0, 0.6))
SMALL = {"network__shape": SMALLEST, "sampling__hop": 4, "training__local_steps": 1}
MODELS = ("model", "last", "average")

Run = Callable[..., Path]
Make = Callable[..., Settings]


def write_model(path: Path, settings: Settings, *, seed: int = 3) -> dict[str, Tensor]:
    """A model in which nothing is zero, as after training."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: value + 0.05 * torch.randn(value.shape, generator=generator)
        for name, value in new_network(settings).state_dict().items()
    }
    save_checkpoint(path, Checkpoint(state, settings, OWN, 7))
    return state


def history(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]


def state(output: Path, name: str = "last") -> dict[str, Tensor]:
    return dict(load_checkpoint(output / f"{name}.safetensors").state)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def site_folders(settings: Settings) -> Iterator[Path]:
    for name in ("alder", "birch"):
        yield run_folder(Path(settings.data.sites) / name, settings)


def floats(*names: str, of: dict[str, Tensor]) -> int:
    return sum(of[name].numel() for name in names)
