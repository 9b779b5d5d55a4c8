# SPDX-License-Identifier: Apache-2.0
"""A rival at rest: read back as it was, explaining itself; and files that are something else."""

import json
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
from safetensors import safe_open

from pasta_model.checkpoint import load_checkpoint
from pasta_model.errors import CheckpointError
from simulation.rivals.models import load_rival, save_rival


@pytest.mark.parametrize("name", ["U-Net", "concatenation", "pix2pix"])
def test_a_model_is_read_as_it_was_written(name, trained, quick, tmp_path) -> None:
    file = trained(name) / "last.safetensors"
    found = load_rival(file)
    assert (found.rival.name, found.step, found.settings) == (name, 3, quick())
    with safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["about"])
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    assert about["parameters"] == sum(t.numel() for t in tensors.values())
    assert about["pasta_parameters"] > 0
    assert about["versions"]["torch"] == version("torch")
    state = found.translator().network.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[key], tensors[key]) for key in tensors)
    save_rival(tmp_path / "again.safetensors", found)
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_what_is_no_rivals_model_is_one_message(trained, model, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no such file; train the rival first"):
        load_rival(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match=r"not a rival's model \(format None, wanted 'pasta-rival-1'\)"):
        load_rival(model)  # PASTA's
    file = trained("U-Net") / "model.safetensors"
    with pytest.raises(CheckpointError, match="wanted 'pasta-dual-arm-1'"):
        load_checkpoint(file)
    (tmp_path / "short.safetensors").write_bytes(file.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_rival(tmp_path / "short.safetensors")


def test_description_that_cannot_be_used_is_one_message(trained, tmp_path) -> None:
    found = load_rival(trained("U-Net") / "model.safetensors")
    save_rival(tmp_path / "other.safetensors", replace(found, rival=replace(found.rival, name="CycleGAN")))
    with pytest.raises(CheckpointError, match=r"not a rival's model \('CycleGAN'\)"):
        load_rival(tmp_path / "other.safetensors")
