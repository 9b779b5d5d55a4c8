# SPDX-License-Identifier: Apache-2.0
"""Start Flower's SuperNode behind the gate, in this process."""

import json
import logging
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from client.approvals import read_approved
from client.audit import AuditLog
from client.kit import Kit, tls_context
from client.policy import read_policy
from client.tables import file_digest
from pasta_model.config import Scalar
from pasta_model.data.store import SiteStore
from pasta_model.errors import AuditError, ConfigError, FederationError
from pasta_model.files import write_text

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""Flower tells nobody that it runs, asks nobody for updates, and installs nothing."""


def start(kit: Kit) -> None:
    """Take part in the consortium until the process is stopped.

    Raises
    ------
    PastaError
        When the kit, the log or this Flower cannot be used, or the connection ends for good.
    """
    log = ready(kit)
    _refuse_taken_port(kit.guard.port)
    os.environ.update(environment(kit))
    shutil.rmtree(kit.flower / "apps", ignore_errors=True)  # bundles that were unpacked earlier
    kit.flower.mkdir(mode=0o700, parents=True, exist_ok=True)
    words = arguments(kit)

    from client.guard.gate import Gate
    from client.guard.seams import check_seams, guard_connection, guard_messages

    check_seams()
    gate = Gate(kit, log)
    guard_messages(gate.pull, gate.push)
    guard_connection(tls_context(kit))
    _log_our_words()
    started = {"event": "started", "site": kit.site.name, "flower": version("flwr")}
    log.append(
        {
            **started,
            "approved": sorted(read_approved(kit.guard.approved)),
            "policy": file_digest(kit.guard.policy),
        }
    )

    from flwr.supernode.cli.flower_supernode import flower_supernode

    sys.argv = ["flower-supernode", *words]
    try:
        flower_supernode()
    finally:
        _stop_flower()
    raise gate.failure or FederationError(
        "the connection to the server has ended; see above, and start again"
    )


def ready(kit: Kit) -> AuditLog:
    """Read everything that the guard will need, so that a mistake is told before Flower starts.

    Raises
    ------
    PastaError
        When one of them cannot be used, or somebody changed the log.
    """
    read_policy(kit.guard.policy)
    read_approved(kit.guard.approved)
    found = SiteStore(kit.site.store).site
    if found != kit.site.name:
        raise ConfigError(
            f"{kit.site.store}: is the store of site {found!r}, the kit is of {kit.site.name!r};"
            " name the right store in site.toml, or prepare it again with --site"
        )
    tls_context(kit)
    log = AuditLog(kit.guard.audit, site=kit.site.name, consortium=kit.site.consortium)
    chain = log.verify()
    if not chain.holds:
        raise AuditError(
            f"{log.path}: line {chain.broken_line} breaks the chain: {chain.reason}. Find out who changed it;"
            " then keep it and the files beside it aside, and start again: a new log begins"
        )
    return log


def environment(kit: Kit) -> dict[str, str]:
    """Return what Flower and its processes are to know: quiet, their own folder, our programs first."""
    programs = str(Path(sys.executable).parent)
    paths = [programs, *(p for p in os.environ.get("PATH", "").split(os.pathsep) if p != programs)]
    return {**QUIET, "FLWR_HOME": str(kit.flower), "PATH": os.pathsep.join(paths)}


def arguments(kit: Kit) -> list[str]:
    """Return the words after `flower-supernode`; what its code is told comes from the site alone."""
    told = kit.flower / "node.toml"
    write_text(told, _toml(kit.node_config))
    return [
        *("--superlink", kit.server.address),
        *("--root-certificates", str(kit.keys.authority)),
        *("--auth-supernode-private-key", str(kit.keys.node)),
        *("--host", "127.0.0.1"),
        *("--port", str(kit.guard.port)),
        *("--node-config", str(told)),
    ]


def _refuse_taken_port(port: int) -> None:
    """Say so before Flower does, which takes a page for it."""
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"port {port} of this machine is taken: is this site started already? Stop what listens"
                " there, or give another port under [guard] in site.toml"
            ) from error


def _toml(values: Mapping[str, Scalar]) -> str:
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())


def _log_our_words() -> None:
    """Send the guard's log to standard error, where Flower's goes, too."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s guard: %(message)s"))
    ours = logging.getLogger("client")
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(logging.INFO)


def _stop_flower() -> None:
    """Stop the threads that Flower would otherwise leave behind, for which this process would wait."""
    from flwr.supercore.exit.exit_handler import trigger_exit_handlers

    for early in (True, False):
        trigger_exit_handlers(run_before_force_exit=early)
