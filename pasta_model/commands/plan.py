# SPDX-License-Identifier: Apache-2.0
"""`pasta plan`: what a private run will cost at sites of these sizes, before anything is spent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

if TYPE_CHECKING:
    from pasta_model.config import Settings
    from pasta_model.privacy.plan import ErrorPlan, Plan

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
    from pasta_model.privacy.plan import error_plan, plan_for

    own = settings_from_toml(settings)
    _refuse_other_unit(own, settings)
    names = ("subjects", "epsilon", "delta", "sampling", "steps", "sigma", "PRV", "RDP", "noise")
    table = Table(*names, box=None)
    for wanted in epsilon or [own.privacy.epsilon]:
        flat = {**own.flat(), "privacy.epsilon": wanted}
        flat |= {"federation.rounds": rounds or own.federation.rounds}
        flat |= {"training.local-steps": local_steps or own.training.local_steps}
        run: Settings = settings_from_flat(flat)
        for count in subjects:
            table.add_row(*_row_of(plan_for(run, subjects=count), wanted))
        if errors := error_plan(run):
            table.add_row(*_row_of_errors(errors, wanted))
    console = Console()
    console.print(table)
    console.print(
        "Unit: subject, with all visits, slabs and directions together. sigma: noise multiplier. PRV, RDP:"
        " epsilon by two accountants. noise: on each weight of a step's mean gradient, when the gradient of"
        " a whole subject measures 1 at most. Nothing was spent.",
        highlight=False,
    )
    if own.privacy.metrics == "noised":
        console.print(
            "validate: those who validate, and pay for every noised error; one goes with each round's update"
            " and one is of the last model. They are other people than those who train.",
            highlight=False,
        )


def _refuse_other_unit(settings: Settings, file: Path) -> None:
    """Refuse to show a plan of subjects for a run that protects none at the sites."""
    from pasta_model.errors import PrivacyError

    unit = settings.privacy.unit
    if unit == "none":
        raise PrivacyError(
            f"{file}: privacy.unit is 'none': this run adds no noise, so there is no plan; set"
            ' [privacy] unit = "subject" to have every site protect its subjects'
        )
    if unit == "site":
        raise PrivacyError(
            f"{file}: privacy.unit is 'site': the server adds noise, to the mean of the sites, whatever"
            " their subjects; 'pasta-server run' shows that plan when it starts (docs/coordinator.md, noise"
            ' at the server). For noise at the sites, set [privacy] unit = "subject"'
        )


def _row_of(made: Plan, wanted: float) -> tuple[str, ...]:
    rate, sigma = f"{made.sampling_rate:.4f}", f"{made.noise_multiplier:.3f}"
    figures = (f"{wanted:g}", f"{made.delta:g}", rate, str(made.steps), sigma, f"{made.epsilon:.3f}")
    noise = f"{made.noise_multiplier / made.expected_subjects:.4f}"
    return (str(made.subjects), *figures, _rdp(made, made.steps), noise)


def _row_of_errors(made: ErrorPlan, wanted: float) -> tuple[str, ...]:
    figures = (f"{wanted:g}", f"{made.delta:g}", "1.0000", str(made.errors), f"{made.noise_multiplier:.3f}")
    return ("validate", *figures, f"{made.epsilon:.3f}", _rdp(made, made.errors), "")


def _rdp(made: Plan | ErrorPlan, steps: int) -> str:
    from pasta_model.privacy.accounting import epsilon

    return f"{epsilon([made.release(steps)], delta=made.delta, accountant='rdp'):.3f}"
