# SPDX-License-Identifier: Apache-2.0
"""How much of its PETs a site's update gives away: with and without privacy, by number of local steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pasta_model.config import Settings
from pasta_model.data.slabs import SlabLoader
from pasta_model.diffusion.cycle import Translator
from pasta_model.errors import PrivacyError
from pasta_model.privacy.attacks.inversion import Lesson, Update, correlation, invert, psnr
from pasta_model.privacy.attacks.updates import plain_update, private_update
from pasta_model.seeding import numpy_generator, stream_seed, torch_generator

OTHERS = 50  # PETs at most of which the attacker knows the mean


@dataclass(frozen=True)
class Case:
    """One kind of update.

    Attributes
    ----------
    steps
        Local steps, each about one slab of another person where there are enough.
    noise_multiplier
        Of the private step; 0: clipping alone; None: no privacy at all.
    """

    steps: int
    noise_multiplier: float | None

    @property
    def words(self) -> str:
        """What protects it."""
        if self.noise_multiplier is None:
            return "nothing"
        return f"noise {self.noise_multiplier:g}" if self.noise_multiplier else "clip"


@dataclass(frozen=True)
class Reconstruction:
    """How near the attacker came, in the brain, on average over slabs.

    Attributes
    ----------
    correlation, psnr
        Of the reconstruction with the real PET; PSNR in dB, of SUVR 0 to 3.
    known_correlation, known_psnr
        Of what the attacker had before: the mean PET of other persons.
    """

    steps: int
    noise_multiplier: float | None
    slabs: int
    correlation: float
    psnr: float
    known_correlation: float
    known_psnr: float


def reconstruct(
    translator: Translator,
    loader: SlabLoader,
    case: Case,
    *,
    settings: Settings,
    seed: int,
    trials: int,
    iterations: int,
    on_iteration: Callable[[], None] = lambda: None,
) -> Reconstruction:
    """Make updates of some slabs and attack each; cases of the same steps are about the same slabs.

    Raises
    ------
    PrivacyError
        When an update is not finite.
    """
    device = settings.training.device
    translator.network.eval()
    rows = []
    for trial in range(trials):
        rng = numpy_generator(seed, "inversion", case.steps, trial)
        lessons, guesses = draw_lessons(loader, case.steps, rng=rng, device=device)
        noise = torch_generator(seed, "inversion noise", case.steps, trial, device=device)
        found = invert(
            translator,
            _update(translator, lessons, case, settings, noise),
            lessons,
            guesses=guesses,
            settings=settings.loss,
            iterations=iterations,
            on_iteration=on_iteration,
        )
        rows += [_scores(*three) for three in zip(lessons, found, guesses, strict=True)]
    return Reconstruction(case.steps, case.noise_multiplier, len(rows), *np.mean(rows, axis=0).tolist())


def draw_lessons(
    loader: SlabLoader, count: int, *, rng: np.random.Generator, device: str
) -> tuple[list[Lesson], list[Tensor]]:
    """Draw so many slabs of training persons, with the mean PET slab of others beside each.

    Raises
    ------
    PrivacyError
        When there is nobody else whose PETs could be known.
    """
    store, persons = loader.store, list(loader.visits)
    if len({entry.person for entry in store.entries}) < 2:
        raise PrivacyError(f"site {store.site} has one person; wanted two or more: one's PET is the guess")
    order = [persons[i] for i in rng.permutation(len(persons))]
    lessons, guesses = [], []
    for number in range(count):
        person = order[number % len(order)]
        index = int(rng.choice(loader.visits[person]))
        start = _start(loader, index, rng)
        batch = loader.at([(index, start)]).to(device, channels_last=False)
        lessons.append(Lesson(batch, stream_seed(int(rng.integers(2**31)), "lesson")))
        others = [i for i, entry in enumerate(store.entries) if entry.person != person]
        chosen = rng.permutation(others)[:OTHERS].tolist()
        mean = np.mean([_pet(loader, i, start) for i in chosen], axis=0, dtype=np.float32)
        guesses.append(torch.from_numpy(mean)[None].to(device))
    return lessons, guesses


def _start(loader: SlabLoader, index: int, rng: np.random.Generator) -> int:
    """Draw where a slab lies, in proportion to the brain in it."""
    plane = loader.planes[0]
    mri, _ = loader.store.slab(index, 0, loader.store.depth(plane), plane=plane)
    brain = (mri > -1).sum(axis=(1, 2)).astype(np.float64)
    slabs = np.convolve(brain, np.ones(loader.slab_slices), mode="valid")
    return int(rng.choice(len(slabs), p=slabs / slabs.sum()))


def _pet(loader: SlabLoader, index: int, start: int) -> np.ndarray:
    return loader.store.slab(index, start, loader.slab_slices, plane=loader.planes[0])[1]


def _update(
    translator: Translator,
    lessons: Sequence[Lesson],
    case: Case,
    settings: Settings,
    noise: torch.Generator,
) -> Update:
    if case.noise_multiplier is None:
        made = plain_update(translator, lessons, settings=settings)
    else:
        made = private_update(
            translator, lessons, settings=settings, noise_multiplier=case.noise_multiplier, generator=noise
        )
    if not all(bool(value.isfinite().all()) for value in made.after):
        raise PrivacyError("an update is not finite; the model's weights or the scans are damaged")
    return made


def _scores(lesson: Lesson, found: Tensor, guess: Tensor) -> tuple[float, float, float, float]:
    real, brain = lesson.batch.pet, lesson.batch.mri > -1
    return (
        correlation(real, found, brain=brain),
        psnr(real, found, brain=brain),
        correlation(real, guess, brain=brain),
        psnr(real, guess, brain=brain),
    )
