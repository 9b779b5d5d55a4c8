# SPDX-License-Identifier: Apache-2.0
"""Training at one site: a loop that fits a screen.

Everything random follows from (seed, site, round); the learning rate follows from the global step, so
a resumed run has lost nothing.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from pasta_model.config import Settings
from pasta_model.data.slabs import SlabLoader, read_ahead
from pasta_model.diffusion.cycle import Translator, step_loss
from pasta_model.errors import TrainingError
from pasta_model.network.parts import members
from pasta_model.sections import TrainingSettings
from pasta_model.seeding import numpy_generator, torch_generator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where in the federation a piece of training happens."""

    site: str
    round: int


def learning_rate(step: int, *, total_steps: int, settings: TrainingSettings) -> float:
    """Linear warm-up, then half a cosine down to a twentieth, by the global step."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, total_steps - settings.warmup_steps)
    return settings.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def make_optimizer(network: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW over all that is trained; weight decay spares biases and normalisation affines."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def train_steps(
    translator: Translator,
    loader: SlabLoader,
    optimizer: torch.optim.Optimizer,
    *,
    settings: Settings,
    place: Place,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> float:
    """Train `training.local_steps` optimizer steps and return the mean loss.

    Raises
    ------
    TrainingError
        When a loss or gradient is not finite; the weights are those before the bad step.
    """
    t = settings.training
    seed = settings.run.seed
    generator = torch_generator(seed, "train", place.site, place.round, device=t.device)
    drawn = loader.batches(t.batch_size, rng=numpy_generator(seed, "slabs", place.site, place.round))
    batches = read_ahead(drawn, pin=t.device.startswith("cuda"))
    translator.network.train()
    pull = proximal_pull(translator.network, settings)
    total = 0.0
    for local in range(t.local_steps):
        step = place.round * t.local_steps + local
        optimizer.zero_grad(set_to_none=True)
        mean_loss = torch.zeros((), device=t.device)
        for _ in range(t.accumulation):
            batch = next(batches).to(t.device, channels_last=t.channels_last)
            loss = step_loss(translator, batch, settings=settings.loss, generator=generator) / t.accumulation
            loss.backward()
            mean_loss += loss.detach()
        pull()
        norm = nn.utils.clip_grad_norm_(translator.network.parameters(), t.max_grad_norm)
        value = mean_loss.item()  # here the step first waits for the device
        _finite(value, "loss", place, step)
        _finite(norm.item(), "gradient norm", place, step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total_steps=settings.total_steps, settings=t)
        optimizer.step()
        total += value
        on_step(step, value)
    return total / t.local_steps


def proximal_pull(network: nn.Module, settings: Settings) -> Callable[[], None]:
    """Return what adds FedProx's gradient, mu (w - w_received), to what is shared (1812.06127, eq. 2)."""
    mu = settings.aggregation.proximal_mu
    if mu == 0:
        return lambda: None
    named = dict(network.named_parameters())
    personal = members(named, settings.exchange.personal_parts)
    pulled = [(p, p.detach().clone()) for n, p in named.items() if p.requires_grad and n not in personal]

    @torch.no_grad()
    def pull() -> None:
        for parameter, received in pulled:
            if parameter.grad is not None:
                parameter.grad.add_(parameter - received, alpha=mu)

    return pull


def _finite(value: float, name: str, place: Place, step: int) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"{name} is {value} at site {place.site}, round {place.round}, step {step};"
            " lower training.learning-rate or check the site's scans"
        )
