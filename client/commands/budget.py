# SPDX-License-Identifier: Apache-2.0
"""`pasta-client budget`: what private runs have spent of the site's subjects, and what a run would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

if TYPE_CHECKING:
    from client.budget import Account

Site = Annotated[Path, typer.Argument(help="The kit's site.toml, its folder, or a prepared store.")]
Run = Annotated[Path | None, Option("--settings", help="A run's settings (TOML): show what it would cost.")]
AsJson = Annotated[bool, Option("--json", help="Everything, for programs.")]


def budget(site: Site, *, settings: Run = None, as_json: AsJson = False) -> None:
    """Show epsilon spent and left, run by run, and the plan of a run before anything is spent.

    Exit status 2 when the ledger was changed or taken away, or when the run does not fit.
    """
    from rich.console import Console

    from client.budget import account_of, planned, read_place

    place = read_place(site)
    account = account_of(place)
    if as_json:
        told: dict[str, Any] = account.told()
        if settings is not None:
            told["plan"] = planned(place, settings)
        typer.echo(json.dumps(told, indent=2))
        return
    console = Console()
    _show(console, account)
    if settings is not None:
        plan = planned(place, settings)
        console.print(
            f"plan: {plan['steps']} steps, each subject in a step with probability"
            f" {plan['sampling_rate']:.4g}, noise multiplier {plan['noise_multiplier']:g}, clip norm"
            f" {plan['max_grad_norm']:g}: epsilon {plan['epsilon']:.2f} at delta {plan['delta']:g} (RDP:"
            f" {plan['rdp']:.2f}); after it {plan['afterwards']:.2f} is spent in all. Nothing was spent now"
        )
        if errors := plan["errors"]:
            console.print(
                f"those who validate: {errors['errors']} noised errors, noise multiplier"
                f" {errors['noise_multiplier']:g}: epsilon {errors['epsilon']:.2f} at delta"
                f" {errors['delta']:g} (RDP: {errors['rdp']:.2f}); after it {errors['afterwards']:.2f} is"
                " spent of them in all"
            )


def _show(console: Any, account: Account) -> None:
    from rich.markup import escape
    from rich.table import Table

    console.print(
        f"site {account.site}: unit subject, {account.subjects} train; epsilon at delta {account.delta:g}",
        highlight=False,
        markup=False,
    )
    names = ("run", "mechanism", "rounds", "steps", "noise", "sampling", "epsilon", "last day")
    table = Table(*names, box=None)
    for row in account.rows:
        table.add_row(
            escape(row.run),  # the coordinator's words
            row.mechanism,
            str(row.rounds),
            str(row.steps),
            f"{row.noise_multiplier:g}",
            f"{row.sampling_rate:.4g}",
            f"{row.epsilon:.3f}",
            row.last[:10],
        )
    if account.rows:
        console.print(table)
    for group, (prv, rdp) in account.spent.items():
        left = ""
        if account.limit is not None:
            left = f", {account.left(group):.3f} of {account.limit:g} left for a new run"
            if run := account.run:
                left += f", {account.left(group, run=run):.3f} for {run} where it goes on"
        console.print(
            f"{group}: epsilon {prv:.3f} spent{left} (RDP, looser, and what counts beside another run:"
            f" {rdp:.3f})",
            highlight=False,
            markup=False,
        )
    if account.bare:
        console.print(
            f"not covered: {account.bare} update(s) of runs without subject privacy left this site, too",
            highlight=False,
        )
    typer.echo(
        f"ledger {account.ledger}: kits and stores of the same people that do not name it ([guard] ledger)"
        " spend on their own, unseen here"
    )
    typer.echo(f"chain of {account.lines} lines holds; note this elsewhere: {account.lines} {account.hash}")
