# SPDX-License-Identifier: Apache-2.0
"""Private training at one site: the loop of `pasta_model.training`, with subjects in place of batches.

Which subjects are in a step, and the noise, come from the operating system, not from the run's seed: the
server knows the seed. A private round can therefore not be made again; its answer is kept instead.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import Tensor, nn

from pasta_model.config import Settings
from pasta_model.errors import TrainingError
from pasta_model.privacy.mechanism import Mechanism, refuse_batch_statistics
from pasta_model.privacy.noise import secure_generator
from pasta_model.privacy.plan import Plan
from pasta_model.privacy.subjects import Subjects
from pasta_model.training import Place, learning_rate, proximal_pull


@dataclass(frozen=True)
class Chance:
    """Generators for tests and audits, which must be repeatable; a release never has them.

    Attributes
    ----------
    noise, draws
        Of the noise; of who is in a step.
    """

    noise: torch.Generator
    draws: torch.Generator


def private_steps(
    network: nn.Module,
    subjects: Subjects,
    optimizer: torch.optim.Optimizer,
    *,
    settings: Settings,
    place: Place,
    plan: Plan,
    chance: Chance | None = None,
    on_step: Callable[[int, int], None] = lambda step, subjects: None,
    on_release: Callable[[Sequence[Tensor]], None] = lambda gradients: None,
) -> float:
    """Train `training.local_steps` private steps and return the mean loss, which is not protected.

    Raises
    ------
    PrivacyError
        When the network mixes the subjects of a batch.
    TrainingError
        When a subject's loss or gradient is not finite; nothing of this step was used.
    """
    network.train()
    refuse_batch_statistics(network)
    t, names = settings.training, subjects.names
    mechanism = Mechanism(
        optimizer,
        noise_multiplier=plan.noise_multiplier,
        max_grad_norm=plan.max_grad_norm,
        expected_subjects=plan.expected_subjects,
        generator=chance.noise if chance else None,
        on_release=on_release,
    )
    draws = UniformWithReplacementSampler(
        num_samples=len(names),
        sample_rate=plan.sampling_rate,
        steps=t.local_steps,
        generator=chance.draws if chance else secure_generator(),
    )
    pull = proximal_pull(network, settings)
    optimizer.zero_grad(set_to_none=True)
    total, count = 0.0, 0
    for local, drawn in enumerate(draws):
        step = place.round * t.local_steps + local
        loss = torch.zeros((), device=t.device)
        for index in drawn:
            loss += subjects.backward(names[index])
            mechanism.add()
        total, count = total + loss.item(), count + len(drawn)
        if not (math.isfinite(total) and mechanism.sum_is_finite()):
            raise TrainingError(
                f"a loss or gradient is not finite at site {place.site}, round {place.round}, step {step};"
                " lower training.learning-rate or check the site's scans"
            )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total_steps=settings.total_steps, settings=t)
        mechanism.step(before=pull)
        on_step(step, len(drawn))
    return total / max(1, count)
