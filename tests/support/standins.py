# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for the network: their answers can be worked out, and they note what they are shown.

Shapes: N slabs of S slices, (N, S, H, W).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pasta_model.diffusion.cycle import Translator
from pasta_model.diffusion.schedule import Schedule
from pasta_model.diffusion.volumes import VolumeTranslator
from pasta_model.network.dual_arm import Conditioning, Direction, DualArm
from pasta_model.sections import DiffusionSettings, NetworkSettings, SamplingSettings

SLICES = 3
SHAPE = f"slices {SLICES}, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 1"
SMALL = f"slices {SLICES}, width 8, multipliers 1-2, blocks 1, attention 2, heads 2, groups 4, patch 1"


def answer(x: Tensor, source: Tensor, shown: int) -> Tensor:
    """Answer pixel by pixel: a pixel's x_0 is the same in whatever slab, plane or batch it comes."""
    return torch.tanh(0.8 * source + 0.5 * x + shown / 2000 - 0.2)


def answer_by_place(x: Tensor, source: Tensor, shown: int) -> Tensor:
    """Answer as `answer`, but a slab's slices disagree with those of its neighbours, as real ones do."""
    place = torch.arange(SLICES, dtype=torch.float32)[:, None, None] - 1
    return answer(x, source, shown) * (1 + 0.3 * place) + 0.2 * x.mean(dim=(1, 2, 3), keepdim=True)


class StandIn(DualArm):
    """A network that computes a given function, and previews half of its source."""

    def __init__(
        self, function: Callable[[Tensor, Tensor, int], Tensor] = answer, *, shape: str = SHAPE
    ) -> None:
        super().__init__(NetworkSettings(shape=shape), clinical_values=0)
        self.function = function
        self.read: list[Tensor] = []  # what the conditioner read
        self.noised: list[Tensor] = []  # what the denoiser was given
        self.shown: list[int] = []
        self.clinical: list[Tensor | None] = []

    def condition(self, source: Tensor, *, direction: Direction) -> Conditioning:
        self.read.append(source.clone())
        return Conditioning([source], source / 2)

    def denoise(self, noised, timesteps, conditioning, clinical, *, direction) -> Tensor:
        (shown,) = set(timesteps.tolist())
        self.noised.append(noised.clone())
        self.shown.append(shown)
        self.clinical.append(clinical)
        return self.function(noised, conditioning.features[0], shown)


def volumes(network: DualArm, **settings: object) -> VolumeTranslator:
    """A translator of volumes with the sampling of these settings."""
    own = {"antithetic": False} | settings  # one chain a sample, but where a test wants a pair
    return VolumeTranslator(Translator(network, Schedule(DiffusionSettings())), SamplingSettings(**own))


def draws(seed: int = 0) -> torch.Generator:
    """Return a generator of a seed."""
    return torch.Generator().manual_seed(seed)


def random_network(seed: int = 0, **words: object) -> DualArm:
    """A small real network in which no weight is zero."""
    network = DualArm(NetworkSettings(**{"shape": SMALL, **words}), clinical_values=4)
    generator = draws(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            spread = 0.7 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
            parameter.add_(float("norm.weight" in name))
    return network
