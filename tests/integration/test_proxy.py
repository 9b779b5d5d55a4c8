# SPDX-License-Identifier: Apache-2.0
"""The generated nginx.conf in front of an upstream that answers everything: who gets in, and how far."""

import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from server.provision.steps import provision, renew_site, revoke_site

NGINX = os.environ.get("PASTA_NGINX") or shutil.which("nginx") or ""
pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(NGINX).is_file(), reason="no nginx: install it, or `make nginx` and PASTA_NGINX=its path"
    ),
]
CHUNK = 6 * 2**20  # Flower's pieces are 5 MiB
MANY = 4 * CHUNK  # more than all buffers of a connection hold
REFUSED, NOT_HERE = 400, 404

NOT_OPEN = [
    "/",
    "/docs",
    "/openapi.json",
    "/v1/control/start-run",
    "/v1/runtime/acquire-task",
    "/v1/fleet",
    "/v1/fleet/",
    "/v1/Fleet/pull-messages",
    "/health/",
    "/health?x=1",
    "/health/../v1/control/start-run",
    "//v1/control/start-run",
    "//v1/fleet/pull-messages",
    "/v1//fleet/pull-messages",
    "/v1/fleet//pull-messages",
    "/./v1/control/start-run",
    "/v1/fleet/../control/start-run",
    "/v1/control/../fleet/pull-messages",
    "/v1/fleet/..%2fcontrol/start-run",
    "/v1/control/..%2ffleet/pull-messages",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/control/%2e%2e/fleet/pull-messages",
    "/v1/fleet/%2e%2e%2fcontrol%2fstart-run",
    "/v1%2ffleet%2f..%2fcontrol/start-run",
    "/v1/fleet%2f..%2fcontrol/start-run",
    "/v1/fleet/..;/control/start-run",
    "/v1/fleet/..\\control\\start-run",
    "/v1/fleet/%252e%252e/control/start-run",
    "/v1/fleet/x%00/../../control/start-run",
    "/v1/fleet/x?/../../control/start-run",
    "/v1/fleet/x#/../../control/start-run",
    "/%76%31/control/start-run",
    "/v1/control/start-run?/v1/fleet/x",
    "/v1/control/start-run#/v1/fleet/x",
    "https://localhost/v1/control/start-run",
    "https://localhost/v1/fleet/../control/start-run",
]


@dataclass
class Upstream:
    """What stands where SuperLink would: it answers every path, and remembers what reached it."""

    server: ThreadingHTTPServer
    seen: list[tuple[str, int]] = field(default_factory=list)  # (path, bytes of the body)


@dataclass
class Door:
    """nginx in front of an upstream, for a consortium in `folder`."""

    folder: Path
    port: int
    upstream: Upstream
    nginx: Callable[..., None]

    def ask(self, path: str, kit: Path | None = None, *, body: bytes = b"", late: float = 0.0) -> bytes:
        """Send a request as it is written, which an HTTP client would tidy, and return the whole answer."""
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        return self.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, kit, late=late)

    def send(self, request: bytes, kit: Path | None, *, late: float = 0.0) -> bytes:
        """Send bytes; read the answer after so many seconds, as who has a slow line."""
        context = ssl.create_default_context(cafile=self.folder / "authority" / "ca.crt")
        if kit:
            context.load_cert_chain(*certificate_of(kit))
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(request)
            time.sleep(late)
            return b"".join(iter(lambda: connection.recv(2**16), b""))

    def status(self, path: str, kit: Path | None = None) -> int:
        return int(self.ask(path, kit).split(b" ", 2)[1])

    def kit(self, site: str) -> Path:
        return self.folder / "kits" / site

    def errors(self) -> str:
        return (self.folder / "server" / "nginx" / "error.log").read_text(encoding="utf-8")


def certificate_of(kit: Path) -> tuple[Path, Path]:
    """A kit's certificate and key; or the server's own, which opens no door."""
    if kit.name == "server":
        return kit / "server.crt", kit / "server.key"
    return kit / "keys" / "client.crt", kit / "keys" / "client.key"


def consortium(folder: Path, ports: tuple[int, int]) -> Path:
    plan = folder.with_suffix(".toml")
    plan.write_text(
        f'[consortium]\nname = "north-sea"\nnames = ["127.0.0.1"]\nport = {ports[0]}\n'
        f"superlink-port = {ports[1]}\n"
        '[[sites]]\nname = "alder"\n[[sites]]\nname = "birch"\n',
        encoding="utf-8",
    )
    provision(plan, folder)
    return folder


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


