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
for command in (add_site, renew_site, renew_server, revoke_site, superlink, run):
    app.command()(resumable(command))
for command in (status, rounds):
    app.command()(command)


def main() -> None:
    """Entry point of `pasta-server`."""
    run_command(app)
