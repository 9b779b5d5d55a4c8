# SPDX-License-Identifier: Apache-2.0
"""A Flower of our own: its home, its log, its commands, and how a run is followed to its end.

Flower's own commands do the work, as its users type them. A home of its own keeps what is there of
another Flower on the machine untouched.
"""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

from pasta_model.errors import FederationError

CONNECTION = "pasta"
COMPLETED = "finished:completed"
START_TIMEOUT_S = 60.0
HEALTH_TIMEOUT_S = 2.0
TAIL_LINES = 25
POLL_S = 0.5

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STARTED = re.compile(r"started run (\d+)")


@dataclass(frozen=True, kw_only=True)
class Flower:
    """Where a SuperLink of ours is reached, where its files are, and in which environment commands reach it.

    Attributes
    ----------
    state
        Flower's home: its connection, the bundles that it unpacked, the log.
    address
        Host and port of the SuperLink.
    authority
        The certificate that the SuperLink's own must be signed with; None is plain HTTP.
    environment
        Of all that is started for it.
    """

    state: Path
    address: str
    authority: Path | None = None
    environment: Mapping[str, str]

    @property
    def log(self) -> Path:
        """The file that keeps all that Flower and the apps said."""
        return self.state / "flower.log"

    def failure(self, what: str) -> FederationError:
        """Say what failed, with the end of the log and where the rest is."""
        tail = ""
        if self.log.is_file():
            with self.log.open(encoding="utf-8", errors="replace") as lines:
                tail = "".join(deque(lines, maxlen=TAIL_LINES)).rstrip()
        return FederationError(f"{what}\n--- last lines of {self.log}\n{tail}")

    def write_connection(self) -> None:
        """Tell Flower's commands where the SuperLink is."""
        trust = f'root-certificates = "{self.authority}"' if self.authority else "insecure = true"
        (self.state / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n'
            f'[superlink.{CONNECTION}]\naddress = "{self.address}"\n{trust}\n',
            encoding="utf-8",
        )

    def answers(self) -> bool:
        """Whether the SuperLink is there, with a certificate that is trusted."""
        try:
            with closing(self._connect()) as connection:
                connection.request("GET", "/health")
                return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False

    def _connect(self) -> HTTPConnection:
        if self.authority is None:
            return HTTPConnection(self.address, timeout=HEALTH_TIMEOUT_S)
        trust = ssl.create_default_context(cafile=self.authority)
        return HTTPSConnection(self.address, timeout=HEALTH_TIMEOUT_S, context=trust)

    def wait_until_healthy(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the SuperLink answers.

        Raises
        ------
        FederationError
            When it ends instead, or takes too long.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            if self.answers():
                return
            time.sleep(0.1)
        raise self.failure("Flower's SuperLink did not start")


def quiet_environment(state: Path) -> dict[str, str]:
    """Return the environment of all that we start: Flower at home in `state`, silent, nothing fetched."""
    scripts = Path(script("flwr")).parent
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(scripts), os.environ.get("PATH", os.defpath)]),  # for Flower's own parts
        "FLWR_HOME": str(state),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
    }


def script(name: str) -> str:
    """Return the path of a command that belongs to this Python's environment."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FederationError(f"the command {name!r} was not found: install 'flwr[simulation]' (make env)")
    return found


def to_toml(values: Mapping[str, bool | int | float | str]) -> str:
    """Write flat settings as TOML, whose scalars are spelt like JSON's."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def run_command(app: Path, settings: Path, options: Sequence[str] = ()) -> list[str]:
    """Return the `flwr run` command line, as a user would type it."""
    return [script("flwr"), "run", str(app), CONNECTION, "--stream", "--run-config", str(settings), *options]


def follow_run(flower: Flower, command: Sequence[str], tell: Callable[[str], None]) -> None:
    """Run `flwr run`, log and pass on what it streams, and return when the run has completed.

    Raises
    ------
    FederationError
        When the run is refused, does not complete, or the SuperLink is lost. The message ends with the
        last lines of the log.
    """
    run_id = _stream(flower, command, tell)
    status, details = _final_status(flower, run_id)
    if status != COMPLETED:
        raise flower.failure(f"the federation's run ended as {status!r}: {details}")


def _stream(flower: Flower, command: Sequence[str], tell: Callable[[str], None]) -> str:
    """Run `flwr run`, log and pass on what it streams, and return the number of the run."""
    run_id = ""
    with (
        flower.log.open("a", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=flower.state,
            env=flower.environment,
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
        raise flower.failure(f"`flwr run` failed with exit status {process.returncode}")
    return run_id


def _final_status(flower: Flower, run_id: str) -> tuple[str, str]:
    """Return how a run ended and why; `flwr run --stream` itself exits with 0 even when the run failed."""
    command = [script("flwr"), "ls", CONNECTION, "--run-id", run_id, "--format", "json"]
    while True:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=flower.state, env=flower.environment
        )
        if answer.returncode != 0:
            raise flower.failure(f"Flower's SuperLink was lost: {answer.stdout.strip()}")
        run = json.loads(answer.stdout)["runs"][0]
        if run["status"].startswith("finished"):
            return run["status"], run["status-details"]
        time.sleep(POLL_S)
