# SPDX-License-Identifier: Apache-2.0
"""Start a real Flower simulation and wait for its end.

Flower's own commands do the work, as its users type them: a SuperLink in simulation mode, `flwr run`
and `flwr ls`. What runs is the bundle that a hospital would receive: the apps work in the state
folder, and what they import is the bundle's copy of the packages.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from server.deployment import flower
from server.deployment.flower import follow_run, to_toml
from server.deployment.processes import terminate_as_exit
from simulation.superlink import superlink


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
        follow_run(link, command, on_line or (lambda _: None))


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
    return flower.run_command(app, settings, ["--federation-config", options])
