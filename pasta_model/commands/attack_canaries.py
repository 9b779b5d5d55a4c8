# SPDX-License-Identifier: Apache-2.0
"""`pasta attack canaries`: the plan of a run on a store, audited with canaries."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pasta_model.commands.attack_tools import (
    GUARANTEE,
    begins_anew,
    here,
    open_store,
    own_standardisation,
    refuse_unwritable_file,
    slab_loader,
    tell,
)

if TYPE_CHECKING:
    from pasta_model.config import Settings
    from pasta_model.data.slabs import SlabLoader
    from pasta_model.diffusion.cycle import Translator
    from pasta_model.privacy.attacks.canaries import CanaryAudit
    from pasta_model.privacy.plan import Plan


@begins_anew()
def run_canaries(
    store: Path,
    file: Path,
    *,
    canaries: int,
    rounds: int | None,
    confidence: float,
    seed: int | None,
    device: str | None,
    json: Path | None,
) -> None:
    """Audit, tell, and leave with exit status 1 when a leak was seen."""
    from rich.console import Console

    from pasta_model.checkpoint import new_translator
    from pasta_model.config import settings_from_toml
    from pasta_model.errors import PrivacyError
    from pasta_model.privacy.attacks.canaries import refuse_too_many, telling_rounds
    from pasta_model.privacy.plan import plan_for

    refuse_unwritable_file(json)
    settings = here(settings_from_toml(file), device)
    opened = open_store(store, spacing=settings.data.spacing)
    loader = slab_loader(opened, "train", settings, own_standardisation(opened, "train", settings))
    plan = plan_for(settings, subjects=len(loader.visits))
    all_rounds = settings.federation.rounds
    if rounds is not None and rounds > all_rounds:
        raise PrivacyError(f"found --rounds {rounds}, but the run has {all_rounds}; wanted at most those")
    translator = new_translator(settings)
    refuse_too_many((p for p in translator.network.parameters() if p.requires_grad), canaries)
    audited = rounds or telling_rounds(settings, plan, canaries=canaries, confidence=confidence)
    Console().print(
        f"{plan.subjects} subjects, sampling rate {plan.sampling_rate:.4f}, noise multiplier"
        f" {plan.noise_multiplier:g}, {plan.steps} steps: epsilon {plan.epsilon:.2f} at delta {plan.delta:g};"
        f" audited: {audited} of {all_rounds} rounds. Nothing leaves, so nothing is spent.",
        markup=False,
        highlight=False,
    )
    size: Any = {"canaries": canaries, "rounds": audited, "confidence": confidence}
    found = _audit(translator, loader, settings, plan, seed=seed, **size)
    _tell(found, plan, json)
    if found.caught:
        raise typer.Exit(1)


def _audit(
    translator: Translator,
    loader: SlabLoader,
    settings: Settings,
    plan: Plan,
    *,
    seed: int | None,
    **size: Any,
) -> CanaryAudit:
    import secrets

    from rich.console import Console

    from pasta_model.console import progress_bar
    from pasta_model.privacy.attacks.canaries import audit_canaries
    from pasta_model.privacy.subjects import SlabSubjects
    from pasta_model.privacy.training import Chance
    from pasta_model.seeding import numpy_generator, torch_generator
    from pasta_model.training import make_optimizer

    own, at = secrets.randbits(63) if seed is None else seed, settings.training.device
    subjects = SlabSubjects(
        translator,
        loader,
        settings=settings,
        generator=torch_generator(own, "audit timesteps", device=at),
        rng=numpy_generator(own, "audit slabs"),
    )
    chance = Chance(torch_generator(own, "audit noise", device=at), torch_generator(own, "audit draws"))
    with progress_bar(Console(), "private steps") as progress:
        return audit_canaries(
            translator.network,
            subjects,
            make_optimizer(translator.network, settings.training),
            settings=settings,
            plan=plan,
            rng=numpy_generator(own, "audit coins"),
            chance=None if seed is None else chance,
            on_step=progress,
            **size,
        )


def _tell(found: CanaryAudit, plan: Plan, json: Path | None) -> None:
    row = {
        "canaries": str(found.canaries),
        "steps": str(found.steps),
        "guessed": str(found.guesses),
        "right": str(found.correct),
        "epsilon claimed": f"{found.claimed:.2f}",
        f"epsilon shown ({found.confidence:.0%} sure)": f"{found.lower_bound:.2f}",
        "most that could be shown": f"{found.ceiling:.2f}",
    }
    says, style = _says(found)
    figures = {
        "attack": "canaries",
        **asdict(found),
        "caught": found.caught,
        "blind": found.blind,
        "plan": asdict(plan),
    }
    tell("One run with canaries", [row], says=says, figures=figures, json=json, style=style)


def _says(found: CanaryAudit) -> tuple[str, str]:
    shown = f"epsilon is at least {found.lower_bound:.2f} ({found.confidence:.0%} sure)"
    if found.caught:
        wrong = (
            f"LEAK: {shown}, but {found.claimed:.2f} is claimed for these steps: the mechanism or its account"
            " is wrong; do not release anything that it made"
        )
        return wrong, "bold red"
    if found.blind:
        unseen = (
            f"{shown}; but {found.claimed:.2f} is claimed, and so many canaries can show {found.ceiling:.2f}"
            f" at most: no leak could have been seen; audit fewer rounds, or take more canaries; {GUARANTEE}"
        )
        return unseen, "yellow"
    return f"{shown}, below the {found.claimed:.2f} that is claimed: no leak was seen; {GUARANTEE}", ""
