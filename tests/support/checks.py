# SPDX-License-Identifier: Apache-2.0
"""A kit, its coordinator's house and a server, and what `pasta-client check` finds wrong with them."""

import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from client.check import KIT, check_site
from client.checks.finding import Finding
from client.checks.house import AUDIT, LEDGER, POLICY, VERSIONS
from client.checks.machine import DEVICE, DISK, MEMORY, STORE
from client.checks.secrets import CERTIFICATE, CERTIFICATE_KEY, NODE_KEY
from client.checks.server import CLOCK, SERVER
from server.provision.steps import provision
from simulation.consortium import change_toml

EVERYTHING = [
    KIT,
    POLICY,
    STORE,
    DISK,
    DEVICE,
    MEMORY,
    CERTIFICATE,
    CERTIFICATE_KEY,
    NODE_KEY,
    SERVER,
    CLOCK,
    VERSIONS,
    LEDGER,
    AUDIT,
]


class Door(ThreadingHTTPServer):
    """A server that speaks mutual TLS; its clock and its answer can be set."""

    daemon_threads = True
    clock_s = 0.0
    status = 200

    def handle_error(self, *_: object) -> None:
        """A client that turns away is what some tests want."""


class Health(BaseHTTPRequestHandler):
    server: Door

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() + self.server.clock_s)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Scene(NamedTuple):
    """A kit, what the coordinator keeps, and the server."""

    kit: Path
    house: Path
    door: Door

    def change(self, **values: str) -> None:
        change_toml(self.kit / "site.toml", {name.replace("_", "-"): value for name, value in values.items()})


def make_consortium(root: Path, *, port: int = 9443) -> Path:
    plan = root / "plan.toml"
    root.mkdir()
    plan.write_text(
        f'[consortium]\nname = "north-sea"\nnames = ["localhost"]\nport = {port}\n'
        '[[sites]]\nname = "alder"\n[[sites]]\nname = "birch"\n'
    )
    provision(plan, root / "house")
    return root / "house"


def listen(door: Door, house: Path) -> None:
    trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=house / "authority" / "ca.crt")
    trust.verify_mode = ssl.CERT_REQUIRED
    trust.load_cert_chain(house / "server" / "server.crt", house / "server" / "server.key")
    door.socket = trust.wrap_socket(door.socket, server_side=True)
    threading.Thread(target=door.serve_forever, daemon=True).start()


def crosses(scene: Scene) -> dict[str, Finding]:
    """The crosses, when everything was looked at."""
    findings = list(check_site(scene.kit))
    assert [finding.check for finding in findings] == EVERYTHING
    return {finding.check: finding for finding in findings if not finding.good}


def only(found: dict[str, Finding], name: str) -> Finding:
    assert list(found) == [name]
    assert found[name].advice
    return found[name]
