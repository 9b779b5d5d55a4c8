# SPDX-License-Identifier: Apache-2.0
"""A model at rest: safetensors that explain themselves.

The metadata hold the settings, the clinical standardisation, the round and the versions, so one file
is enough to synthesise.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pasta_model.config import Scalar, Settings, settings_from_flat
from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.diffusion.cycle import Translator
from pasta_model.diffusion.schedule import Schedule
from pasta_model.errors import CheckpointError, ConfigError
from pasta_model.exchange.packing import Layout
from pasta_model.files import atomic_path
from pasta_model.network.dual_arm import DualArm
from pasta_model.placement import check_device, compute_dtype, memory_format, place
from pasta_model.sections import NetworkSettings
from pasta_model.seeding import stream_seed

FORMAT = "pasta-dual-arm-1"
PACKAGES = ("torch", "monai", "numpy", "nibabel", "flwr")


@dataclass(frozen=True)
class Checkpoint:
    """Weights with all that is needed to use them."""

    state: Mapping[str, Tensor]
    settings: Settings
    standardisation: Standardisation
    round: int


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.state.items()}
    metadata = description(checkpoint.settings, checkpoint.standardisation, checkpoint.round)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def description(settings: Settings, standardisation: Standardisation, number: int) -> dict[str, str]:
    """Return the metadata with which a file of weights explains itself."""
    about = {
        "settings": settings.flat(),
        "standardisation": asdict(standardisation),
        "round": number,
        "versions": {name: version(name) for name in PACKAGES},
    }
    return {"format": FORMAT, "about": json.dumps(about)}


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    CheckpointError
        When the file is missing, damaged, or not one of ours.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; train first, or check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        hint = "; bring it in with 'pasta import-checkpoint'" if path.suffix in (".pt", ".pth") else ""
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}){hint}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {metadata.get('format')!r}, wanted {FORMAT!r}")
    try:
        about = json.loads(metadata["about"])
        flat: dict[str, Scalar] = about["settings"]
        mean, spread = about["standardisation"]["mean"], about["standardisation"]["spread"]
        number = int(about["round"])
        settings = settings_from_flat(flat)
        standardisation = Standardisation(tuple(map(float, mean)), tuple(map(float, spread)))
        standardisation.check(SCHEMES[settings.data.clinical])
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{path}: its description cannot be used: {error}") from error
    return Checkpoint(state, settings, standardisation, number)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, for provenance."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def new_network(settings: Settings) -> DualArm:
    """Return a freshly initialised network; the same settings give the same weights."""
    with torch.random.fork_rng(devices=[]):
        # PyTorch's initialisers take no generator; the fork keeps the global stream as it was.
        torch.manual_seed(stream_seed(settings.run.seed, "initial weights"))  # noqa: TID251
        return _network(settings)


def network_layout(settings: Settings) -> Layout:
    """Return the layout of the network's weights on the wire, without making the weights."""
    return _network_layout(settings.network, settings.data.clinical)


@lru_cache(maxsize=16)
def _network_layout(network: NetworkSettings, clinical: str) -> Layout:
    with torch.device("meta"):
        return Layout.of(DualArm(network, clinical_values=SCHEMES[clinical].length).state_dict())


def exchanged_layout(settings: Settings) -> Layout:
    """Return the layout of what sites and server exchange: all but the personal and the frozen parts."""
    whole = network_layout(settings)
    return whole.only(settings.exchange.exchanged_names(slot.name for slot in whole.slots))


def kept_layout(settings: Settings) -> Layout:
    """Return the layout of what is not exchanged; often empty."""
    whole = network_layout(settings)
    names = {slot.name for slot in whole.slots}
    return whole.only(names - settings.exchange.exchanged_names(names))


def _network(settings: Settings) -> DualArm:
    return DualArm(settings.network, clinical_values=SCHEMES[settings.data.clinical].length)


def new_translator(settings: Settings, state: Mapping[str, Tensor] | None = None) -> Translator:
    """Return network and schedule as configured, with the weights of `state` if given.

    Raises
    ------
    CheckpointError
        When the weights do not fit the network of the settings.
    """
    check_device(settings.training.device)
    if state is None:
        network = new_network(settings)
    else:
        refuse_other_weights(state, settings)
        with torch.device("meta"):  # no time for initial weights that are replaced at once
            network = _network(settings)
        own = {name: value.float().clone() for name, value in state.items()}
        network.load_state_dict(own, assign=True)
    dtype = compute_dtype(settings.training.dtype, settings.training.device)
    layout = memory_format(settings.training)
    frozen = settings.exchange.frozen_names(n for n, _ in network.named_parameters())
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return Translator(place(network, settings.training), Schedule(settings.diffusion), dtype, layout)


def refuse_other_weights(state: Mapping[str, Tensor], settings: Settings) -> None:
    """Refuse weights that are not those of the network of the settings.

    Raises
    ------
    CheckpointError
        Saying how many tensors are missing, unknown or of another shape, with an example of each.
    """
    wanted = {slot.name: slot.shape for slot in network_layout(settings).slots}
    found = {name: tuple(value.shape) for name, value in state.items()}
    differing = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unknown": sorted(found.keys() - wanted.keys()),
        "of another shape": sorted(n for n in wanted.keys() & found.keys() if wanted[n] != found[n]),
    }
    said = [f"{len(names)} {how} (as {names[0]})" for how, names in differing.items() if names]
    if said:
        raise CheckpointError(
            f"the weights do not fit the network of {settings.title}: {', '.join(said)};"
            " take a file whose settings are its own"
        )
