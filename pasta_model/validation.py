# SPDX-License-Identifier: Apache-2.0
"""A cheap, fixed measure of a model on a site's validation slabs: the compass of a run.

One step from pure noise to x_0 on the same slabs with the same noise in every round; in SUVR.
"""

import torch
from torch import Tensor

from pasta_model.config import Settings
from pasta_model.data.scaling import PET_SUVR_RANGE
from pasta_model.data.slabs import Batch, SlabLoader
from pasta_model.diffusion.cycle import Translator
from pasta_model.network.dual_arm import Direction
from pasta_model.seeding import numpy_generator, torch_generator


@torch.inference_mode()
def validation_mae(translator: Translator, loader: SlabLoader, *, settings: Settings) -> float:
    """Mean absolute error in SUVR, inside the brain, of one-step synthesis on fixed slabs."""
    site, device = loader.store.site, settings.training.device
    rng = numpy_generator(settings.run.seed, "validation slabs", site)
    generator = torch_generator(settings.run.seed, "validation noise", site, device=device)
    count = settings.federation.validation_slabs
    sessions = rng.choice(loader.indices, size=count)
    starts = rng.integers(0, loader.store.depth(loader.planes[0]) - loader.slab_slices + 1, size=count)
    batch = loader.at(list(zip(sessions.tolist(), starts.tolist(), strict=True)))
    batch = batch.to(device, channels_last=settings.training.channels_last)
    noise = torch.randn(batch.pet.shape, generator=generator, device=device)
    return float(one_step_errors(translator, batch, noise)[0])


@torch.inference_mode()
def one_step_errors(translator: Translator, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean absolute error in the brain over all of a batch, and slab by slab, (B,); in SUVR.

    A slab without brain is without error.
    """
    last = int(translator.schedule.timesteps[-1])
    timesteps = torch.full((len(noise),), last, device=noise.device)
    translator.network.eval()
    with translator.autocast():
        conditioning = translator.network.condition(batch.mri, direction=Direction.MRI_TO_PET)
        x0 = translator.network.denoise(
            noise, timesteps, conditioning, batch.clinical, direction=Direction.MRI_TO_PET
        )
    brain = batch.mri > -1  # skull-stripped: the background is exactly -1
    error = (x0.float() - batch.pet).abs()
    inside, voxels = (error * brain).sum((1, 2, 3)), brain.sum((1, 2, 3))
    scale = PET_SUVR_RANGE / 2
    return error[brain].mean() * scale, inside / voxels.clamp(min=1) * scale
