# SPDX-License-Identifier: Apache-2.0
"""A run of a consortium, from the coordinator's file of settings to its true end.

The same command begins a run and goes on with one: the server keeps each completed round, so a run
whose server was killed goes on from there.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pasta_model.config import Scalar, Settings, settings_from_flat
from pasta_model.errors import ConfigError, FederationError
from pasta_model.locks import only_one
from server.deployment.control import Control
from server.deployment.flower import follow_run, run_command, to_toml
from server.deployment.folder import Deployment
from server.invitations import invitations


def launch(
    deployment: Deployment, settings: Settings, *, app: Path, tell: Callable[[str], None] = lambda _: None
) -> None:
    """Run a federation on the consortium's sites, and return when the run has completed.

    Parameters
    ----------
    deployment
        The consortium, whose SuperLink runs.
    settings
        Of the run; see `deployed_settings`.
    app
        The folder with the `pyproject.toml` of the app: what the sites have approved.
    tell
        Is given each line that the run writes, without colours.

    Raises
    ------
    FederationError
        When the SuperLink is not there, another command leads the same run, or the run does not complete.
    CheckpointError
        When the run would begin with a model (`run.initial`) that it cannot begin with.
    PrivacyError
        When noise at the server could not keep the run's promise.
    """
    _refuse_impossible(settings)
    flower = deployment.flower
    if not flower.answers():
        raise FederationError(
            f"no SuperLink answers at {flower.address}; start it with"
            f" 'pasta-server superlink {deployment.folder}' and try again"
        )
    tell(f"the bundle is {bundle_hash(app)}; a site runs it once it has approved this hash")
    output = Path(settings.run.output)
    with only_one(output.with_name(f"{output.name}.command")):
        _stop_earlier(deployment, settings.run.output, tell)
        path = flower.state / f"run-{hashlib.sha256(settings.run.output.encode()).hexdigest()[:12]}.toml"
        path.write_text(to_toml(settings.flat()), encoding="utf-8")
        try:
            follow_run(flower, run_command(app.resolve(), path), tell)
        except (KeyboardInterrupt, SystemExit):
            with suppress(FederationError):  # the SuperLink may be gone, too
                _stop_earlier(deployment, settings.run.output, tell)
            raise


def _refuse_impossible(settings: Settings) -> None:
    """Refuse what the run itself would refuse, before it is begun; PyTorch is loaded for nothing else."""
    if settings.run.initial:
        from server.start import refuse_bad_start

        refuse_bad_start(settings)
    if settings.privacy.unit == "site":
        from server.privacy import site_noise

        site_noise(settings, sites=invitations(settings).sites)


def deployed_settings(settings: Settings, deployment: Deployment) -> Settings:
    """Return the settings as they are deployed: resumable, in absolute places, for invited sites."""
    changes: dict[str, Scalar] = {
        "run.output": str(Path(settings.run.output).resolve()),
        "run.initial": str(Path(settings.run.initial).resolve()) if settings.run.initial else "",
        "run.resume": True,
        "federation.invited": str(deployment.invited),
    }
    return settings_from_flat({**settings.flat(), **changes})


def app_folder(given: Path | None) -> Path:
    """Return the folder of the app: the one given, or the one that this code was installed from.

    Raises
    ------
    ConfigError
        When there is none.
    """
    folder = given or Path(__file__).resolve().parents[2]
    if not (folder / "pyproject.toml").is_file():
        raise ConfigError(
            f"{folder}: no pyproject.toml of an app here; give the folder of the checkout with --app"
        )
    return folder


def bundle_hash(app: Path) -> str:
    """Return the SHA-256 of the app's bundle, which each site approves."""
    from flwr.cli.build import build_fab_from_disk

    return hashlib.sha256(build_fab_from_disk(app)).hexdigest()


def _stop_earlier(deployment: Deployment, output: str, tell: Callable[[str], None]) -> None:
    """Stop runs that the SuperLink believes to be writing to `output`: two would spoil it."""
    with Control(deployment.flower) as control:
        for run in control.unfinished_runs():
            if run.output == output:
                tell(f"run {run.number}, which was under way here, is stopped")
                control.stop(run.number)
