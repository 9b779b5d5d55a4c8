# SPDX-License-Identifier: Apache-2.0
"""A validation error that may leave: a mechanism of its own, on the subjects who validate.

    (sum_i min(e_i, b) + N(0, sigma^2 b^2)) / subjects

e_i is the error of one subject on slabs and with noise that depend on nobody else, so a subject more or less
changes the sum by b at most. The number of subjects is not protected (it is told when a site joins).
"""

import torch

from pasta_model.config import Settings
from pasta_model.data.slabs import SlabLoader
from pasta_model.diffusion.cycle import Translator
from pasta_model.privacy.noise import secure_generator
from pasta_model.seeding import numpy_generator, torch_generator
from pasta_model.validation import one_step_errors

BOUND = 0.5  # b, in SUVR: an untrained network is off by about that
DECIMALS = 4  # of the released value: rounding hides the last bits of floating-point noise (Mironov 2012)


@torch.inference_mode()
def noised_validation_mae(
    translator: Translator,
    loader: SlabLoader,
    *,
    settings: Settings,
    noise: torch.Generator | None = None,
) -> float:
    """Return the noised mean error in SUVR of one-step synthesis; 0 where the noise takes it below.

    Parameters
    ----------
    noise
        For tests only; by default the operating system's.
    """
    errors = subject_errors(translator, loader, settings=settings)
    spread = settings.privacy.metrics_noise_multiplier * BOUND
    drawn = torch.normal(0.0, spread, (4,), generator=noise or secure_generator(), dtype=torch.float64)
    total = clipped_sum(errors) + drawn.sum() / 2  # four, as in Opacus's secure mode
    return max(0.0, round(float(total) / len(errors), DECIMALS))


def clipped_sum(errors: torch.Tensor) -> torch.Tensor:
    """Return sum_i min(e_i, b).

    An error that is not a number counts as b: weights that overflow for one subject's scan alone would
    otherwise tell, past all noise, that this subject is there.
    """
    return errors.double().nan_to_num(nan=BOUND).clamp(0.0, BOUND).sum()


def subject_errors(translator: Translator, loader: SlabLoader, *, settings: Settings) -> torch.Tensor:
    """Return the error of every person, (persons,) in SUVR, each on one slab of one visit."""
    seed, site, device = settings.run.seed, loader.store.site, settings.training.device
    places, noises = [], []
    slab = (loader.slab_slices, *loader.at([(loader.indices[0], 0)]).mri.shape[2:])
    for person, visits in loader.visits.items():
        rng = numpy_generator(seed, "private validation slab", site, person)
        last = loader.store.depth(loader.planes[0]) - loader.slab_slices
        places.append((int(rng.choice(visits)), int(rng.integers(0, last + 1))))
        generator = torch_generator(seed, "private validation noise", site, person, device=device)
        noises.append(torch.randn(slab, generator=generator, device=device))
    found = []
    for place, noise in zip(places, noises, strict=True):
        # One at a time: in a batch, how sums are rounded depends on how many others are there.
        batch = loader.at([place]).to(device, channels_last=settings.training.channels_last)
        found.append(one_step_errors(translator, batch, noise[None])[1])
    return torch.cat(found)
