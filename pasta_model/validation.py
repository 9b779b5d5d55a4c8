# SPDX-License-Identifier: Apache-2.0
"""A cheap, fixed measure of a model on a site's validation slabs: the compass of a run.

One step from pure noise to x_0 on the same slabs with the same noise in every round; in SUVR.
"""

import torch

from pasta_model.config import Settings
from pasta_model.data.scaling import PET_SUVR_RANGE
from pasta_model.data.slabs import SlabLoader
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
    last = int(translator.schedule.timesteps[-1])
    timesteps = torch.full((count,), last, device=device)
    noise = torch.randn(batch.pet.shape, generator=generator, device=device)
    translator.network.eval()
    with translator.autocast():
        conditioning = translator.network.condition(batch.mri, direction=Direction.MRI_TO_PET)
        x0 = translator.network.denoise(
            noise, timesteps, conditioning, batch.clinical, direction=Direction.MRI_TO_PET
        )
    brain = batch.mri > -1  # skull-stripped: the background is exactly -1
    error = (x0.float() - batch.pet).abs()[brain].mean()
    return float(error) * PET_SUVR_RANGE / 2
