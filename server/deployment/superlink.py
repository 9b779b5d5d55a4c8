# SPDX-License-Identifier: Apache-2.0
"""The SuperLink of a consortium: on this machine's loopback, with TLS, and only for invited keys."""

import logging
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pasta_model.errors import FederationError, PastaError
from pasta_model.locks import only_one
from server.deployment.control import UNREGISTERED, Control
from server.deployment.flower import script
from server.deployment.folder import Deployment
from server.deployment.processes import command_lines, stop_stranger, stop_tree

POLL_S = 1.0
logger = logging.getLogger(__name__)


@contextmanager
def deployed_superlink(deployment: Deployment) -> Iterator[subprocess.Popen[bytes]]:
    """Keep the SuperLink running, with every invited key registered; stop all of it at the end.

    Raises
    ------
    FederationError
        When it runs already, or does not start.
    """
    with only_one(deployment.database):
        _end_orphans(deployment)
        deployment.flower.write_connection()
        process = _start(deployment)
        try:
            deployment.flower.wait_until_healthy(process)
            admit(deployment)
            yield process
        finally:
            stop_tree(process)


def serve(deployment: Deployment, process: subprocess.Popen[bytes]) -> None:
    """Stay while the SuperLink runs; a change of the list of invited sites is heeded when it has settled.

    A key that was shut out is never taken again, so a list that is just being copied must not be believed.

    Raises
    ------
    FederationError
        When the SuperLink has ended.
    """
    heeded: tuple[int, int] | None = None  # once more at first: the list may have changed since the start
    seen = _state_of(deployment.invited)
    while process.poll() is None:
        time.sleep(POLL_S)
        before, seen = seen, _state_of(deployment.invited)
        if seen is not None and seen == before and seen != heeded:
            heeded = seen
            _heed(deployment)
    raise deployment.flower.failure(f"Flower's SuperLink ended with exit status {process.returncode}")


def admit(deployment: Deployment) -> None:
    """Register every invited key that is not yet, and unregister every other one.

    Doing it twice changes nothing. Flower never takes a key again that was shut out: it is told, and the
    others go on.
    """
    guests = {guest.key: (name, guest) for name, guest in deployment.guests().items()}
    if not guests:
        raise FederationError(
            f"{deployment.invited}: names no site; shutting out everybody cannot be undone, so nothing is"
            " changed. Copy the list again, or stop the SuperLink"
        )
    with Control(deployment.flower) as control:
        nodes = control.nodes()
        for key, node in nodes.items():
            if key not in guests and node.status != UNREGISTERED:
                control.unregister(node.number)
                logger.info("site %s is shut out", node.name)
        for key, (name, guest) in guests.items():
            if key not in nodes:
                control.register(name, guest.public_key)
                logger.info("site %s is admitted", name)
    gone = {key for key, node in nodes.items() if node.status == UNREGISTERED}
    dead = sorted(name for key, (name, _) in guests.items() if key in gone)
    for name in dead:
        logger.error(
            "site %s cannot come: Flower never takes a key again that was shut out; give it a new one with"
            " 'pasta-server renew-site --node-key' and send the kit",
            name,
        )


def _state_of(path: Path) -> tuple[int, int] | None:
    """Return when a file was written and how long it is; None while it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _heed(deployment: Deployment) -> None:
    try:
        admit(deployment)
    except PastaError as error:  # a slip in the list must not end the runs that are under way
        logger.error("the change of the invited sites is not heeded: %s", error)


def _start(deployment: Deployment) -> subprocess.Popen[bytes]:
    """Start the SuperLink in a session of its own: Ctrl-C reaches us, and we stop it."""
    flower, server = deployment.flower, deployment.folder / "server"
    host, _, port = flower.address.rpartition(":")
    command = [
        *(script("flower-superlink"), "--host", host, "--port", port),
        *("--ssl-ca-certfile", str(flower.authority)),
        *("--ssl-certfile", str(server / "server.crt"), "--ssl-keyfile", str(server / "server.key")),
        *("--database", str(deployment.database), "--enable-supernode-auth"),
        *("--isolation", "subprocess", "--disable-runtime-dependency-installation"),
    ]
    with flower.log.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=flower.state,
            env=flower.environment,
            start_new_session=True,
        )


def _end_orphans(deployment: Deployment) -> None:
    """Stop the SuperLink of a `pasta-server superlink` that was killed; nobody else holds the lock."""
    for pid, command in command_lines().items():
        if "flower-superlink" in command and f"--database {deployment.database} " in command:
            logger.warning("a SuperLink that lost its parent is stopped first")
            stop_stranger(pid)
