# SPDX-License-Identifier: Apache-2.0
"""`pasta attack`: attacks on what we claim; each one a figure, its uncertainty, and what it does not show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from pasta_model.commands.attack_canaries import run_canaries
from pasta_model.commands.attack_inversion import run_inversion
from pasta_model.commands.attack_membership import run_membership
from pasta_model.commands.attack_memorisation import run_memorisation

app = typer.Typer(
    help="Attack what we claim: who was in the training, what a model knows by heart, what an update gives"
    " away, and whether the privacy mechanism does what it says. All of it stays on this machine; nothing is"
    " released, so nothing is spent.",
    no_args_is_help=True,
)
Json = Annotated[Path | None, Option("--json", help="Write all figures there.")]
Device = Annotated[str | None, Option(help="cpu, cuda; by default as in the settings.")]
Seed = Annotated[int, Option(min=0, help="The same seed gives the same result.")]
Store = Annotated[Path, Argument(help="A prepared site.")]
Model = Annotated[Path | None, Option(help="A model.safetensors whose settings and weights are taken.")]
File = Annotated[Path | None, Option(help="The run's settings (TOML); weights are fresh.")]


@app.command()
def canaries(
    store: Store,
    *,
    settings: Annotated[Path, Option(help="The run's settings (TOML), with privacy.unit = 'subject'.")],
    canaries: Annotated[int, Option(min=4, help="More see more, and take longer.")] = 1000,
    rounds: Annotated[
        int | None, Option(min=1, help="Of the run; by default as many as so many canaries can judge.")
    ] = None,
    confidence: Annotated[float, Option(min=0.5, max=0.9999, help="Of the lower bound.")] = 0.95,
    seed: Annotated[
        int | None, Option(min=0, help="For an audit that can be made again; else nobody knows the noise.")
    ] = None,
    device: Device = None,
    json: Json = None,
) -> None:
    """Audit the plan of these settings with canaries: a lower bound of epsilon from one run.

    Exit status 1 when the bound is above the epsilon that is claimed: a leak.
    """
    run_canaries(
        store,
        settings,
        canaries=canaries,
        rounds=rounds,
        confidence=confidence,
        seed=seed,
        device=device,
        json=json,
    )


@app.command()
def membership(
    model: Annotated[Path, Argument(help="The model.safetensors that is attacked.")],
    *,
    members: Annotated[Path, Option(help="The prepared site that trained it.")],
    split: Annotated[str, Option(help="Whose persons trained it.")] = "train",
    others: Annotated[Path, Option(help="A prepared site with persons who did not; best the same one.")],
    others_split: Annotated[str, Option(help="Those persons.")] = "valid",
    reference: Annotated[
        list[Path] | None,
        Option(help="A like model trained without these members; may be repeated."),
    ] = None,
    slabs: Annotated[int, Option(min=1, help="Of each person, over all visits.")] = 32,
    seed: Seed = 0,
    device: Device = None,
    json: Json = None,
) -> None:
    """Tell who was in the training, by how well the model fits them; a person's visits count as one."""
    run_membership(
        model,
        (members, split),
        (others, others_split),
        references=reference or [],
        slabs=slabs,
        seed=seed,
        device=device,
        json=json,
    )


@app.command()
def memorisation(
    synthetic: Annotated[Path, Argument(help="Folder of 'pasta synthesize' with PETs of held-out persons.")],
    *,
    real: Annotated[Path, Option(help="The prepared site with their real PETs.")],
    real_split: Annotated[str, Option(help="Those persons.")] = "test",
    training: Annotated[Path, Option(help="The prepared site whose PETs may have been copied.")],
    split: Annotated[str, Option(help="Whose persons trained the model.")] = "train",
    json: Json = None,
) -> None:
    """Compare synthetic PETs with training PETs, to find copies."""
    run_memorisation(synthetic, (real, real_split), (training, split), json=json)


@app.command()
def inversion(
    store: Store,
    *,
    settings: File = None,
    model: Model = None,
    split: Annotated[str, Option(help="Whose PETs are looked for.")] = "train",
    steps: Annotated[
        list[int] | None,
        Option(min=1, help="Local steps of an update; may be repeated.", show_default="1 4 16"),
    ] = None,
    noise_multiplier: Annotated[
        list[float] | None,
        Option(min=0, help="Of a private step; may be repeated; 0: clipping alone.", show_default="0 1"),
    ] = None,
    trials: Annotated[int, Option(min=1, help="Updates of each kind.")] = 2,
    iterations: Annotated[int, Option(min=1, help="Of the attack on an update.")] = 150,
    seed: Seed = 0,
    device: Device = None,
    json: Json = None,
) -> None:
    """Look for PETs in a site's update, with and without privacy."""
    run_inversion(
        store,
        settings=settings,
        model=model,
        split=split,
        steps=steps or [1, 4, 16],
        noise=noise_multiplier if noise_multiplier is not None else [0.0, 1.0],
        trials=trials,
        iterations=iterations,
        seed=seed,
        device=device,
        json=json,
    )
