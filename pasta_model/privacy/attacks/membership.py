# SPDX-License-Identifier: Apache-2.0
"""Was this person in the training? Asked of a trained model, by its loss (Carlini et al. 2112.03570).

A model fits those better whom it was trained on. Some persons are easy for any model, so the loss of models
that were trained without them is taken off. All visits of a person count as one, and every model sees the
same slabs with the same timesteps and noises: what differs is the models alone.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from pasta_model.config import Settings
from pasta_model.data.slabs import SlabLoader
from pasta_model.diffusion.cycle import Translator, step_loss
from pasta_model.errors import CheckpointError, PrivacyError, Problems
from pasta_model.privacy.attacks.separation import Separation, separation
from pasta_model.sections import LossSettings
from pasta_model.seeding import numpy_generator, torch_generator

Losses = Mapping[str, float]
ALIKE = ("data.spacing", "data.clinical", "data.planes", "diffusion.num-train-timesteps")
ALIKE_TOO = ("diffusion.timestep-stride", "network.clinical-both-directions")


@torch.inference_mode()
def person_losses(
    translator: Translator,
    loader: SlabLoader,
    *,
    settings: LossSettings,
    slabs: int,
    seed: int,
    on_person: Callable[[], None] = lambda: None,
) -> Losses:
    """Return the mean loss of each person over slabs of any visit; the same for each model and seed.

    Raises
    ------
    PrivacyError
        When a loss is not finite.
    """
    device = str(next(translator.network.parameters()).device)
    translator.network.eval()
    channels_last = translator.memory_format is torch.channels_last
    losses: dict[str, float] = {}
    for person in loader.visits:
        batch = loader.of_person(person, slabs, rng=numpy_generator(seed, "membership slabs", person))
        loss = step_loss(
            translator,
            batch.to(device, channels_last=channels_last),
            settings=settings,
            generator=torch_generator(seed, "membership noise", person, device=device),
        )
        losses[person] = loss.item()
        on_person()
    bad = sum(not np.isfinite(value) for value in losses.values())
    if bad:
        raise PrivacyError(
            f"the loss of {bad} of {len(losses)} persons of site {loader.store.site} is not finite;"
            " the model's weights or the scans are damaged"
        )
    return losses


def membership(
    members: Losses,
    others: Losses,
    *,
    references: Sequence[tuple[Losses, Losses]],
    rng: np.random.Generator,
) -> Separation:
    """Tell members from others by how much better the model fits them than the references do.

    Parameters
    ----------
    members, others
        Losses of the attacked model.
    references
        The same of models that were trained without these members; none: the loss alone is the score.
    """

    def scores(own: Losses, known: Sequence[Losses]) -> list[float]:
        usual = {person: np.mean([k[person] for k in known]) if known else 0.0 for person in own}
        return [float(usual[person] - loss) for person, loss in own.items()]

    return separation(
        np.array(scores(members, [m for m, _ in references])),
        np.array(scores(others, [o for _, o in references])),
        rng=rng,
    )


def refuse_same_persons(members: SlabLoader, others: SlabLoader) -> None:
    """Refuse a person who is on both sides.

    Raises
    ------
    PrivacyError
        With a line for each of them.
    """
    problems = Problems("members who are also among the others")
    for person in sorted(members.visits.keys() & others.visits.keys()):
        problems.add(f"{person}: is at site {members.store.site} and at site {others.store.site}")
    problems.raise_if_any(PrivacyError)


def refuse_other_reference(name: str, reference: Settings, settings: Settings) -> None:
    """Refuse a reference model that cannot be shown the same slabs with the same noises.

    Raises
    ------
    CheckpointError
        With a line for every setting that differs.
    """
    problems = Problems(f"{name}: no reference for this model")
    found, wanted = reference.flat(), settings.flat()
    for key in (*ALIKE, *ALIKE_TOO):
        if found[key] != wanted[key]:
            problems.add(f"{key} is {found[key]!r}, wanted {wanted[key]!r}")
    if reference.network.slab_slices != settings.network.slab_slices:
        problems.add(
            f"its slabs have {reference.network.slab_slices} slices, wanted {settings.network.slab_slices}"
        )
    problems.raise_if_any(CheckpointError)
