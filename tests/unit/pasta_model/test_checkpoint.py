# SPDX-License-Identifier: Apache-2.0
"""A model at rest: comes back bit by bit, explains itself, and says clearly when it cannot be used."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pasta_model.checkpoint import Checkpoint, load_checkpoint, new_network, new_translator, save_checkpoint
from pasta_model.config import settings_from_flat
from pasta_model.data.clinical import Standardisation
from pasta_model.errors import CheckpointError

STANDARDISATION = Standardisation((70.1, 0.5, 1 / 3, 0.0, 0.0, 0.0), (7.0, 0.5, 2.0, 1.0, 1.0, 1.0))


@pytest.fixture
def saved(tmp_path: Path, make_settings) -> tuple[Path, Checkpoint]:
    settings = make_settings(run__seed=5)
    checkpoint = Checkpoint(new_network(settings).state_dict(), settings, STANDARDISATION, 7)
    save_checkpoint(tmp_path / "model.safetensors", checkpoint)
    return tmp_path / "model.safetensors", checkpoint


def test_comes_back(saved) -> None:
    path, checkpoint = saved
    found = load_checkpoint(path)
    assert (found.settings, found.standardisation, found.round) == (
        checkpoint.settings,
        STANDARDISATION,
        7,
    )
    assert found.state.keys() == checkpoint.state.keys()
    assert all(torch.equal(found.state[name], tensor) for name, tensor in checkpoint.state.items())
    network = new_translator(found.settings, found.state).network
    assert all(torch.equal(network.state_dict()[name], t) for name, t in checkpoint.state.items())


def test_explains_itself_without_our_code(saved) -> None:
    with safe_open(saved[0], framework="pt") as file:
        metadata = file.metadata()
    about = json.loads(metadata["about"])
    assert about["round"] == 7
    assert about["settings"]["network.size"] == "tiny"
    assert about["settings"]["run.seed"] == 5
    assert about["standardisation"]["mean"] == list(STANDARDISATION.mean)
    assert about["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("channels_last", [True, False])
def test_training_a_translator_leaves_the_weights_it_was_made_of(make_settings, channels_last: bool) -> None:
    settings = make_settings(training__channels_last=channels_last)
    state = new_network(settings).state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    network = new_translator(settings, state).network
    assert all(p.requires_grad and not p.is_meta for p in network.parameters())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


class TestRefusals:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="no such file; train first"):
            load_checkpoint(tmp_path / "model.safetensors")

    @pytest.mark.parametrize("kept", [0, 5, 1000, 100_000])
    def test_truncated(self, saved, kept: int) -> None:
        path, _ = saved
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            load_checkpoint(path)

    @pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
    def test_of_somebody_else(self, tmp_path: Path, metadata: dict | None) -> None:
        save_file({"a": torch.zeros(2)}, tmp_path / "m.safetensors", metadata=metadata)
        with pytest.raises(CheckpointError, match="wanted 'pasta-dual-arm-1'"):
            load_checkpoint(tmp_path / "m.safetensors")

    @pytest.mark.parametrize("about", [None, "{", '{"round": 1}', '{"settings": {"a.b": 1}}'])
    def test_with_damaged_metadata(self, tmp_path: Path, about: str | None) -> None:
        metadata = {"format": "pasta-dual-arm-1"} | ({"about": about} if about else {})
        save_file({"a": torch.zeros(2)}, tmp_path / "m.safetensors", metadata=metadata)
        with pytest.raises(CheckpointError, match=r"m\.safetensors"):
            load_checkpoint(tmp_path / "m.safetensors")

    def test_of_another_size(self, saved) -> None:
        small = settings_from_flat({"network.size": "small"})
        with pytest.raises(CheckpointError, match=r"do not fit the network of PASTA small: .* missing"):
            new_translator(small, load_checkpoint(saved[0]).state)

    def test_failing_save_leaves_the_old_model(self, saved, monkeypatch: pytest.MonkeyPatch) -> None:
        path, checkpoint = saved
        monkeypatch.setattr("pasta_model.checkpoint.save_file", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save_checkpoint(path, checkpoint)
        assert load_checkpoint(path).round == 7
        assert list(path.parent.iterdir()) == [path]


class TestNewNetwork:
    def test_same_seed_same_weights_and_global_generator_untouched(self, make_settings) -> None:
        before = torch.random.get_rng_state()
        one, same, other = (new_network(make_settings(run__seed=seed)).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert any(not torch.equal(one[name], other[name]) for name in one)
        assert torch.equal(before, torch.random.get_rng_state())

    def test_layout_follows_the_settings(self, make_settings) -> None:
        weight = new_translator(make_settings(training__channels_last=True)).network.pet_arm.stem.weight
        assert weight.is_contiguous(memory_format=torch.channels_last)
        other = new_translator(make_settings(training__channels_last=False)).network
        assert other.pet_arm.stem.weight.is_contiguous()

    def test_dtype_follows_the_settings(self, make_settings) -> None:
        assert new_translator(make_settings(training__dtype="bfloat16")).dtype is torch.bfloat16
        assert new_translator(make_settings(training__dtype="float32")).dtype is torch.float32
