# SPDX-License-Identifier: Apache-2.0
"""`pasta-server superlink`: the coordinator's side of a consortium, in the foreground."""

from pathlib import Path
from typing import Annotated

from typer import Argument

Folder = Annotated[Path, Argument(help="The consortium's folder, made by 'pasta-server provision'.")]


def superlink(folder: Folder) -> None:
    """Keep the consortium's SuperLink running; Ctrl-C stops it and all that it started."""
    import logging

    from rich.console import Console

    from pasta_model.console import log_to_console
    from server.deployment.folder import Deployment
    from server.deployment.processes import terminate_as_exit
    from server.deployment.superlink import deployed_superlink, serve

    log_to_console(verbose=False)
    logging.getLogger("server").setLevel(logging.INFO)
    console = Console(soft_wrap=True)
    deployment = Deployment.at(folder)
    with terminate_as_exit(), deployed_superlink(deployment) as process:
        console.print(
            f"ready on {deployment.flower.address} for {len(deployment.guests())} invited site(s);"
            f" Flower's log: {deployment.flower.log}"
        )
        console.print(f"a run is started with 'pasta-server run RUN.toml --consortium {deployment.folder}'")
        serve(deployment, process)
