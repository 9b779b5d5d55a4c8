# SPDX-License-Identifier: Apache-2.0
"""Checkpoints trained with the published PASTA code, brought into this project's form.

Such a file is a dict of 'model' (the state dict), 'ema', 'step', 'opt', 'scaler'. `model.*` is the arm that
denoises the PET, `encoder.*` the arm that reads the MRI, of the same layout. Written from facts about names
and shapes; no line of the published code is here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pasta_model.checkpoint import Checkpoint, network_layout
from pasta_model.config import Settings, settings_from_flat
from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.errors import CheckpointError, Problems
from pasta_model.network.shape import SHAPES, Shape
from pasta_model.sections import SamplingSettings

ARMS = {"model.": "pet_arm.", "encoder.": "mri_arm."}
EMA = "ema_model."
# Inside a residual block, ours: theirs. Numbers count their nn.Sequential, activations included.
BLOCK = {
    "in_norm": "in_layers.0",
    "in_conv": "in_layers.2",
    "time.1": "emb_layers.1",
    "clinical.0": "tab_embed.0",
    "clinical.2": "tab_embed.2",
    "out_norm": "out_layers.0",
    "out_conv": "out_layers.3",
    "skip": "skip_connection",
    "in_resample.conv": "h_upd",  # downsampling calls its convolution `op`, upsampling `conv`
    "skip_resample.conv": "x_upd",
}
ATTENTION = {"norm": "norm", "qkv": "qkv", "out": "proj_out"}
OUTSIDE = {
    "time.0": "time_embed.0",
    "time.2": "time_embed.2",
    "stem": "input_blocks.0.0",
    "head_norm": "out.0",
    "head": "out.2",
}


@dataclass(frozen=True)
class Imported:
    """A checkpoint in our form.

    Attributes
    ----------
    dropped
        Tensors of the file that its own forward pass never uses.
    """

    checkpoint: Checkpoint
    dropped: tuple[str, ...]
    shape: Shape


def import_published(
    path: Path, *, ema: bool = False, shape: str = "", standardisation: Standardisation | None = None
) -> Imported:
    """Read a published checkpoint.

    Parameters
    ----------
    ema
        Take the moving average of the weights.
    shape
        Words for what names and shapes do not tell, where it is not as published: "heads 4, groups 32".
    standardisation
        Mean and spread of the clinical values; the file has none, and without them they are taken as
        z-scores already.

    Raises
    ------
    CheckpointError
        When the file cannot be read safely, or with a line for every tensor that is missing, unexpected,
        of another shape or not finite.
    """
    found = _weights(_read(path), path, ema=ema)
    try:
        guessed = infer_shape(found)
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a state dict of the published network ({error}); wanted model.* and encoder.*"
        ) from error
    settings = _settings(guessed, shape, clinical_length(found), path)
    dropped = tuple(sorted(found.keys() & dead_names(settings.network.resolved)))
    state = _translated(found, dropped, settings, path)
    scheme = SCHEMES[settings.data.clinical]
    columns = len(scheme.columns)
    unscaled = Standardisation((0.0,) * columns, (1.0,) * columns)
    checkpoint = Checkpoint(state, settings, standardisation or unscaled, 0)
    return Imported(checkpoint, dropped, settings.network.resolved)


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; check the path")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises a dozen kinds
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{path}: cannot be read as a torch file of plain tensors ({type(error).__name__}: {reason});"
            " it is damaged, or holds objects that could run code: save its state dict again, alone"
        ) from error
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path}: holds a {type(found).__name__}, wanted a dict with 'model'")
    return found


def _weights(found: Mapping[str, Any], path: Path, *, ema: bool) -> dict[str, Tensor]:
    if ema:
        averaged = found.get("ema")
        if not isinstance(averaged, Mapping) or not any(str(n).startswith(EMA) for n in averaged):
            raise CheckpointError(f"{path}: has no moving average ('ema'); import it without --ema")
        chosen = {n.removeprefix(EMA): t for n, t in averaged.items() if str(n).startswith(EMA)}
    else:
        inner = found.get("model", found)
        if not isinstance(inner, Mapping):
            raise CheckpointError(f"{path}: 'model' is a {type(inner).__name__}, wanted a state dict")
        chosen = {str(name): tensor for name, tensor in inner.items()}
    return {name: tensor for name, tensor in chosen.items() if isinstance(tensor, Tensor)}


def infer_shape(state: Mapping[str, Tensor]) -> Shape:
    """Infer the shape of the denoiser arm; heads and groups cannot be seen and are those of `base`.

    Raises
    ------
    KeyError
        When a tensor that tells the shape is not there.
    ValueError
        When no network has that shape.
    """
    width, slices = state["model.input_blocks.0.0.weight"].shape[:2]
    widths, attention, blocks = [], [], 0
    number = 1
    while True:
        convolution = state.get(f"model.input_blocks.{number}.0.out_layers.3.weight")
        if convolution is None:
            break
        if f"model.input_blocks.{number}.0.h_upd.op.weight" in state:
            widths.append(len(convolution))
        elif not widths:
            blocks += 1
        if f"model.input_blocks.{number}.1.qkv.weight" in state and 2 ** len(widths) not in attention:
            attention.append(2 ** len(widths))
        number += 1
    last = state[f"model.input_blocks.{number - 1}.0.out_layers.3.weight"]
    base = SHAPES["base"]
    return Shape(
        slices=int(slices),
        width=int(width),
        multipliers=tuple(w // int(width) for w in (*widths, len(last))),
        blocks=blocks,
        attention=tuple(attention),
        heads=base.heads,
        groups=base.groups,
    )


def clinical_length(state: Mapping[str, Tensor]) -> int:
    """Length of the clinical vector; 0 where the blocks take none."""
    entry = state.get("model.input_blocks.1.0.tab_embed.0.weight")
    return 0 if entry is None or entry.ndim != 2 else int(entry.shape[1])


def _settings(guessed: Shape, words: str, clinical: int, path: Path) -> Settings:
    schemes = {scheme.length: name for name, scheme in SCHEMES.items()}
    if clinical not in schemes:
        known = ", ".join(f"{length} ({name})" for length, name in schemes.items())
        raise CheckpointError(f"{path}: a clinical vector of {clinical} values; this project knows {known}")
    ours, base = guessed.words().split(", "), SHAPES["base"].words().split(", ")
    parts = [part for part in ours if part not in base]
    said = ", ".join([*parts, *([words] if words else [])])
    return settings_from_flat(
        {
            "run.name": "published",
            "data.spacing": 1.5,
            "data.clinical": schemes[clinical],
            "network.size": "base",
            "network.shape": said,
            "sampling.hop": min(SamplingSettings().hop, max(1, (guessed.slices - 1) // 2)),
        }
    )


def published_places(shape: Shape) -> dict[str, str]:
    """Return the published name of each block of an arm, by ours."""
    places = {f"{ours}.": f"{theirs}." for ours, theirs in OUTSIDE.items()}
    places |= {
        "middle_in.": "middle_block.0.",
        "middle_attention.": "middle_block.1.",
        "middle_out.": "middle_block.2.",
    }
    levels, encoder, decoder = len(shape.multipliers), 1, 0
    for level in range(levels):
        for block in range(shape.blocks):
            places[f"down.{level}.blocks.{block}.block."] = f"input_blocks.{encoder}.0."
            places[f"down.{level}.blocks.{block}.attention."] = f"input_blocks.{encoder}.1."
            encoder += 1
        places[f"down.{level}.resample."] = f"input_blocks.{encoder}.0."
        encoder += 1
        for block in range(shape.blocks + 1):
            places[f"up.{level}.blocks.{block}.block."] = f"output_blocks.{decoder}.0."
            places[f"up.{level}.blocks.{block}.attention."] = f"output_blocks.{decoder}.1."
            decoder += 1
        places[f"up.{level}.resample."] = f"output_upsample_blocks.{level}.0."
    return places


def published_name(ours: str, places: Mapping[str, str]) -> str:
    """Return the published name of one of our tensors, arm included."""
    arm, _, inside = ours.partition(".")
    theirs = next(prefix for prefix, own in ARMS.items() if own == f"{arm}.")
    place = next(p for p in places if inside.startswith(p))
    layer, _, kind = inside.removeprefix(place).rpartition(".")
    if not layer:  # a layer outside the blocks
        return f"{theirs}{places[place]}{kind}"
    table = ATTENTION if "attention" in place else BLOCK
    resampling = {"down": ".op", "up": ".conv"}.get(inside.split(".")[0], "") if "resample" in layer else ""
    return f"{theirs}{places[place]}{table[layer]}{resampling}.{kind}"


def dead_names(shape: Shape) -> set[str]:
    """Tensors that the published forward pass never uses.

    Its resampling blocks ignore the time that they own weights for, and the arm that reads the MRI is
    never given clinical values, not even when places are exchanged.
    """
    dead = set()
    for ours, theirs in published_places(shape).items():
        for kind in ("weight", "bias"):
            if "resample" in ours:
                dead |= {f"{arm}{theirs}emb_layers.1.{kind}" for arm in ARMS}
            elif ours.endswith(".block.") or ours in ("middle_in.", "middle_out."):
                dead |= {f"encoder.{theirs}tab_embed.{layer}.{kind}" for layer in (0, 2)}
    return dead


def _translated(
    found: Mapping[str, Tensor], dropped: tuple[str, ...], settings: Settings, path: Path
) -> dict[str, Tensor]:
    problems = Problems(f"{path}: does not fit {settings.title}")
    wanted = {slot.name: slot.shape for slot in network_layout(settings).slots}
    places = published_places(settings.network.resolved)
    names = {ours: published_name(ours, places) for ours in wanted}
    state = {}
    for ours, theirs in names.items():
        tensor = found.get(theirs)
        if tensor is None:
            problems.add(f"{theirs}: missing")
        elif tuple(tensor.shape) != wanted[ours]:
            problems.add(f"{theirs}: shape {tuple(tensor.shape)}, wanted {wanted[ours]}")
        elif not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            problems.add(f"{theirs}: holds values that are not finite floating-point numbers")
        else:
            state[ours] = tensor.float().clone()
    for name in sorted(found.keys() - set(names.values()) - set(dropped)):
        problems.add(f"{name}: unexpected")
    problems.raise_if_any(CheckpointError)
    return state
