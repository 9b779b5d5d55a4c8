# SPDX-License-Identifier: Apache-2.0
"""A PET out of a site's update: gradient inversion (Geiping et al. 2003.14053) by a strong attacker.

The attacker knows everything but the PETs: the weights before and after, the MRIs, the clinical values, the
timesteps and the noises. It looks for PET slabs whose gradients G point where the update U points::

    min over slabs  1 - cos(G, U) + tv TV(slabs),    signed gradients, Adam, from the mean PET of others

An update of k local steps mixes k slabs, each of another draw; they are looked for together, each at the
weights between before and after that its step had, as far as one can tell. Gradients are twice
differentiated: attention by its plain formula, all in float32. The loss has corners where the PET is met,
which tell a second derivative nothing, so the attacker rounds them, less and less.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from pasta_model.data.slabs import Batch
from pasta_model.diffusion.cycle import Translator, step_loss
from pasta_model.sections import LossSettings
from pasta_model.seeding import torch_generator

SMOOTHNESS = 0.1  # tv
STEP = 0.01  # of Adam, in [-1, 1]
CORNER = 0.1  # of the rounded |x|, at the start
Gradients = list[Tensor]


@dataclass(frozen=True)
class Lesson:
    """What one local step is about, known to the attacker but for `batch.pet`.

    Attributes
    ----------
    batch
        One slab.
    seed
        Of its timestep and noise.
    """

    batch: Batch
    seed: int

    def with_pet(self, pet: Tensor) -> Batch:
        """Return the slab with another PET, (1, S, H, W)."""
        return replace(self.batch, pet=pet)


@dataclass(frozen=True)
class Update:
    """What a site sends after k local steps of plain gradient descent.

    Attributes
    ----------
    before, after
        Values of all trained parameters.
    clip
        Norm to which the gradient of a step was cut.
    """

    before: Gradients
    after: Gradients
    clip: float


def invert(
    translator: Translator,
    update: Update,
    lessons: Sequence[Lesson],
    *,
    guesses: Sequence[Tensor],
    settings: LossSettings,
    iterations: int,
    on_iteration: Callable[[], None] = lambda: None,
) -> list[Tensor]:
    """Reconstruct the PET slabs of an update; the network is left with the weights before.

    Parameters
    ----------
    lessons
        Their PETs are not looked at.
    guesses
        Where to start, one slab a lesson.
    """
    slabs = [guess.clone().requires_grad_() for guess in guesses]
    optimizer = torch.optim.Adam(slabs, lr=STEP)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    attack = _Attack(translator, update, lessons, settings)
    for iteration in range(iterations):
        corner = CORNER * 0.01 ** (iteration / iterations)
        for slab, slope in zip(slabs, attack.slopes(slabs, corner=corner), strict=True):
            (rough,) = torch.autograd.grad(SMOOTHNESS * total_variation(slab), slab)
            slab.grad = (slope + rough).sign()
        optimizer.step()
        slower.step()
        with torch.no_grad():
            for slab in slabs:
                slab.clamp_(-1, 1)
        on_iteration()
    attack.go_to(0.0)
    return [slab.detach() for slab in slabs]


class _RoundedAbs(TorchFunctionMode):
    """|x| becomes sqrt(x^2 + corner^2)."""

    def __init__(self, corner: float) -> None:
        super().__init__()
        self._corner = corner

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.abs:
            return (args[0].square() + self._corner**2).sqrt()
        return func(*args, **(kwargs or {}))


class _Attack:
    """The gradient of the cosine to the slabs, one lesson at a time: memory does not grow with the steps."""

    def __init__(
        self, translator: Translator, update: Update, lessons: Sequence[Lesson], settings: LossSettings
    ) -> None:
        self._translator = translator
        self._update = update
        self._lessons = lessons
        self._settings = settings
        self._wanted = [b - a for b, a in zip(update.before, update.after, strict=True)]
        self._parameters = [p for p in translator.network.parameters() if p.requires_grad]

    def go_to(self, share: float) -> None:
        """Set the weights so far on the way from before to after."""
        pairs = zip(self._parameters, self._update.before, self._update.after, strict=True)
        with torch.no_grad():
            for parameter, before, after in pairs:
                parameter.copy_(before if share == 0 else torch.lerp(before, after, share))

    def slopes(self, slabs: Sequence[Tensor], *, corner: float) -> list[Tensor]:
        """Return the derivative of 1 - cos(G, U) to every slab; |x| is rounded within `corner`."""
        with sdpa_kernel(SDPBackend.MATH), _RoundedAbs(corner):
            total = self._clipped(0, slabs[0], again=len(slabs) == 1)
            first = total  # of a single lesson, once is enough
            for number, slab in enumerate(slabs[1:], start=1):
                total = [t + own for t, own in zip(total, self._clipped(number, slab.detach()), strict=True)]
            towards = _slope_of_cosine([t.detach() for t in total], self._wanted)
            found = []
            for number, slab in enumerate(slabs):
                own = first if len(slabs) == 1 else self._clipped(number, slab, again=True)
                found.append(torch.autograd.grad(_dot(own, towards), slab)[0])
            return found

    def _clipped(self, number: int, slab: Tensor, *, again: bool = False) -> Gradients:
        """Return the gradient of a step, cut to the clip norm as the site does."""
        self.go_to(number / len(self._lessons))
        lesson = self._lessons[number]
        found = gradient(
            self._translator, lesson.with_pet(slab), seed=lesson.seed, settings=self._settings, again=again
        )
        norm = torch.sqrt(_dot(found, found))
        factor = torch.clamp(self._update.clip / (norm + 1e-12), max=1.0)
        return [factor * g for g in found]


def gradient(
    translator: Translator, batch: Batch, *, seed: int, settings: LossSettings, again: bool = False
) -> Gradients:
    """Return the gradient of one step to all trained parameters; `again`: to be differentiated once more."""
    parameters = [p for p in translator.network.parameters() if p.requires_grad]
    generator = torch_generator(seed, "lesson", device=str(parameters[0].device))
    loss = step_loss(translator, batch, settings=settings, generator=generator)
    return list(torch.autograd.grad(loss, parameters, create_graph=again, materialize_grads=True))


def total_variation(slab: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels and slices of a slab, (1, S, H, W)."""
    return torch.stack([slab.diff(dim=axis).abs().mean() for axis in (1, 2, 3)]).sum()


def correlation(first: Tensor, second: Tensor, *, brain: Tensor) -> float:
    """Return Pearson's correlation inside the brain."""
    a, b = (slab[brain].double() - slab[brain].double().mean() for slab in (first, second))
    return float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12))


def psnr(real: Tensor, found: Tensor, *, brain: Tensor) -> float:
    """Return the peak signal-to-noise ratio inside the brain in dB; the range is that of [-1, 1]."""
    error = float((real[brain].double() - found[brain].double()).square().mean())
    return 10 * math.log10(4 / max(error, 1e-12))


def _dot(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()


def _slope_of_cosine(found: Gradients, wanted: Gradients) -> Gradients:
    """Return the derivative of 1 - cos(G, U) to G: -(U/|U| - cos G/|G|) / |G|."""
    long, far = torch.sqrt(_dot(found, found)) + 1e-12, torch.sqrt(_dot(wanted, wanted)) + 1e-12
    cosine = _dot(found, wanted) / (long * far)
    return [-(u / far - cosine * g / long) / long for g, u in zip(found, wanted, strict=True)]
