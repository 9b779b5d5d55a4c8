# SPDX-License-Identifier: Apache-2.0
"""Whom a private step is about: persons, each with all visits, slabs and draws of noise together."""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pasta_model.config import Settings
from pasta_model.data.slabs import Batch, SlabLoader
from pasta_model.diffusion.cycle import Translator, step_loss
from pasta_model.seeding import numpy_generator, torch_generator


class Subjects(Protocol):
    """Those who may be drawn into a step."""

    @property
    def names(self) -> Sequence[str]:
        """All of them, in a fixed order."""

    def backward(self, name: str) -> Tensor:
        """Leave the gradient of a subject's mean loss in `grad`, which is clear before; return the loss."""


class SlabSubjects:
    """The persons of a site's split.

    A person's gradient is the mean over slabs of any of their visits, each with timesteps and noises of its
    own (noise multiplicity, Dockhorn et al. 2210.09929, eq. 9): all of it lies within the unit that is
    protected, so more draws mean less variance at no privacy cost.

    What is chosen for a person depends on how often they were drawn, not on who else was. In one stream for
    all, a person more would shift the slabs and noises of everybody after them: to who knows the seed, as the
    server does, the sum would change by far more than one clipped gradient.

    Parameters
    ----------
    generator, rng
        Begin the streams of timesteps and noises; of visits and slabs. They need not be secret.
    """

    def __init__(
        self,
        translator: Translator,
        loader: SlabLoader,
        *,
        settings: Settings,
        generator: torch.Generator,
        rng: np.random.Generator,
    ) -> None:
        self._translator = translator
        self._loader = loader
        self._settings = settings
        self._noise_seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        self._slab_seed = int(rng.integers(2**62))
        self._turns: Counter[str] = Counter()
        self.names: Sequence[str] = tuple(loader.visits)

    def backward(self, name: str) -> Tensor:
        """Leave the gradient of a person's mean loss in `grad`; return the loss."""
        p, t = self._settings.privacy, self._settings.training
        turn = self._turns[name]
        self._turns[name] += 1
        generator = torch_generator(self._noise_seed, name, turn, device=t.device)
        rng = numpy_generator(self._slab_seed, name, turn)
        batch = self._loader.of_person(name, p.slabs_per_subject, rng=rng)
        batch = _repeated(batch, p.draws_per_slab).to(t.device, channels_last=t.channels_last)
        loss = step_loss(self._translator, batch, settings=self._settings.loss, generator=generator)
        loss.backward()
        return loss.detach()


def _repeated(batch: Batch, times: int) -> Batch:
    """Repeat every slab, so that each is noised so many times."""
    if times == 1:
        return batch
    mri, pet, metaroi = (slabs.repeat(times, 1, 1, 1) for slabs in (batch.mri, batch.pet, batch.metaroi))
    return Batch(mri, pet, metaroi, None if batch.clinical is None else batch.clinical.repeat(times, 1))
