# SPDX-License-Identifier: Apache-2.0
"""A site's own model: the federation's, with the parts that the site kept to itself."""

import re
from pathlib import Path

import pytest
import torch

from client.commands.combine import combine
from client.memory import combined_model
from pasta_model.checkpoint import load_checkpoint, new_translator
from pasta_model.errors import CheckpointError, ConfigError
from pasta_model.network.parts import members
from server.rounds import Federation
from simulation.direct import DirectPost
from tests.unit.conftest import SMALLEST


@pytest.fixture
def federation(tmp_path: Path, make_store, make_settings):
    """Two sites after two rounds; returns the folder of the run."""
    for name in "AB":
        make_store(name)

    def run(**changes) -> Path:
        settings = make_settings(
            network__shape=SMALLEST,
            sampling__hop=4,
            run__name="together",
            run__output=str(tmp_path / "run"),
            data__sites=str(tmp_path / "sites"),
            **changes,
        )
        Federation(DirectPost(settings, {"partition-id": 0, "num-partitions": 1}), settings).run()
        return tmp_path / "run"

    return run


def test_each_sites_model_is_the_shared_part_with_its_own(federation, tmp_path: Path) -> None:
    model = federation(exchange__personal="norms") / "last.safetensors"
    whole = load_checkpoint(model)
    found = {}
    for name in "AB":
        combine(model, tmp_path / "sites" / name, tmp_path / f"{name}.safetensors")
        found[name] = load_checkpoint(tmp_path / f"{name}.safetensors")
        new_translator(found[name].settings, found[name].state)  # a network like any other
    own = members(whole.state, ["norms"])
    assert own
    for name, value in whole.state.items():
        mine, theirs = found["A"].state[name], found["B"].state[name]
        if name in own:
            assert not torch.equal(mine, value), "the federation's is as it was at the start"
        else:
            assert torch.equal(mine, value)
            assert torch.equal(theirs, value)
    assert any(not torch.equal(found["A"].state[name], found["B"].state[name]) for name in own)
    assert (found["A"].round, found["A"].standardisation) == (whole.round, whole.standardisation)


def test_nothing_is_overwritten(federation, tmp_path: Path) -> None:
    model = federation(exchange__personal="norms") / "last.safetensors"
    before = model.read_bytes()
    with pytest.raises(ConfigError, match="is there already"):
        combine(model, tmp_path / "sites" / "A", model)
    assert model.read_bytes() == before


def test_model_without_personal_parts(federation, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(federation() / "last.safetensors")
    with pytest.raises(CheckpointError, match="no personal parts: every site's is the same"):
        combined_model(checkpoint, tmp_path / "sites" / "A")


def test_site_that_took_no_part(federation, tmp_path: Path, make_store) -> None:
    checkpoint = load_checkpoint(federation(exchange__personal="norms") / "last.safetensors")
    make_store("C")
    with pytest.raises(CheckpointError, match=r"took no part in that run; give its store and --run"):
        combined_model(checkpoint, tmp_path / "sites" / "C")
    with pytest.raises(CheckpointError, match=re.escape("another-")):
        combined_model(checkpoint, tmp_path / "sites" / "A", run="another")
