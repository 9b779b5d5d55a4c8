# SPDX-License-Identifier: Apache-2.0
"""Checkpoints trained with the published PASTA code, brought into this project's form.

Such a file is a dict of 'model' (the state dict), 'ema', 'step', 'opt', 'scaler'; the names inside are
those of `network.published`.
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
from pasta_model.network.published import (
    clinical_length,
    dead_names,
    infer_shape,
    published_name,
    published_places,
)
from pasta_model.network.shape import SHAPES, Shape
from pasta_model.sections import SamplingSettings

EMA = "ema_model."


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
        guessed = infer_shape(found, shape)
    except ValueError as error:
        raise CheckpointError(
            f"{path}: not a state dict of the published network ({error}); wanted model.* and encoder.*"
        ) from error
    settings = _settings(guessed, clinical_length(found), path)
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


def _settings(guessed: Shape, clinical: int, path: Path) -> Settings:
    schemes = {scheme.length: name for name, scheme in SCHEMES.items()}
    if clinical not in schemes:
        known = ", ".join(f"{length} ({name})" for length, name in schemes.items())
        raise CheckpointError(f"{path}: a clinical vector of {clinical} values; this project knows {known}")
    ours, base = guessed.words().split(", "), SHAPES["base"].words().split(", ")
    said = ", ".join(part for part in ours if part not in base)
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
