# SPDX-License-Identifier: Apache-2.0
"""Start a real Flower simulation and wait for its end.

Flower's own commands do the work, as its users type them: a SuperLink in simulation mode, `flwr run`
and `flwr ls`. What runs is the bundle that a hospital would receive: the apps work in the state
folder, and what they import is the bundle's copy of the packages.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from simulation.processes import terminate_as_exit
from simulation.superlink import CONNECTION, SuperLink, script, superlink

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STARTED = re.compile(r"started run (\d+)")


def run_simulation(
    app: Path,
    *,
    run_config: Mapping[str, bool | int | float | str],
    nodes: int,
    state: Path,
    cpus_per_node: int = 1,
    gpus_per_node: float = 0.0,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run the Flower app in `app` on simulated nodes, and return when it has completed.

    Parameters
    ----------
    app : Path
        The folder with the `pyproject.toml` of the app.
    run_config : Mapping[str, bool | int | float | str]
        What to change in `[tool.flwr.app.config]`. Give paths absolute.
    nodes : int
        How many nodes to simulate.
    state : Path
        A folder for Flower's files and `flower.log`; it is made when it is missing.
    cpus_per_node : int
        CPU cores, and threads of torch, that a node has while it works.
    gpus_per_node : float
        GPUs, or the share of one, that a node has while it works; with 0 it sees none.
    on_line : Callable[[str], None], optional
        Is given each line that the run writes, without colours.

    Raises
    ------
    FederationError
        When the simulation cannot start or its run does not complete. The message ends with the last
        lines of the log.
    """
    with terminate_as_exit(), superlink(state.resolve()) as link:
        settings = link.state / "run-config.toml"
        settings.write_text(to_toml(run_config), encoding="utf-8")
        command = run_command(
            app.resolve(), settings, nodes=nodes, cpus_per_node=cpus_per_node, gpus_per_node=gpus_per_node
        )
        run_id = _stream(link, command, on_line or (lambda _: None))
        status, details = _final_status(link, run_id)
        if status != "finished:completed":
            raise link.failure(f"the federation's run ended as {status!r}: {details}")


def run_command(
    app: Path, settings: Path, *, nodes: int, cpus_per_node: int = 1, gpus_per_node: float = 0.0
) -> list[str]:
    """Return the `flwr run` command line, as a user would type it."""
    # Ray starts one process for every `cpus_per_node` of the machine, needed or not: give it no more.
    cpus = max(cpus_per_node, min(os.cpu_count() or 1, nodes * cpus_per_node))
    federation = {
        "num-supernodes": nodes,
        "client-resources-num-cpus": cpus_per_node,
        "client-resources-num-gpus": gpus_per_node,
        "init-args-num-cpus": cpus,
    }
    options = " ".join(f"{key}={value}" for key, value in federation.items())
    command = [script("flwr"), "run", str(app), CONNECTION, "--stream"]
    return [*command, "--run-config", str(settings), "--federation-config", options]


def to_toml(values: Mapping[str, bool | int | float | str]) -> str:
    """Write flat settings as TOML, whose scalars are spelt like JSON's."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def _stream(link: SuperLink, command: list[str], tell: Callable[[str], None]) -> str:
    """Run `flwr run`, log and pass on what it streams, and return the number of the run."""
    run_id = ""
    with (
        link.log.open("a", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=link.state,
            env=link.environment,
        ) as process,
    ):
        try:
            for raw in process.stdout or ():
                line = _ANSI.sub("", raw.rstrip())
                log.write(f"{line}\n")
                started = _STARTED.search(line)
                run_id = run_id or (started[1] if started else "")
                tell(line)
        finally:
            process.kill()  # on an exception; a process that has ended takes no harm
    if process.returncode != 0 or not run_id:
        raise link.failure(f"`flwr run` failed with exit status {process.returncode}")
    return run_id


def _final_status(link: SuperLink, run_id: str) -> tuple[str, str]:
    """Return how a run ended and why; `flwr run --stream` itself exits with 0 even when the run failed."""
    command = [script("flwr"), "ls", CONNECTION, "--run-id", run_id, "--format", "json"]
    while True:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=link.state, env=link.environment
        )
        if answer.returncode != 0:
            raise link.failure(f"Flower's SuperLink was lost: {answer.stdout.strip()}")
        run = json.loads(answer.stdout)["runs"][0]
        if run["status"].startswith("finished"):
            return run["status"], run["status-details"]
        time.sleep(0.5)