@contextmanager
def answering(port: int, credentials: Path) -> Iterator[Upstream]:
    """Serve HTTPS on the loopback with the certificate of a server's folder."""

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            upstream.seen.append((self.path, len(self.rfile.read(length))))
            body = b"w" * MANY if self.path.endswith("pull-object") else b"upstream"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 - the name that http.server looks for

        def log_message(self, *words: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # nginx hangs up on a certificate that it does not trust

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate_of(credentials))
    upstream = Upstream(Quiet(("127.0.0.1", port), Answer))
    upstream.server.socket = context.wrap_socket(upstream.server.socket, server_side=True)
    thread = threading.Thread(target=upstream.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        upstream.server.shutdown()
        upstream.server.server_close()
        thread.join()


@contextmanager
def guarded(folder: Path, ports: tuple[int, int], *, credentials: Path | None = None) -> Iterator[Door]:
    """Run nginx as the README says, in front of an upstream."""
    server = folder / "server"
    command = [NGINX, "-e", "stderr", "-p", str(server), "-c", "nginx.conf"]

    def nginx(*words: str) -> None:
        subprocess.run([*command, *words], check=True, capture_output=True, timeout=30)

    with answering(ports[1], credentials or server) as upstream:
        nginx()
        try:
            yield Door(folder, ports[0], upstream, nginx)
        finally:
            nginx("-s", "stop")
            until(lambda: not (server / "nginx" / "nginx.pid").exists())


def until(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    ports = free_ports()
    with guarded(consortium(tmp_path / "dir", ports), ports) as door:
        yield door


def test_a_site_reaches_the_fleet_and_nothing_else(door: Door) -> None:
    alder = door.kit("alder")
    assert door.ask("/v1/fleet/get-run", alder).endswith(b"upstream")
    assert door.ask("/health", alder).endswith(b"upstream")
    statuses = {path: door.status(path, alder) for path in NOT_OPEN}
    # nginx itself refuses what is no path at all, such as one with a zero byte
    assert {path: status for path, status in statuses.items() if status not in (NOT_HERE, REFUSED)} == {}
    assert {path for path, status in statuses.items() if status == REFUSED} <= {
        "/v1/fleet/x%00/../../control/start-run"
    }
    assert [path for path, _ in door.upstream.seen] == ["/v1/fleet/get-run", "/health"]


def test_a_second_request_in_one_connection_is_looked_at_too(door: Door) -> None:
    first = b"GET /v1/fleet/get-run HTTP/1.1\r\nHost: localhost\r\n\r\n"
    second = b"GET /v1/control/start-run HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = door.send(first + second, door.kit("alder"))
    assert answer.count(b"HTTP/1.1 200") == 1
    assert answer.count(b"HTTP/1.1 404") == 1
    assert [path for path, _ in door.upstream.seen] == ["/v1/fleet/get-run"]


def test_pieces_of_weights_pass_both_ways_through_memory(door: Door) -> None:
    alder = door.kit("alder")
    answer = door.ask("/v1/fleet/push-object", alder, body=b"w" * CHUNK)
    assert answer.endswith(b"upstream")
    answer = door.ask("/v1/fleet/pull-object", alder, late=0.5)
    assert len(answer.partition(b"\r\n\r\n")[2]) == MANY
    assert door.upstream.seen == [("/v1/fleet/push-object", CHUNK), ("/v1/fleet/pull-object", 0)]
    assert "temporary file" not in door.errors()  # nginx warns when it writes one


def test_who_is_not_of_the_consortium_is_refused(door: Door, tmp_path: Path) -> None:
    others = consortium(tmp_path / "others", (1, 2))  # of the same name, with another authority
    strangers = (None, others / "kits" / "alder", door.folder / "server")
    for stranger in strangers:
        assert door.status("/v1/fleet/get-run", stranger) == REFUSED
        assert door.status("/health", stranger) == REFUSED
    assert door.upstream.seen == []


def test_a_revoked_site_is_refused_after_a_reload_and_the_others_are_not(door: Door, tmp_path: Path) -> None:
    kept = shutil.copytree(door.kit("alder"), tmp_path / "kept")
    assert door.status("/v1/fleet/get-run", kept) == 200
    revoke_site(door.folder, "alder")
    door.nginx("-s", "reload")
    until(lambda: door.status("/v1/fleet/get-run", kept) == REFUSED)
    assert door.status("/v1/fleet/get-run", door.kit("birch")) == 200


def test_a_renewed_certificate_opens_and_the_old_one_does_not(door: Door, tmp_path: Path) -> None:
    kept = shutil.copytree(door.kit("alder"), tmp_path / "kept")
    renew_site(door.folder, "alder", node_key=False)
    assert door.status("/v1/fleet/get-run", door.kit("alder")) == 200
    door.nginx("-s", "reload")
    until(lambda: door.status("/v1/fleet/get-run", kept) == REFUSED)
    assert door.status("/v1/fleet/get-run", door.kit("alder")) == 200


def test_an_upstream_that_is_not_the_consortiums_server_gets_nothing(tmp_path: Path) -> None:
    ports = free_ports()
    ours, others = consortium(tmp_path / "dir", ports), consortium(tmp_path / "others", (1, 2))
    with guarded(ours, ports, credentials=others / "server") as door:
        assert door.status("/v1/fleet/get-run", door.kit("alder")) == 502
        assert door.upstream.seen == []


def test_the_log_says_which_site_asked_for_what(door: Door) -> None:
    door.ask("/v1/fleet/get-run", door.kit("birch"))
    log = (door.folder / "server" / "nginx" / "access.log").read_text(encoding="utf-8")
    assert '"CN=birch,O=north-sea"' in log
    assert '"POST /v1/fleet/get-run HTTP/1.1" 200' in log
