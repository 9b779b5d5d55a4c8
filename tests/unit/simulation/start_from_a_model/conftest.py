# SPDX-License-Identifier: Apache-2.0
"""Two prepared sites, a model in which nothing is zero, and a way to run a federation from it."""

from pathlib import Path

import pytest
from torch import Tensor

from pasta_model.config import Settings
from server.rounds import Federation
from simulation.direct import DirectPost
from tests.support.starts import ALL, SMALL, Make, Run, write_model


@pytest.fixture
def settings_of(tmp_path: Path, make_settings: Make, make_store) -> Make:
    """Settings of a run of two prepared sites that starts from `initial.safetensors`."""
    for name in ("alder", "birch"):
        make_store(name)

    def make(name: str = "run", **changes: object) -> Settings:
        places = {
            "run__name": name,
            "run__output": str(tmp_path / name),
            "run__initial": str(tmp_path / "initial.safetensors"),
            "data__sites": str(tmp_path / "sites"),
        }
        return make_settings(**(SMALL | places | changes))

    return make


@pytest.fixture
def initial(tmp_path: Path, make_settings: Make) -> dict[str, Tensor]:
    return write_model(tmp_path / "initial.safetensors", make_settings(run__seed=9, **SMALL))


@pytest.fixture
def run(settings_of: Make) -> Run:
    def start(name: str = "run", **changes: object) -> Path:
        settings = settings_of(name, **changes)
        Federation(DirectPost(settings, ALL), settings).run()
        return Path(settings.run.output)

    return start
