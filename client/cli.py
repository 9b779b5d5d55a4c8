# SPDX-License-Identifier: Apache-2.0
"""`pasta-client`: a hospital site looks at what it would share."""

from pathlib import Path
from typing import Annotated

import typer

from client.commands.approve import approve
from client.commands.audit import audit
from client.commands.budget import budget
from client.commands.check import check
from client.commands.combine import combine
from client.commands.start import start
from pasta_model.console import resumable, run_command

app = typer.Typer(
    help="A hospital site: what is prepared here, and what would leave.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.command()(check)
app.command()(approve)
app.command()(resumable(start))
app.command()(audit)
app.command()(budget)
app.command()(combine)


@app.command()
def show(
    store: Annotated[Path, typer.Argument(help="A prepared site, made by 'pasta store'.")],
    clinical: Annotated[str, typer.Option(help="Clinical scheme: adni, demographics or none.")] = "adni",
) -> None:
    """Show everything that this site would tell the server when it joins: counts and sums, no rows."""
    from rich.console import Console
    from rich.table import Table

    from client.site import Site
    from pasta_model.config import settings_from_flat
    from pasta_model.data.clinical import SCHEMES
    from pasta_model.data.store import SiteStore

    spacing = SiteStore(store).template.head.spacing
    report = Site(store, settings_from_flat({"data.clinical": clinical, "data.spacing": spacing})).report()
    console = Console()
    console.print(
        f"site {report.site}: {report.train_subjects} subjects train, {report.valid_subjects} validate"
    )
    table = Table("column", "values", "sum", "sum of squares")
    m = report.moments
    for row in zip(SCHEMES[clinical].columns, m.count, m.total, m.squares, strict=True):
        table.add_row(row[0], *(f"{value:,.1f}" for value in row[1:]))
    console.print(table)
    console.print(
        "During rounds: model weights, subjects, mean loss, validation error, seconds. Nothing else."
    )


def main() -> None:
    """Entry point of `pasta-client`."""
    run_command(app)
