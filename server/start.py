# SPDX-License-Identifier: Apache-2.0
"""Where a run starts from: weights of the seed, or a model on the coordinator's disk (`run.initial`).

The model's file is read once, before any site is asked. What of it is not exchanged is kept in the run's
folder: for sites that do not have it, and for the models that the run publishes.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from pasta_model.checkpoint import (
    Checkpoint,
    kept_layout,
    load_checkpoint,
    new_network,
    refuse_other_weights,
)
from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES, Moments, Standardisation
from pasta_model.errors import CheckpointError, Problems
from pasta_model.exchange.packing import Layout, pack, unpack
from pasta_model.exchange.steps import Step
from pasta_model.exchange.vectors import Vector, write_vector
from pasta_model.network.parts import members

SAME = ("data.spacing", "diffusion.num-train-timesteps", "diffusion.timestep-stride")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """The weights that a run starts from, and the standardisation that they were trained with, if any."""

    state: Mapping[str, Tensor]
    standardisation: Standardisation | None


def start_of(settings: Settings) -> Start:
    """Read the model that a run starts from, or make the weights of the seed.

    Raises
    ------
    CheckpointError
        When the model cannot be read, or is not of the run's network.
    """
    if not settings.run.initial:
        return Start(new_network(settings).state_dict(), None)
    path = Path(settings.run.initial)
    checkpoint = load_checkpoint(path)
    _refuse_other_network(checkpoint, settings, path)
    for name in SAME:
        found, wanted = checkpoint.settings.flat()[name], settings.flat()[name]
        if found != wanted:
            logger.warning("run.initial was trained with %s %s, the run has %s", name, found, wanted)
    state = {name: value.float() for name, value in checkpoint.state.items()}
    if settings.network.adapter_rank and not checkpoint.settings.network.adapter_rank:
        fresh = new_network(settings).state_dict()
        state |= {name: fresh[name] for name in members(fresh, ["adapters"])}
    try:
        refuse_other_weights(state, settings)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: run.initial cannot be the start of this run: {error}") from error
    broken = sorted(name for name, value in state.items() if not torch.isfinite(value).all())
    if broken:
        raise CheckpointError(f"{path}: {len(broken)} tensor(s) with NaN or infinity, as {broken[0]}")
    own = checkpoint.standardisation
    if not any(own.mean) and set(own.spread) == {1.0}:
        # An imported checkpoint that holds none: its network was trained on z-scores all the same.
        logger.warning("run.initial has no mean and spread of clinical values; the run takes its own")
        return Start(state, None)
    return Start(state, own)


def refuse_bad_start(settings: Settings) -> None:
    """Refuse a run whose model cannot be its start, before anything is begun; one that goes on needs none.

    Raises
    ------
    CheckpointError
        As `start_of`.
    """
    under_way = settings.run.resume and any(Path(settings.run.output).glob("rounds/after-*"))
    if settings.run.initial and not under_way:
        start_of(settings)


def standardisation_of(start: Start, settings: Settings, moments: Sequence[Moments]) -> Standardisation:
    """Return mean and spread of the clinical values for a whole run.

    A model goes on with those that it was trained with. Where subjects are protected, sites share no sums,
    and where sites are, their pooled sums may not go to all the others without noise: the public reference
    takes their place. Else it is what all training subjects together have.
    """
    if start.standardisation is not None:
        return start.standardisation
    if settings.privacy.unit != "none":
        return SCHEMES[settings.data.clinical].reference
    return Moments.pool(moments).standardisation()


class KeptParts:
    """What of the network is not exchanged, as a run has it that starts from a model.

    Parameters
    ----------
    folder
        Of the run.
    settings
        Of the run.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.settings = settings
        self.path = folder / "rounds" / "start.safetensors"

    def write(self, start: Start) -> None:
        """Keep it, if there is anything."""
        if self._sent:
            values = pack({slot.name: start.state[slot.name] for slot in self._layout.slots})
            write_vector(self.path, self._layout, values.values())

    def state(self) -> Mapping[str, Tensor]:
        """Return the values that the run began with."""
        if self._sent:
            return unpack(dict(self._vector.pieces()), self._layout)
        if self.settings.run.initial:
            return {}
        return new_network(self.settings).state_dict()

    def offer(self) -> Callable[[str], tuple[str, Step | None]]:
        """Return what tells, by what a site holds, the digest of the parts, and the parts if it has nothing.

        All who are sent them get the same arrays, which are let go with the function.
        """
        made: list[Step] = []

        def for_holder(holds: str) -> tuple[str, Step | None]:
            if not self._sent:
                return "", None
            if holds:
                return self._digest, None
            if not made:
                made.append(Step("float32", dict(self._vector.pieces())))
            return self._digest, made[0]

        return for_holder

    @cached_property
    def _layout(self) -> Layout:
        return kept_layout(self.settings)

    @property
    def _sent(self) -> bool:
        """Whether sites cannot make the parts from the seed."""
        return bool(self.settings.run.initial and self._layout.slots)

    @cached_property
    def _vector(self) -> Vector:
        return Vector(self.path, self._layout)

    @cached_property
    def _digest(self) -> str:
        return self._vector.digest()


def _refuse_other_network(checkpoint: Checkpoint, settings: Settings, path: Path) -> None:
    """Refuse what the shapes of the weights do not tell: heads and groups, the meaning of the columns."""
    found, wanted = checkpoint.settings, settings
    problems = Problems(f"{path}: run.initial cannot be the start of this run")

    def same(name: str, one: object, other: object) -> None:
        if one != other:
            problems.add(f"{name}: found {one!r}, wanted {other!r}")

    same("network.shape", found.network.resolved.words(), wanted.network.resolved.words())
    if found.network.adapter_rank:
        same("network.adapter-rank", found.network.adapter_rank, wanted.network.adapter_rank)
    both = "network.clinical-both-directions"
    same(both, found.network.clinical_both_directions, wanted.network.clinical_both_directions)
    same("data.clinical", found.data.clinical, wanted.data.clinical)
    problems.raise_if_any(CheckpointError)
