# SPDX-License-Identifier: Apache-2.0
"""`pasta attack membership`: who was in the training of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pasta_model.commands.attack_tools import (
    GUARANTEE,
    begins_anew,
    here,
    loaded,
    open_store,
    refuse_unwritable_file,
    share,
    slab_loader,
    tell,
)

if TYPE_CHECKING:
    from pasta_model.checkpoint import Checkpoint
    from pasta_model.data.slabs import SlabLoader
    from pasta_model.privacy.attacks.membership import Losses
    from pasta_model.privacy.attacks.separation import Separation

Side = tuple[Path, str]  # a store and a split


@begins_anew()
def run_membership(
    model: Path,
    members: Side,
    others: Side,
    *,
    references: Sequence[Path],
    slabs: int,
    seed: int,
    device: str | None,
    json: Path | None,
) -> None:
    """Attack, and tell."""
    from pasta_model.privacy.attacks.membership import membership
    from pasta_model.seeding import numpy_generator

    refuse_unwritable_file(json)
    own, *known = _losses(model, references, (members, others), slabs=slabs, seed=seed, device=device)
    found = membership(*own, references=known, rng=numpy_generator(seed, "membership bootstrap"))
    figures = {
        "attack": "membership",
        **asdict(found),
        "references": len(references),
        "slabs": slabs,
        "member_losses": own[0],
        "other_losses": own[1],
    }
    says = _says(found, len(references), same=members[0].resolve() == others[0].resolve())
    tell("Membership, by person", [_row(found, len(references))], says=says, figures=figures, json=json)


def _losses(
    model: Path,
    references: Sequence[Path],
    sides: tuple[Side, Side],
    *,
    slabs: int,
    seed: int,
    device: str | None,
) -> list[tuple[Losses, Losses]]:
    """Losses of members and others under the model and each reference."""
    from itertools import count

    from rich.console import Console

    from pasta_model.checkpoint import new_translator
    from pasta_model.console import progress_bar
    from pasta_model.privacy.attacks.membership import person_losses

    models = _models(model, references)
    first = models[0].settings
    shown = _shown(models, sides)
    at, same = device or first.training.device, {"training.dtype": first.training.dtype}
    total = sum(len(loader.visits) for pair in shown for loader in pair)
    found, done = [], count(1)
    with progress_bar(Console(), "losses") as progress:
        for checkpoint, pair in zip(models, shown, strict=True):
            translator = new_translator(here(checkpoint.settings, at, same), checkpoint.state)
            members, others = (
                person_losses(
                    translator,
                    loader,
                    settings=first.loss,
                    slabs=slabs,
                    seed=seed,
                    on_person=lambda: progress(next(done), total),
                )
                for loader in pair
            )
            found.append((members, others))
    return found


def _models(model: Path, references: Sequence[Path]) -> list[Checkpoint]:
    """Read the attacked model and the references, which must fit it."""
    from pasta_model.privacy.attacks.membership import refuse_other_reference

    models = [loaded(path) for path in (model, *references)]
    for path, reference in zip(references, models[1:], strict=True):
        refuse_other_reference(str(path), reference.settings, models[0].settings)
    return models


def _shown(models: Sequence[Checkpoint], sides: tuple[Side, Side]) -> list[tuple[SlabLoader, SlabLoader]]:
    """Return members' and others' slabs as each model sees them, with its own clinical mean and spread."""
    from pasta_model.privacy.attacks.membership import refuse_same_persons

    settings = models[0].settings
    (members, split), (others, other_split) = (
        (open_store(path, spacing=settings.data.spacing), name) for path, name in sides
    )
    shown = [
        (
            slab_loader(members, split, settings, model.standardisation),
            slab_loader(others, other_split, settings, model.standardisation),
        )
        for model in models
    ]
    refuse_same_persons(*shown[0])
    return shown


def _row(found: Separation, references: int) -> dict[str, str]:
    return {
        "members": str(found.members),
        "others": str(found.others),
        "references": str(references),
        "AUC (95 % interval)": f"{found.auc:.3f} ({found.auc_low:.3f} to {found.auc_high:.3f})",
        "p": f"{found.p_value:.2g}",
        "balanced accuracy": share(found.balanced_accuracy),
        "found at 10 % accused": share(found.tpr_at_10),
        "at 1 %": share(found.tpr_at_1),
    }


def _says(found: Separation, references: int, *, same: bool) -> str:
    if found.auc_low > 0.5:
        meaning = (
            f"this model gives away who trained it: members are told from others with AUC {found.auc:.2f}"
        )
    else:
        meaning = "this attack cannot tell members from others (0.5 lies in the interval, or above it)"
    caveats = (
        [] if references else ["without reference models, persons who are easy for any model pass as members"]
    )
    if not same:
        caveats.append(
            "members and others are of two stores, so a difference between scanners counts as well"
        )
    return "; ".join([meaning, *caveats, GUARANTEE])
