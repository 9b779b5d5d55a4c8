# SPDX-License-Identifier: Apache-2.0
"""`pasta-server run`: a federation on the consortium's sites, begun or gone on with."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

Settings = Annotated[Path, Argument(help="A TOML file with the run's settings, one table a section.")]
Consortium = Annotated[Path, Option(help="The consortium's folder, made by 'pasta-server provision'.")]
App = Annotated[Path | None, Option(help="The app's folder; by default the one this was installed from.")]


def run(settings: Settings, *, consortium: Consortium, app: App = None) -> None:
    """Run a federation on the invited sites; the same command goes on with one that was interrupted."""
    from rich.console import Console

    from pasta_model.config import settings_from_toml
    from server.deployment.folder import Deployment
    from server.deployment.launcher import app_folder, deployed_settings, launch
    from server.deployment.processes import terminate_as_exit

    console = Console(soft_wrap=True)
    deployment = Deployment.at(consortium)
    deployed = deployed_settings(settings_from_toml(settings), deployment)
    with terminate_as_exit():
        launch(
            deployment,
            deployed,
            app=app_folder(app),
            tell=lambda line: console.print(line, markup=False, highlight=False),
        )
    console.print(f"completed: {deployed.run.output}", markup=False, highlight=False)
