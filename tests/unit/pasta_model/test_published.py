# SPDX-License-Identifier: Apache-2.0
"""A published checkpoint comes in whole, and computes what it computed."""

import os
from pathlib import Path

import pytest
import torch

from pasta_model.checkpoint import load_checkpoint, new_translator, save_checkpoint
from pasta_model.errors import CheckpointError
from pasta_model.network.dual_arm import Direction
from pasta_model.network.published import (
    dead_names,
    gate_positions,
    published_name,
    published_places,
)
from pasta_model.network.shape import SHAPES
from pasta_model.published import import_published
from tests.support.published import Reference, make_state

SMALL = {"slices": 3, "width": 32, "mults": (1, 2, 3), "blocks": 2, "attention": (2, 4)}
OTHER = {"slices": 5, "width": 32, "mults": (1, 3), "blocks": 1, "attention": (1, 2)}


@pytest.fixture
def small() -> dict[str, torch.Tensor]:
    return make_state(**SMALL)


def save(path: Path, state, **more) -> Path:
    torch.save({"step": 7, "model": state, "opt": {}, "scaler": None, **more}, path)
    return path


def assert_near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal within float32 rounding of the values' own size."""
    assert (found - wanted).abs().max() <= 2e-5 * wanted.abs().max()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("config", [SMALL, OTHER], ids=["three levels", "two levels"])
def test_computes_the_same(tmp_path: Path, config, direction: Direction, channels_last: bool) -> None:
    state = make_state(**config)
    checkpoint = import_published(save(tmp_path / "model.pt", state)).checkpoint
    training = checkpoint.settings.training.model_copy(
        update={"dtype": "float32", "channels_last": channels_last}
    )
    settings = checkpoint.settings.model_copy(update={"training": training})
    network = new_translator(settings, checkpoint.state).network
    part = {key: config[key] for key in ("mults", "blocks")}
    arms = [Reference(state, arm, **part) for arm in ("model.", "encoder.")]
    denoiser, conditioner = arms if direction is Direction.MRI_TO_PET else arms[::-1]
    generator = torch.Generator().manual_seed(1)
    source, noised = (torch.randn(2, config["slices"], 24, 32, generator=generator) for _ in range(2))
    timesteps, clinical = torch.tensor([990, 30]), torch.randn(2, 9, generator=generator)
    told = clinical if direction is Direction.MRI_TO_PET else None

    with torch.inference_mode():
        preview, maps = conditioner(source)
        wanted = denoiser(noised, timesteps, maps, told)[0]
        read = network.condition(source, direction=direction)
        found = network.denoise(noised, timesteps, read, clinical=told, direction=direction)
    assert_near(read.preview, preview)
    gating = [maps[k] for k in gate_positions(network.settings.resolved)]
    assert len(read.features) == len(gating)
    for ours, theirs in zip(read.features, gating, strict=True):
        assert_near(ours, theirs)
    assert wanted.std() > 0.1, "a reference of zeros would prove nothing"
    assert_near(found, wanted)


def test_shape_settings_and_dead_weights(tmp_path: Path, small) -> None:
    imported = import_published(save(tmp_path / "model.pt", small))
    assert imported.shape.words() == (
        "slices 3, width 32, multipliers 1-2-3, blocks 2, attention 2-4, heads 4, groups 32, patch 1"
    )
    dead = set(imported.dropped)
    assert {n for n in small if n.startswith("encoder") and "tab_embed" in n} <= dead
    resampling = ("input_blocks.3.", "input_blocks.6.", "output_upsample_blocks.")
    wanted = {n for n in small if "emb_layers" in n and n.partition(".")[2].startswith(resampling)}
    assert {n for n in dead if "tab_embed" not in n} == wanted
    assert len(imported.checkpoint.state) + len(dead) == len(small)
    save_checkpoint(tmp_path / "ours.safetensors", imported.checkpoint)
    again = load_checkpoint(tmp_path / "ours.safetensors")
    assert again.settings == imported.checkpoint.settings
    assert all(torch.equal(again.state[n], t) for n, t in imported.checkpoint.state.items())


