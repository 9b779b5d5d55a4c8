# SPDX-License-Identifier: Apache-2.0
"""Cycle exchange consistency (CycleEx): both directions with the same two arms.

Four passes (Li et al. 2026): A `P | M`, B `M | P~_A` (places exchanged), C `M | P`
(exchanged), D `P | M~_C`; the step's loss is A + B + C + D and gradients flow through the synthetic
slabs (unless the cycle is detached, an ablation). Every slab is already in [-1, 1]; nothing is
normalised again.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pasta_model.data.slabs import Batch
from pasta_model.diffusion.losses import pass_loss
from pasta_model.diffusion.schedule import Schedule
from pasta_model.network.dual_arm import Direction, DualArm
from pasta_model.sections import LossSettings


@dataclass(frozen=True)
class Translator:
    """The network with its schedule: one object for the loss and for synthesis.

    Attributes
    ----------
    dtype
        Of the convolutions, by autocast; weights, losses and results stay float32.
    memory_format
        Of the slabs that the network is given.
    """

    network: DualArm
    schedule: Schedule
    dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.channels_last

    def autocast(self) -> torch.autocast:
        """Mixed precision as configured."""
        device = next(self.network.parameters()).device.type
        return torch.autocast(device, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def translate(
        self,
        target: Tensor,
        condition: Tensor,
        clinical: Tensor | None,
        *,
        direction: Direction,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Noise the target, denoise it given the condition.

        Returns
        -------
        tuple
            x_0 predicted by the denoiser and the conditioner's own preview, (B, S, H, W) float32.
        """
        timesteps = self.schedule.sample_timesteps(len(target), generator=generator)
        noise = torch.randn(target.shape, generator=generator, device=target.device)
        noised = self.schedule.add_noise(target, noise, timesteps)
        conditioning = self.network.condition(condition, direction=direction)
        x0 = self.network.denoise(noised, timesteps, conditioning, clinical, direction=direction)
        return x0.float(), conditioning.preview.float()


def step_loss(
    translator: Translator, batch: Batch, *, settings: LossSettings, generator: torch.Generator
) -> Tensor:
    """Return the loss of one training step, a scalar: A + B + C + D, or A alone without the cycle."""

    def one(target: Tensor, condition: Tensor, direction: Direction) -> tuple[Tensor, Tensor]:
        clinical = _clinical_for(translator.network, batch.clinical, direction)
        x0, preview = translator.translate(
            target, condition, clinical, direction=direction, generator=generator
        )
        loss = pass_loss(
            target,
            x0,
            preview,
            batch.metaroi,
            strength=settings.metaroi_strength,
            task=settings.task_weight,
        )
        return x0, loss

    def passed_on(synthetic: Tensor) -> Tensor:
        return synthetic.detach() if settings.detach_cycle else synthetic

    with translator.autocast():  # one context for all passes: each weight is cast once a step
        synthetic_pet, loss_a = one(batch.pet, batch.mri, Direction.MRI_TO_PET)
        if not settings.cycle:
            return loss_a
        _, loss_b = one(batch.mri, passed_on(synthetic_pet), Direction.PET_TO_MRI)
        synthetic_mri, loss_c = one(batch.mri, batch.pet, Direction.PET_TO_MRI)
        _, loss_d = one(batch.pet, passed_on(synthetic_mri), Direction.MRI_TO_PET)
        return loss_a + loss_b + loss_c + loss_d


def _clinical_for(network: DualArm, clinical: Tensor | None, direction: Direction) -> Tensor | None:
    """Clinical data guide the PET; the MRI direction gets them only when asked."""
    both = network.settings.clinical_both_directions
    return clinical if direction is Direction.MRI_TO_PET or both else None
