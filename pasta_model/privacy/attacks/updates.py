# SPDX-License-Identifier: Apache-2.0
"""The update of one site after a few local steps, with and without privacy: what `inversion` is given.

A step is about one slab, as if nobody else had been drawn: the worst case. Steps are plain gradient descent,
whose update is the sum of the steps' gradients; what AdamW divides by, the attacker would first have to find.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pasta_model.config import Settings
from pasta_model.diffusion.cycle import Translator
from pasta_model.privacy.attacks.inversion import Lesson, Update, gradient
from pasta_model.privacy.mechanism import Mechanism


def plain_update(translator: Translator, lessons: Sequence[Lesson], *, settings: Settings) -> Update:
    """Take a step a lesson without privacy: gradients are cut to `training.max-grad-norm`, as in training."""
    return _update(translator, lessons, settings=settings, clip=settings.training.max_grad_norm, noise=None)


def private_update(
    translator: Translator,
    lessons: Sequence[Lesson],
    *,
    settings: Settings,
    noise_multiplier: float,
    generator: torch.Generator,
) -> Update:
    """Take a private step a lesson, with the mechanism of private training; 0: clipping alone."""
    clip = settings.privacy.max_grad_norm
    return _update(translator, lessons, settings=settings, clip=clip, noise=(noise_multiplier, generator))


def _update(
    translator: Translator,
    lessons: Sequence[Lesson],
    *,
    settings: Settings,
    clip: float,
    noise: tuple[float, torch.Generator] | None,
) -> Update:
    parameters = [p for p in translator.network.parameters() if p.requires_grad]
    before = _values(parameters)
    optimizer = torch.optim.SGD(parameters, lr=settings.training.learning_rate)
    mechanism = None
    if noise is not None:
        mechanism = Mechanism(
            optimizer, noise_multiplier=noise[0], max_grad_norm=clip, expected_subjects=1, generator=noise[1]
        )
    for lesson in lessons:
        found = gradient(translator, lesson.batch, seed=lesson.seed, settings=settings.loss)
        for parameter, own in zip(parameters, found, strict=True):
            parameter.grad = own
        if mechanism is None:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
        else:
            mechanism.add()
            mechanism.step()
    after = _values(parameters)
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for parameter, value in zip(parameters, before, strict=True):
            parameter.copy_(value)
    return Update(before, after, clip)


def _values(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [p.detach().clone() for p in parameters]
