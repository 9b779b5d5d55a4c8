# SPDX-License-Identifier: Apache-2.0
"""A trained rival that turns an MRI into a PET, with the face of `pasta_model.synthesis.Synthesiser`."""

from pathlib import Path

from pasta_model.config import Scalar, settings_from_flat
from pasta_model.data.clinical import SCHEMES
from pasta_model.data.volume import Volume
from pasta_model.diffusion.volumes import VolumeTranslator
from pasta_model.errors import CheckpointError, ConfigError
from pasta_model.placement import cast_convolutions
from pasta_model.sections import SamplingSettings
from pasta_model.synthesis import Synthesiser
from simulation.rivals.models import RivalModel, load_rival

# What has no meaning where a PET is made in one pass.
ONE_PASS = {"solver": "ddim", "steps": 1, "samples": 1, "antithetic": False, "clip_quantile": 0.0, "start": 0}


class RivalSynthesiser(Synthesiser):
    """A trained rival; slabs, hop, fusion, planes, solver and steps are PASTA's.

    Parameters
    ----------
    model
        A file that `train_rival` wrote.
    sampling
        By default that of the model's settings. A rival that works in one pass takes hop, fusion and
        planes from it, and nothing else.
    device
        Where to compute; by default where the model was trained.

    Raises
    ------
    CheckpointError
        When the file is no rival's.
    ConfigError
        When the sampling does not fit the model.
    """

    def __init__(  # the parent's would make PASTA's network
        self, model: Path, *, sampling: SamplingSettings | None = None, device: str | None = None
    ) -> None:
        found = load_rival(model)
        self.rival = found.rival
        own: dict[str, Scalar] = {}
        if device and device != found.settings.training.device:
            own = {"training.device": device, "training.compile": False}
        self.settings = settings_from_flat({**found.settings.flat(), **own})
        self.sampling = self._usable(sampling or found.settings.sampling)
        self.standardisation = found.standardisation
        self.scheme = SCHEMES[self.settings.data.clinical]
        self._refuse_other_planes()
        self._volumes = self._translating(found, model)

    def _usable(self, sampling: SamplingSettings) -> SamplingSettings:
        if not self.rival.denoises:
            return sampling.model_copy(update=ONE_PASS)
        if sampling.start:
            raise ConfigError(
                f"sampling.start {sampling.start}: a shortened chain starts from the conditioner's preview,"
                f" which {self.rival.name} has not; use start 0"
            )
        return sampling

    def _translating(self, found: RivalModel, model: Path) -> VolumeTranslator:
        own = RivalModel(
            found.rival, found.state, self.settings, found.standardisation, found.width, found.step
        )
        try:
            translator = own.translator()
        except RuntimeError as error:  # how torch says that names or shapes differ
            raise CheckpointError(f"{model}: its weights do not fit {self.rival.name}: {error}") from error
        translator.network.eval()
        cast_convolutions(translator.network, translator.dtype)
        return VolumeTranslator(translator, self.sampling)

    def preview(self, mri: Volume) -> Volume:  # noqa: ARG002
        """Refuse: no rival has a conditioner.

        Raises
        ------
        ConfigError
            Always.
        """
        raise ConfigError(f"{self.rival.name} has no conditioner, so no preview; synthesise instead")
