# SPDX-License-Identifier: Apache-2.0
"""`pasta attack memorisation`: whether synthetic PETs are copies of training PETs."""

from __future__ import annotations

from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from pasta_model.commands.attack_tools import (
    GUARANTEE,
    begins_anew,
    open_store,
    refuse_unwritable_file,
    share,
    tell,
)

if TYPE_CHECKING:
    from pasta_model.data.store import SiteStore
    from pasta_model.privacy.attacks.memorisation import Memorisation, Neighbour

Side = tuple[Path, str]  # a store and a split


@begins_anew()
def run_memorisation(synthetic: Path, real: Side, training: Side, *, json: Path | None) -> None:
    """Compare, and tell."""
    from pasta_model.data.store import SiteStore
    from pasta_model.privacy.attacks.memorisation import memorisation

    refuse_unwritable_file(json)
    trained = SiteStore(training[0])
    held_out = open_store(real[0], spacing=trained.template.head.spacing)
    here, there = _indices(held_out, real[1]), _indices(trained, training[1])
    _refuse_same_persons((held_out, here), (trained, there))
    near = _neighbours(synthetic, (held_out, here), (trained, there))
    found = memorisation(near)
    rows = [
        {
            "subject": held_out.entries[index].subject,
            "session": held_out.entries[index].session,
            **asdict(one),
        }
        for index, one in zip(here, near, strict=True)
    ]
    figures = {"attack": "memorisation", **asdict(found), "trained": len(there), "neighbours": rows}
    tell(
        "Synthetic PETs beside training PETs, in the brain, without the mean PET (1 - cosine)",
        [_row(found, len(there))],
        says=_says(found),
        figures=figures,
        json=json,
    )


def _indices(store: SiteStore, split: str) -> list[int]:
    from pasta_model.errors import StoreError

    found = store.indices(split)
    if not found:
        raise StoreError(f"site {store.site} has no session in split {split!r}; wanted at least one")
    return found


def _refuse_same_persons(held_out: tuple[SiteStore, list[int]], trained: tuple[SiteStore, list[int]]) -> None:
    from pasta_model.errors import PrivacyError, Problems

    persons = [{store.entries[i].person for i in indices} for store, indices in (held_out, trained)]
    problems = Problems("held-out persons who trained the model")
    for person in sorted(persons[0] & persons[1]):
        problems.add(f"{person}: is at site {held_out[0].site} and in the training of site {trained[0].site}")
    problems.raise_if_any(PrivacyError)


def _neighbours(
    synthetic: Path, held_out: tuple[SiteStore, list[int]], trained: tuple[SiteStore, list[int]]
) -> list[Neighbour]:
    import numpy as np
    from rich.console import Console

    from pasta_model.console import progress_bar
    from pasta_model.privacy.attacks.memorisation import directions, neighbours
    from pasta_model.privacy.attacks.pets import ground_of, stored_pets, synthetic_pets

    (store, indices), total = held_out, 2 * (len(held_out[1]) + len(trained[1]))
    with progress_bar(Console(), "real PETs") as progress:
        done = count(1)

        def on_pet() -> None:
            progress(next(done), total)

        ground = ground_of((held_out, trained), on_pet)
        made = synthetic_pets(synthetic, store, indices, ground)
        real = np.concatenate(list(stored_pets(*held_out, ground, on_pet)))
        return neighbours(
            directions(made, ground.mean),
            directions(real, ground.mean),
            persons=[store.entries[i].person for i in indices],
            trained=[trained[0].entries[i].person for i in trained[1]],
            training=(directions(part, ground.mean) for part in stored_pets(*trained, ground, on_pet)),
        )


def _row(found: Memorisation, trained: int) -> dict[str, str]:
    return {
        "held-out persons": str(found.persons),
        "training PETs": str(trained),
        "to its own PET": f"{found.own:.3f}",
        "to the nearest training PET": f"{found.training:.3f}",
        "to the nearest held-out PET": f"{found.held_out:.3f}",
        "nearer to training than to its own": share(found.near_training),
        "nearer to another held-out": share(found.near_held_out),
        "leans to training, p": f"{found.p_value:.2g}",
    }


def _says(found: Memorisation) -> str:
    beside = "to training PETs than real PETs of the same persons do"
    meaning = f"synthetic PETs lie no nearer {beside}: no copying was seen"
    if found.p_value < 0.05:
        meaning = (
            f"synthetic PETs lie nearer {beside}: the model repeats its training (p = {found.p_value:.2g})"
        )
    return f"{meaning}; it says nothing about what a model knows and does not show; {GUARANTEE}"
