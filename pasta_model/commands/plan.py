# SPDX-License-Identifier: Apache-2.0
"""`pasta plan`: what a private run will cost at sites of these sizes, before anything is spent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

if TYPE_CHECKING:
    from pasta_model.config import Settings

File = Annotated[Path, typer.Argument(metavar="SETTINGS", help="The run's settings (TOML).")]
Sizes = Annotated[list[int], Option("--subjects", min=1, help="Training subjects of a site; once a site.")]
Epsilons = Annotated[list[float] | None, Option("--epsilon", help="Instead of the file's; several: a table.")]
Rounds = Annotated[int | None, Option(min=1, help="Instead of the file's.")]
Steps = Annotated[int | None, Option("--local-steps", min=1, help="Instead of the file's.")]


def plan(
    settings: File,
    *,
    subjects: Sizes,
    epsilon: Epsilons = None,
    rounds: Rounds = None,
    local_steps: Steps = None,
) -> None:
    """Show the noise that every site would add, and what it costs; nothing is spent.

    The noise multiplier is computed from epsilon, delta, rounds, local steps and subjects, unless the
    settings name one.
    """
    from rich.console import Console
    from rich.table import Table

    from pasta_model.config import settings_from_flat, settings_from_toml
    from pasta_model.privacy.accounting import epsilon as cost_of
    from pasta_model.privacy.plan import plan_for

    own = settings_from_toml(settings)
    names = ("subjects", "epsilon", "delta", "sampling", "steps", "sigma", "PRV", "RDP", "noise")
    table = Table(*names, box=None)
    for wanted in epsilon or [own.privacy.epsilon]:
        flat = {**own.flat(), "privacy.unit": "subject", "privacy.epsilon": wanted}
        flat |= {"federation.rounds": rounds or own.federation.rounds}
        flat |= {"training.local-steps": local_steps or own.training.local_steps}
        run: Settings = settings_from_flat(flat)
        for count in subjects:
            made = plan_for(run, subjects=count)
            rdp = cost_of([made.release(made.steps)], delta=made.delta, accountant="rdp")
            noise = made.noise_multiplier / made.expected_subjects
            figures = (f"{made.sampling_rate:.4f}", str(made.steps), f"{made.noise_multiplier:.3f}")
            costs = (f"{made.epsilon:.3f}", f"{rdp:.3f}", f"{noise:.4f}")
            table.add_row(str(count), f"{wanted:g}", f"{made.delta:g}", *figures, *costs)
    console = Console()
    console.print(table)
    console.print(
        "Unit: subject, with all visits, slabs and directions together. sigma: noise multiplier. PRV, RDP:"
        " epsilon by two accountants. noise: on each weight of a step's mean gradient, when the gradient of"
        " a whole subject measures 1 at most. Nothing was spent.",
        highlight=False,
    )
