# SPDX-License-Identifier: Apache-2.0
"""Whom a private step is about: persons, each with all visits, slabs and draws of noise together."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pasta_model.config import Settings
from pasta_model.data.slabs import Batch, SlabLoader
from pasta_model.diffusion.cycle import Translator, step_loss


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

    Parameters
    ----------
    generator, rng
        Of timesteps and noises; of visits and slabs. They need not be secret: they choose within a subject.
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
        self._generator = generator
        self._rng = rng
        self.names: Sequence[str] = tuple(loader.visits)

    def backward(self, name: str) -> Tensor:
        """Leave the gradient of a person's mean loss in `grad`; return the loss."""
        p, t = self._settings.privacy, self._settings.training
        batch = self._loader.of_person(name, p.slabs_per_subject, rng=self._rng)
        batch = _repeated(batch, p.draws_per_slab).to(t.device, channels_last=t.channels_last)
        loss = step_loss(self._translator, batch, settings=self._settings.loss, generator=self._generator)
        loss.backward()
        return loss.detach()


def _repeated(batch: Batch, times: int) -> Batch:
    """Repeat every slab, so that each is noised so many times."""
    if times == 1:
        return batch
    mri, pet, metaroi = (slabs.repeat(times, 1, 1, 1) for slabs in (batch.mri, batch.pet, batch.metaroi))
    return Batch(mri, pet, metaroi, None if batch.clinical is None else batch.clinical.repeat(times, 1))
