# SPDX-License-Identifier: Apache-2.0
"""The rivals' networks: MONAI's, behind the face of the dual-arm network, and as large as it.

`Translator`, `VolumeTranslator` and the validation ask two things of a network: `condition`, then `denoise`.
A network that answers both trains, samples and is measured by the very code that serves PASTA.
Shapes: (B, S, H, W) slabs in [-1, 1]; (B, K) clinical vectors.
"""

import math
from collections.abc import Callable
from functools import cache, lru_cache

import torch
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn
from torch.nn import functional as F

from pasta_model.network.dual_arm import Conditioning, Direction, DualArm
from pasta_model.sections import NetworkSettings

NORM_GROUPS = 4  # fewer than PASTA: widths can then be chosen finely enough to match its size
CRITIC_WIDTH, CRITIC_LAYERS = 64, 3  # the 70 x 70 PatchGAN of Isola et al. 2017


class RivalNetwork(nn.Module):
    """A network that reads a slab of MRI and answers with one of PET.

    Parameters
    ----------
    settings
        Of the PASTA that it is compared with.
    clinical_values
        Length of the clinical vector, K; 0 for none.
    width
        Channels at full resolution.
    """

    def __init__(self, settings: NetworkSettings, *, clinical_values: int, width: int) -> None:
        super().__init__()
        self.settings = settings
        self.unet = self.build(settings, clinical_values=clinical_values, width=width)

    def build(self, settings: NetworkSettings, *, clinical_values: int, width: int) -> nn.Module:
        """Return MONAI's network."""
        raise NotImplementedError

    @staticmethod
    def step(settings: NetworkSettings) -> int:
        """Return what a width must be a multiple of."""
        raise NotImplementedError

    def condition(self, source: Tensor, *, direction: Direction) -> Conditioning:  # noqa: ARG002
        """Pass the slab on as it is; there is no conditioner, and no preview but the MRI."""
        return Conditioning([source], source)

    def denoise(
        self,
        noised: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        clinical: Tensor | None,
        *,
        direction: Direction,
    ) -> Tensor:
        """Predict the PET (B, S, H, W)."""
        raise NotImplementedError


class OnePass(RivalNetwork):
    """MONAI's BasicUNet from MRI to PET in one pass; it sees no noise and no timestep.

    Clinical values come as constant maps beside the slices. Norms are over groups: instance norms take away
    how bright a slab is, which here is SUVR.
    """

    def build(self, settings: NetworkSettings, *, clinical_values: int, width: int) -> nn.Module:
        """Return MONAI's network."""
        unet: nn.Module = BasicUNet(
            spatial_dims=2,
            in_channels=settings.slab_slices + clinical_values,
            out_channels=settings.slab_slices,
            features=(width, width, 2 * width, 4 * width, 8 * width, width),
            act="swish",
            norm=("group", {"num_groups": 2}),
        )
        return unet

    @staticmethod
    def step(settings: NetworkSettings) -> int:  # noqa: ARG004
        """Return what a width must be a multiple of."""
        return 2

    def denoise(
        self,
        noised: Tensor,  # noqa: ARG002
        timesteps: Tensor,  # noqa: ARG002
        conditioning: Conditioning,
        clinical: Tensor | None,
        *,
        direction: Direction,  # noqa: ARG002
    ) -> Tensor:
        """Predict the PET (B, S, H, W) from the MRI alone."""
        x = conditioning.features[0]
        if clinical is not None:
            maps = clinical.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])
            x = torch.cat([x, maps], dim=1)  # (B, S + K, H, W)
        pet: Tensor = self.unet(x)
        return pet


class Concatenation(RivalNetwork):
    """MONAI's DiffusionModelUNet on the noised PET with the MRI as further channels.

    Levels, blocks, attention and folded pixels are those of the run's PASTA; clinical values are tokens
    that the middle, and every level with attention, attends to.
    """

    def build(self, settings: NetworkSettings, *, clinical_values: int, width: int) -> nn.Module:
        """Return MONAI's network."""
        shape = settings.resolved
        pixels = shape.slices * shape.patch**2
        widths = [width * m for m in shape.multipliers]
        unet: nn.Module = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=2 * pixels,
            out_channels=pixels,
            num_res_blocks=shape.blocks,
            channels=widths,
            attention_levels=[2**level in shape.attention for level in range(len(widths))],
            norm_num_groups=min(NORM_GROUPS, shape.groups),
            num_head_channels=[w // shape.heads for w in widths],
            with_conditioning=clinical_values > 0,
            cross_attention_dim=clinical_values + 1 if clinical_values else None,
        )
        return unet

    @staticmethod
    def step(settings: NetworkSettings) -> int:
        """Return what a width must be a multiple of."""
        shape = settings.resolved
        return math.lcm(min(NORM_GROUPS, shape.groups), shape.heads)

    def denoise(
        self,
        noised: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        clinical: Tensor | None,
        *,
        direction: Direction,  # noqa: ARG002
    ) -> Tensor:
        """Predict x_0 (B, S, H, W) from x_t, the MRI and the timesteps (B,)."""
        patch = self.settings.resolved.patch
        x = F.pixel_unshuffle(torch.cat([noised, conditioning.features[0]], dim=1), patch)
        context = None if clinical is None else clinical_tokens(clinical)
        return F.pixel_shuffle(self.unet(x, timesteps, context), patch)


def clinical_tokens(clinical: Tensor) -> Tensor:
    """One token a clinical value, (B, K) -> (B, K, K + 1): which one it is, and how large.

    A single token would leave nothing to attend to: half of the cross attention would be dead weight.
    """
    batch, values = clinical.shape
    which = torch.eye(values, device=clinical.device, dtype=clinical.dtype).expand(batch, -1, -1)
    return torch.cat([which, clinical[:, :, None]], dim=2)


def critic(settings: NetworkSettings) -> PatchDiscriminator:
    """Return MONAI's PatchGAN for slabs of MRI and PET together, (B, 2S, H, W).

    Instance norms: what Isola et al. 2017 have at their batch of one, and nothing of them to keep.
    """
    return PatchDiscriminator(
        spatial_dims=2,
        channels=CRITIC_WIDTH,
        in_channels=2 * settings.slab_slices,
        num_layers_d=CRITIC_LAYERS,
        norm="INSTANCE",
    )


def count(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in network.parameters())


@lru_cache(maxsize=16)
def pasta_parameters(settings: NetworkSettings, clinical_values: int) -> int:
    """Return the number of parameters of PASTA, both arms."""
    with torch.device("meta"):
        return count(DualArm(settings, clinical_values=clinical_values))


def fitting_width(kind: type[RivalNetwork], settings: NetworkSettings, clinical_values: int) -> int:
    """Return the width that brings a rival's number of parameters nearest to PASTA's."""

    @cache
    def size(steps: int) -> int:
        with torch.device("meta"):
            return count(kind(settings, clinical_values=clinical_values, width=steps * step))

    step, wanted = kind.step(settings), pasta_parameters(settings, clinical_values)
    return step * nearest(size, wanted)


def nearest(size: Callable[[int], int], wanted: int) -> int:
    """Return the whole number n >= 1 whose growing `size(n)` is nearest to what is wanted."""
    high = 1
    while size(high) < wanted:
        high *= 2
    low = max(1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < wanted else (low, middle)
    return min((low, high), key=lambda n: abs(size(n) - wanted))