def test_published_size_is_base() -> None:
    """44.548 M an arm with its dead weights, as published."""
    from pasta_model.checkpoint import network_layout
    from pasta_model.config import settings_from_flat

    places = published_places(SHAPES["base"])
    slots = network_layout(settings_from_flat({"network.size": "base"})).slots
    names = {published_name(slot.name, places): slot.size for slot in slots}
    assert len(names) == len(slots)
    assert not names.keys() & dead_names(SHAPES["base"])
    # Time linears of the resampling blocks: down 64, 128, 192; up 256, 192, 128.
    dead = sum(2 * width * (256 + 1) for width in (64, 128, 192, 256, 192, 128))
    pet_arm = sum(size for name, size in names.items() if name.startswith("model."))
    assert pet_arm + dead == pytest.approx(44.548e6, rel=2e-5)


def test_gating_maps_in_the_published_list_by_hand() -> None:
    """The list: input, stem, then by level its blocks and the down block, middle, decoder."""
    # Two levels of one block: input 0, stem 1, block 2, down 3, block 4, middle 5, decoder 6 to 9.
    assert gate_positions(SHAPES["base"].overridden("multipliers 1-2, blocks 1")) == (2, 4, 5, 6, 7, 8, 9)
    assert len(gate_positions(SHAPES["base"])) == 37
    assert gate_positions(SHAPES["base"])[-1] == 41


def test_groups_of_another_number_can_be_told(tmp_path: Path) -> None:
    """Width 48 has no 32 groups, so that nothing can be inferred without the user's words."""
    path = save(tmp_path / "model.pt", make_state(**{**SMALL, "width": 48}))
    with pytest.raises(CheckpointError, match="groups 32"):
        import_published(path)
    assert import_published(path, shape="groups 16").shape.groups == 16


def test_moving_average_when_asked(tmp_path: Path, small) -> None:
    ema = {
        **{f"ema_model.{n}": t + 1 for n, t in small.items()},
        **{f"online_model.{n}": t for n, t in small.items()},
        "step": torch.tensor(5),
        "initted": torch.tensor(True),
    }
    path = save(tmp_path / "model.pt", small, ema=ema)
    raw, averaged = (import_published(path, ema=asked).checkpoint.state for asked in (False, True))
    assert all(torch.equal(averaged[n], raw[n] + 1) for n in raw)
    with pytest.raises(CheckpointError, match="no moving average"):
        import_published(save(tmp_path / "none.pt", small), ema=True)


def test_every_missing_unexpected_and_misshapen_tensor_is_named(tmp_path: Path, small) -> None:
    del small["model.middle_block.1.qkv.weight"], small["encoder.out.2.bias"]
    small["model.extra"] = torch.zeros(3)
    small["encoder.out.0.weight"] = torch.zeros(7)
    small["model.out.0.bias"] = torch.full((32,), float("nan"))
    with pytest.raises(CheckpointError, match=r"5 problem") as said:
        import_published(save(tmp_path / "model.pt", small))
    for line in (
        "model.middle_block.1.qkv.weight: missing",
        "encoder.out.2.bias: missing",
        "model.extra: unexpected",
        "encoder.out.0.weight: shape (7,), wanted (32,)",
        "model.out.0.bias: holds values that are not finite",
    ):
        assert line in str(said.value)


class Danger:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_damaged_and_dangerous_files(tmp_path: Path, small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = save(tmp_path / "model.pt", small).read_bytes()
    files = {"cut.pt": whole[: len(whole) // 2], "text.pt": b"hello", "empty.pt": b""}
    for name, payload in files.items():
        (tmp_path / name).write_bytes(payload)
    torch.save({"model": Danger()}, tmp_path / "danger.pt")
    for name in (*files, "danger.pt", "none.pt"):
        with pytest.raises(CheckpointError, match=r"cannot be read|no such file"):
            import_published(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    for wrong in ({"model": {"a": torch.zeros(2)}}, {"model": 3}, [1]):
        torch.save(wrong, tmp_path / "wrong.pt")
        with pytest.raises(CheckpointError, match="wanted"):
            import_published(tmp_path / "wrong.pt")


def test_clinical_vector_of_unknown_length(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"11 values.*9 \(adni\)"):
        import_published(save(tmp_path / "model.pt", make_state(**SMALL, clinical=11)))
