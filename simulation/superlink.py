# SPDX-License-Identifier: Apache-2.0
"""A SuperLink of our own: Flower's coordinator in simulation mode, for as long as a block lasts.

It has its own port, Flower home and Ray folder, so that no other Flower on the machine is touched.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pasta_model.errors import FederationError
from simulation.processes import free_port, stop_tree

CONNECTION = "pasta"
START_TIMEOUT_S = 60.0
TAIL_LINES = 25


@dataclass(frozen=True, kw_only=True)
class SuperLink:
    """A SuperLink that runs: where its files are, and the environment in which commands reach it."""

    state: Path
    port: int
    environment: Mapping[str, str]

    @property
    def log(self) -> Path:
        """The file that keeps all that Flower and the apps said."""
        return self.state / "flower.log"

    def failure(self, what: str) -> FederationError:
        """Say what failed, with the end of the log and where the rest is."""
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            tail = "".join(deque(lines, maxlen=TAIL_LINES)).rstrip()
        return FederationError(f"{what}\n--- last lines of {self.log}\n{tail}")


@contextmanager
def superlink(state: Path) -> Iterator[SuperLink]:
    """Keep a SuperLink running; stop it and all that it started at the end, however the block ends."""
    state.mkdir(parents=True, exist_ok=True)
    port = free_port()
    # Ray names sockets in its folder, and the path of a socket has room for about 100 characters.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as ray:
        link = SuperLink(state=state, port=port, environment=environment(state, ray=Path(ray)))
        (state / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n'
            f'[superlink.{CONNECTION}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n',
            encoding="utf-8",
        )
        process = _start(link)
        try:
            _wait_until_healthy(process, link)
            yield link
        finally:
            stop_tree(process)


def environment(state: Path, *, ray: Path) -> dict[str, str]:
    """Return the environment of the simulation: Flower at home in `state`, silent, nothing fetched."""
    scripts = Path(script("flwr")).parent
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(scripts), os.environ.get("PATH", os.defpath)]),  # for Flower's own parts
        "FLWR_HOME": str(state),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
        "RAY_COLOR_PREFIX": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_TMPDIR": str(ray),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def script(name: str) -> str:
    """Return the path of a command that belongs to this Python's environment."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FederationError(f"the command {name!r} was not found: install 'flwr[simulation]' (make env)")
    return found


def _start(link: SuperLink) -> subprocess.Popen[bytes]:
    """Start the SuperLink in a session of its own: Ctrl-C reaches us, and we stop it."""
    command = [script("flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess"]
    command += ["--host", "127.0.0.1", "--port", str(link.port)]
    with link.log.open("wb") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, cwd=link.state, env=link.environment, start_new_session=True
        )


def _wait_until_healthy(process: subprocess.Popen[bytes], link: SuperLink) -> None:
    """Wait until the SuperLink answers."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{link.port}/health", timeout=1.0):
                return
        except OSError:
            time.sleep(0.1)
    raise link.failure("Flower's SuperLink did not start")
