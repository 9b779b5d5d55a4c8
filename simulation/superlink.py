# SPDX-License-Identifier: Apache-2.0
"""A SuperLink in simulation mode, for as long as a block lasts.

It has its own port, Flower home and Ray folder, so that no other Flower on the machine is touched.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.deployment.flower import Flower, quiet_environment, script
from server.deployment.processes import free_port, stop_tree


@contextmanager
def superlink(state: Path) -> Iterator[Flower]:
    """Keep a SuperLink running; stop it and all that it started at the end, however the block ends."""
    state.mkdir(parents=True, exist_ok=True)
    # Ray names sockets in its folder, and the path of a socket has room for about 100 characters.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as ray:
        link = Flower(
            state=state, address=f"127.0.0.1:{free_port()}", environment=environment(state, ray=Path(ray))
        )
        link.write_connection()
        process = _start(link)
        try:
            link.wait_until_healthy(process)
            yield link
        finally:
            stop_tree(process)


def environment(state: Path, *, ray: Path) -> dict[str, str]:
    """Return the environment of the simulation: Flower at home in `state`, silent, nothing fetched."""
    return {
        **quiet_environment(state),
        "RAY_COLOR_PREFIX": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_TMPDIR": str(ray),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _start(link: Flower) -> subprocess.Popen[bytes]:
    """Start the SuperLink in a session of its own: Ctrl-C reaches us, and we stop it."""
    host, _, port = link.address.rpartition(":")
    command = [script("flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess"]
    command += ["--host", host, "--port", port]
    with link.log.open("wb") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, cwd=link.state, env=link.environment, start_new_session=True
        )
