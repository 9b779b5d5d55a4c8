# SPDX-License-Identifier: Apache-2.0
"""`pasta-server`: the coordinator leads a consortium, and looks at its runs."""

import typer

from pasta_model.console import resumable, run_command
from server.commands.provision import add_site, provision, renew_server, renew_site, revoke_site
from server.commands.run import run
from server.commands.status import rounds, status
from server.commands.superlink import superlink

app = typer.Typer(
    help="The coordinator: a consortium's server, its runs, what came of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.command()(provision)
app.command()(resumable(add_site))
app.command()(resumable(renew_site))
app.command()(resumable(renew_server))
app.command()(resumable(revoke_site))
app.command()(resumable(superlink))
app.command()(resumable(run))
app.command()(status)
app.command()(rounds)


def main() -> None:
    """Entry point of `pasta-server`."""
    run_command(app)
