# SPDX-License-Identifier: Apache-2.0
"""A rival at rest: safetensors that say which rival, how large, how trained, and with which settings."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pasta_model.checkpoint import PACKAGES
from pasta_model.config import Settings, settings_from_flat
from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.diffusion.cycle import Translator
from pasta_model.errors import CheckpointError, ConfigError
from pasta_model.files import atomic_path
from simulation.rivals.kinds import RIVALS, Rival, new_translator
from simulation.rivals.networks import fitting_width, pasta_parameters

FORMAT = "pasta-rival-1"


@dataclass(frozen=True)
class RivalModel:
    """Weights with all that is needed to use them.

    Attributes
    ----------
    width
        Channels at full resolution.
    step
        Optimizer steps that the weights have had.
    """

    rival: Rival
    state: Mapping[str, Tensor]
    settings: Settings
    standardisation: Standardisation
    width: int
    step: int

    @property
    def parameters(self) -> int:
        """How many numbers it has learned."""
        return sum(value.numel() for value in self.state.values())

    def translator(self) -> Translator:
        """Return the network with these weights."""
        return new_translator(self.rival, self.settings, width=self.width, state=self.state)


def rival_width(rival: Rival, settings: Settings) -> int:
    """Return the width of a rival that is as large as the PASTA of these settings."""
    return fitting_width(rival.network, settings.network, SCHEMES[settings.data.clinical].length)


def save_rival(path: Path, model: RivalModel) -> None:
    """Write a model atomically."""
    values = SCHEMES[model.settings.data.clinical].length
    about = {
        "format": FORMAT,
        "rival": model.rival.name,
        "title": model.rival.title,
        "settings": model.settings.flat(),
        "standardisation": asdict(model.standardisation),
        "width": model.width,
        "step": model.step,
        "parameters": model.parameters,
        "pasta_parameters": pasta_parameters(model.settings.network, values),
        "versions": {name: version(name) for name in PACKAGES},
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state.items()}
    with atomic_path(path) as temporary:  # one entry: several would come in any order, and change the digest
        save_file(tensors, temporary, metadata={"about": json.dumps(about, sort_keys=True)})


def load_rival(path: Path) -> RivalModel:
    """Read a model.

    Raises
    ------
    CheckpointError
        When the file is missing, damaged, or no rival's.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; train the rival first, or check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); train again") from error
    try:
        about = json.loads(metadata["about"])
        if about.get("format") != FORMAT:
            raise ValueError(f"format {about.get('format')!r}, wanted {FORMAT!r}")
        settings = settings_from_flat(about["settings"])
        mean, spread = about["standardisation"]["mean"], about["standardisation"]["spread"]
        standardisation = Standardisation(tuple(map(float, mean)), tuple(map(float, spread)))
        standardisation.check(SCHEMES[settings.data.clinical])
        width, step = int(about["width"]), int(about["step"])
        return RivalModel(RIVALS[about["rival"]], state, settings, standardisation, width, step)
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(
            f"{path}: not a rival's model ({error}); check the path, or train it again"
        ) from error
