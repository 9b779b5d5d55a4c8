# SPDX-License-Identifier: Apache-2.0
"""The three rivals: what each is, and what each does in a training step.

A step is one turn, or two where somebody criticises: first the critic's, then the generator's. Losses are
functions of a batch; shapes: (B, S, H, W) slabs in [-1, 1].
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from monai.losses.adversarial_loss import PatchAdversarialLoss
from torch import Tensor, nn

from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES
from pasta_model.data.slabs import Batch
from pasta_model.diffusion.cycle import Translator
from pasta_model.diffusion.losses import ssim
from pasta_model.diffusion.schedule import Schedule
from pasta_model.errors import ConfigError
from pasta_model.network.dual_arm import Direction, DualArm
from pasta_model.placement import check_device, compute_dtype, memory_format
from pasta_model.seeding import stream_seed
from simulation.rivals.networks import Concatenation, OnePass, RivalNetwork, critic, fitting_width

L1_WEIGHT = 100.0  # Isola et al. 2017, section 3.1
Loss = Callable[[Batch, torch.Generator], Tensor]
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Turn:
    """Who learns in a part of a step, from what, and how fast beside `training.learning-rate`."""

    name: str
    network: nn.Module
    loss: Loss
    rate: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class Rival:
    """A method that PASTA is compared with.

    Attributes
    ----------
    title
        For tables.
    denoises
        Whether a PET is sampled from noise; otherwise it is made in one pass, and no seed changes it.
    turns
        Makes the turns of a step, the network's own last.
    """

    name: str
    title: str
    network: type[RivalNetwork]
    denoises: bool
    turns: Callable[[Translator, Settings], Sequence[Turn]]


def translated(translator: Translator, batch: Batch, generator: torch.Generator) -> Tensor:
    """Predict x_0 of a batch's PETs at timesteps of the generator, as PASTA is trained."""
    return translator.translate(
        batch.pet, batch.mri, batch.clinical, direction=Direction.MRI_TO_PET, generator=generator
    )[0]


def likeness_loss(target: Tensor, x0: Tensor) -> Tensor:
    """Mean |x - x0| + (1 - SSIM(x, x0)): PASTA's loss of a pass without the MetaROI's weight."""
    return (target - x0).abs().mean() + (1 - ssim(target, x0))


def _likeness_turn(translator: Translator, settings: Settings) -> list[Turn]:  # noqa: ARG001
    def loss(batch: Batch, generator: torch.Generator) -> Tensor:
        with translator.autocast():
            x0 = translated(translator, batch, generator)
        return likeness_loss(batch.pet, x0)

    return [Turn("network", translator.network, loss)]


def _adversarial_turns(translator: Translator, settings: Settings) -> list[Turn]:
    """Alternate as Isola et al. 2017: a step of the critic, then one of the generator (eq. 4).

    The critic's objective is halved, as there. The generator's is divided by the weight of L1: the same to
    AdamW, and gradients are clipped where the other methods' are. There is no dropout: the PET has no noise.
    """
    judge = seeded(settings, "critic", lambda: critic(settings.network)).to(settings.training.device)
    judge.to(memory_format=memory_format(settings.training))  # type: ignore[call-overload]
    adversarial = PatchAdversarialLoss(criterion="bce")

    def verdict(mri: Tensor, pet: Tensor, *, real: bool, for_critic: bool) -> Tensor:
        with translator.autocast():
            logits: Tensor = judge(torch.cat([mri, pet], dim=1))[-1].float()
        if not logits.isfinite().all():  # torch's cross entropy would end in an error of its own
            return logits.mean()
        loss: Tensor = adversarial(logits, target_is_real=real, for_discriminator=for_critic)
        return loss

    def critic_loss(batch: Batch, generator: torch.Generator) -> Tensor:
        with torch.no_grad(), translator.autocast():
            made = translated(translator, batch, generator)
        real = verdict(batch.mri, batch.pet, real=True, for_critic=True)
        return (real + verdict(batch.mri, made, real=False, for_critic=True)) / 2

    def generator_loss(batch: Batch, generator: torch.Generator) -> Tensor:
        with translator.autocast():
            made = translated(translator, batch, generator)
        with unmoved(judge):
            convincing = verdict(batch.mri, made, real=True, for_critic=False)
        return (batch.pet - made).abs().mean() + convincing / L1_WEIGHT

    momentum = (0.5, 0.999)  # Isola et al. 2017, section 3.3
    return [
        Turn("critic", judge, critic_loss, betas=momentum),
        Turn("network", translator.network, generator_loss, betas=momentum),
    ]


@contextmanager
def unmoved(network: nn.Module) -> Iterator[None]:
    """Let gradients pass through a network without leaving any in it."""
    network.requires_grad_(requires_grad=False)
    try:
        yield
    finally:
        network.requires_grad_(requires_grad=True)


RIVALS: Mapping[str, Rival] = {
    rival.name: rival
    for rival in (
        Rival("U-Net", "U-Net, regression in one pass", OnePass, denoises=False, turns=_likeness_turn),
        Rival(
            "concatenation",
            "conditional diffusion by concatenation",
            Concatenation,
            denoises=True,
            turns=_likeness_turn,
        ),
        Rival("pix2pix", "pix2pix, adversarial U-Net", OnePass, denoises=False, turns=_adversarial_turns),
    )
}


def rival_of(name: str) -> Rival:
    """Return a rival by name.

    Raises
    ------
    ConfigError
        Naming those that there are.
    """
    if name not in RIVALS:
        raise ConfigError(f"no rival is called {name!r}; wanted one of {', '.join(RIVALS)}")
    return RIVALS[name]


def seeded(settings: Settings, name: str, build: Callable[[], Network]) -> Network:
    """Build a network with initial weights from the run's seed; the global stream stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(settings.run.seed, "initial weights", name))  # noqa: TID251
        return build()


def new_translator(
    rival: Rival, settings: Settings, *, width: int = 0, state: Mapping[str, Tensor] | None = None
) -> Translator:
    """Return a rival's network with the run's schedule, device, dtype and layout.

    Parameters
    ----------
    width
        Of a network that is already trained; 0: what brings it nearest to PASTA's size.
    state
        Its weights; None: those of the seed.
    """
    training = settings.training
    check_device(training.device)
    values = SCHEMES[settings.data.clinical].length
    width = width or fitting_width(rival.network, settings.network, values)
    network = seeded(
        settings, rival.name, lambda: rival.network(settings.network, clinical_values=values, width=width)
    )
    if state is not None:
        network.load_state_dict(state)
    network.to(training.device)
    layout = memory_format(training)
    network.to(memory_format=layout)  # type: ignore[call-overload]  # missing in torch's stubs
    if training.compile:
        network.compile()
    # The face is all that a Translator uses of a DualArm.
    face = cast(DualArm, network)
    return Translator(
        face, Schedule(settings.diffusion), compute_dtype(training.dtype, training.device), layout
    )
