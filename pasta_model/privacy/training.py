# SPDX-License-Identifier: Apache-2.0
"""Private training at one site: the loop of `pasta_model.training`, with subjects in place of batches.

Which subjects are in a step, and the noise, come from the operating system, not from the run's seed: the
server knows the seed. A private round can therefore not be made again; its answer is kept instead.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import Tensor, nn

from pasta_model.config import Settings
from pasta_model.privacy.mechanism import Mechanism, refuse_batch_statistics
from pasta_model.privacy.noise import secure_generator
from pasta_model.privacy.plan import Plan
from pasta_model.privacy.subjects import Subjects
from pasta_model.training import Place, learning_rate, proximal_pull

logger = logging.getLogger(__name__)


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
    total, count, left_out = torch.zeros((), device=t.device), 0, 0
    for local, drawn in enumerate(draws):
        step = place.round * t.local_steps + local
        for index in drawn:
            loss = subjects.backward(names[index])
            if mechanism.add():
                total, count = total + loss, count + 1
            else:
                left_out += 1
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total_steps=settings.total_steps, settings=t)
        mechanism.step(before=pull)
        on_step(step, len(drawn))
    _tell(place, left_out, left_out + count)
    return total.item() / max(1, count)


def _tell(place: Place, left_out: int, drawn: int) -> None:
    """Tell the site's own log, and nobody else, of gradients that were no numbers."""
    if left_out:
        logger.error(
            "site %s, round %d: the gradients of %d of %d drawn subjects were not finite and counted as none;"
            " check the scans",
            place.site,
            place.round,
            left_out,
            drawn,
        )
