# SPDX-License-Identifier: Apache-2.0
"""`pasta-server`: the coordinator leads a consortium, and looks at its runs."""

from pathlib import Path
from typing import Annotated

import typer

from pasta_model.console import run_command
from server.commands.provision import add_site, provision, renew_server, renew_site, revoke_site
from server.commands.run import run
from server.commands.superlink import superlink

app = typer.Typer(
    help="The coordinator: a consortium's server, its runs, what came of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


for command in (provision, add_site, renew_site, renew_server, revoke_site, superlink, run):
    app.command()(command)


@app.command()
def rounds(run: Annotated[Path, typer.Argument(help="Output folder of a run.")]) -> None:
    """Show the rounds of a run: who answered, loss, validation error, time."""
    import json

    from rich.console import Console
    from rich.table import Table

    from pasta_model.errors import FederationError

    try:
        lines = (run / "history.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
    except OSError as error:
        raise FederationError(f"{run}: no history.jsonl here; give the run's output folder") from error
    except ValueError as error:
        raise FederationError(f"{run}: history.jsonl is damaged ({error})") from error
    table = Table("round", "sites", "mean loss", "mean SUVR error", "seconds", "MB", "missing")
    for record in records:
        loss, mae = record["loss"].values(), record["valid_mae"].values()
        table.add_row(
            str(record["round"]),
            str(len(mae)),
            f"{sum(loss) / len(loss):.4f}" if loss else "-",
            f"{sum(mae) / len(mae):.4f}" if mae else "-",
            f"{record['seconds']:.1f}",
            f"{record['bytes'] / 1e6:.0f}",
            ", ".join(record["failures"]),
        )
    Console().print(table)


def main() -> None:
    """Entry point of `pasta-server`."""
    run_command(app)
