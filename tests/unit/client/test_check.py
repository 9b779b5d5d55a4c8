# SPDX-License-Identifier: Apache-2.0
"""`pasta-client check`: one thing is broken at a time, and that one has a cross; several have several."""

import json
import shutil
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import client.cli
import pasta_model.costs
from client import check as check_module
from client.audit import AuditLog
from client.check import KIT, check_site
from client.checks import house, machine
from client.checks.finding import Finding
from client.checks.house import AUDIT, LEDGER, POLICY, VERSIONS
from client.checks.machine import DEVICE, DISK, MEMORY, STORE
from client.checks.secrets import CERTIFICATE, CERTIFICATE_KEY, NODE_KEY, check_certificate
from client.checks.server import CLOCK, SERVER
from client.kit import read_kit
from pasta_model.config import Settings, settings_from_flat
from pasta_model.costs import TrainingMemory, wire_bytes
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


def step_memory(settings: Settings, *, batch_size: int) -> TrainingMemory:
    """Stands for the estimate, which takes a while: 7 GB, or 2 where it is frugal."""
    assert settings.data.spacing == 3.0, "as the store's"
    frugal = settings.training.checkpointing and batch_size == 1
    return TrainingMemory(0, 0, 0, int(2e9 if frugal else 7e9))


@pytest.fixture
def scene(
    tmp_path: Path, make_store: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    monkeypatch.setattr(pasta_model.costs, "training_memory", step_memory)
    monkeypatch.setattr(machine, "memory_of", lambda _: 8e9)
    make_store("alder")
    make_store("birch")
    with Door(("127.0.0.1", 0), Health) as door:
        found = make_consortium(tmp_path / "north-sea", port=door.server_port)
        scene = Scene(found / "kits" / "alder", found, door)
        scene.change(store=f'"{tmp_path / "sites" / "alder"}"', size='"tiny"')
        change_toml(scene.kit / "policy.toml", {"min-subjects": "3"})
        listen(door, found)
        yield scene
        door.shutdown()


def crosses(scene: Scene) -> dict[str, Finding]:
    """The crosses, when everything was looked at."""
    findings = list(check_site(scene.kit))
    assert [finding.check for finding in findings] == EVERYTHING
    return {finding.check: finding for finding in findings if not finding.good}


def only(found: dict[str, Finding], name: str) -> Finding:
    assert list(found) == [name]
    assert found[name].advice
    return found[name]


def test_site_that_is_ready_has_ticks_only(scene: Scene) -> None:
    assert crosses(scene) == {}
    found = {finding.check: finding.found for finding in check_site(scene.kit)}
    assert found[STORE] == "subjects: 3 train, 1 valid, 0 test; 3 mm"
    assert found[NODE_KEY] == "secp384r1, readable by its owner only"
    assert found[AUDIT] == "empty so far"
    assert found[LEDGER] == "empty so far: no private run was here"
    assert "torch" in found[VERSIONS]


class TestData:
    def test_no_store(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        scene.change(store='"nowhere"')
        monkeypatch.setattr(check_module, "FINEST_MM", 3.0)  # what the stand-in knows
        assert "nowhere" in only(crosses(scene), STORE).found

    def test_another_sites_store(self, scene: Scene, tmp_path: Path) -> None:
        scene.change(store=f'"{tmp_path / "sites" / "birch"}"')
        found = only(crosses(scene), STORE)
        assert found.found == "it is site 'birch', the kit is for 'alder'"
        assert "--site alder" in found.advice

    def test_fewer_subjects_than_the_policy_wants(self, scene: Scene) -> None:
        change_toml(scene.kit / "policy.toml", {"min-subjects": "4"})
        assert "wants at least 4 to train" in only(crosses(scene), STORE).found

    def test_policy_that_cannot_be_read_hides_no_other_check(self, scene: Scene) -> None:
        change_toml(scene.kit / "policy.toml", {"max-rounds": '"many"'})
        assert "max-rounds" in only(crosses(scene), POLICY).found + only(crosses(scene), POLICY).advice

    def test_policy_that_wants_privacy(self, scene: Scene) -> None:
        change_toml(scene.kit / "policy.toml", {"privacy-required": "true"})
        assert not [c for c in crosses(scene) if c.check == POLICY]

    def test_log_that_was_changed(self, scene: Scene) -> None:
        kit = read_kit(scene.kit)
        log = AuditLog(kit.guard.audit, site="alder", consortium="north-sea")
        for number in range(3):
            log.append({"event": "noted", "what": number})
        assert crosses(scene) == {}
        text = kit.guard.audit.read_text()
        kit.guard.audit.write_text(text.replace('"what":1', '"what":7'))
        assert "line 2" in only(crosses(scene), AUDIT).found


class TestMachine:
    def test_disk_that_is_full(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        needed = 18 * wire_bytes(settings_from_flat({"network.size": "tiny"}))
        usage = shutil.disk_usage(scene.kit)
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage._replace(free=needed))
        assert crosses(scene) == {}
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
        assert "free " in only(crosses(scene), DISK).advice

    def test_device_that_is_missing(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        scene.change(device='"cuda"')
        assert "'cuda' is not on this machine" in only(crosses(scene), DEVICE).found

    @pytest.mark.parametrize(
        ("available", "advice"),
        [(7e9, "training.checkpointing and batches of one (3.0 GB)"), (2e9, "a machine with more memory")],
    )
    def test_memory_that_is_short(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch, available: float, advice: str
    ) -> None:
        monkeypatch.setattr(machine, "memory_of", lambda _: available)
        found = only(crosses(scene), MEMORY)
        assert advice in found.advice
        assert "a training step of size tiny takes 8.0 GB" in found.found

    def test_memory_of_scans_that_cannot_be_read_is_that_of_the_finest(self, scene: Scene) -> None:
        scene.change(store='"nowhere"')
        assert check_module._spacing(read_kit(scene.kit, files=False)) == 1.5

    def test_memory_heeds_a_containers_limit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        limit = tmp_path / "memory.max"
        monkeypatch.setattr(machine, "_CGROUP_LIMITS", (str(limit),))
        limit.write_text("max\n")
        free = machine.memory_of("cpu")
        assert free > 1e8
        limit.write_text("12345\n")
        assert machine.memory_of("cpu") == 12345

    def test_other_versions(self, scene: Scene) -> None:
        text = (scene.kit / "site.toml").read_text()
        (scene.kit / "site.toml").write_text(f'{text.partition("[versions]")[0]}[versions]\ntorch = "0.1"\n')
        found = only(crosses(scene), VERSIONS)
        assert found.found == f"torch {torch.__version__.split('+')[0]}"
        assert found.advice.startswith("pip install torch==0.1;")

    def test_missing_package_and_a_kit_that_tells_no_versions(self) -> None:
        (found,) = house.check_versions({"no-such-package": "1"})
        assert (found.good, found.found) == (False, "no-such-package missing")
        (found,) = house.check_versions({})
        assert found.good


class TestKeys:
    @pytest.mark.parametrize(
        ("name", "check"), [("node.key", NODE_KEY), ("client.key", CERTIFICATE_KEY)], ids=["node", "client"]
    )
    def test_others_can_read_a_key(self, scene: Scene, name: str, check: str) -> None:
        key = scene.kit / "keys" / name
        key.chmod(0o640)
        assert only(crosses(scene), check).advice == f"chmod 600 {key}"

    def test_node_key_that_is_none(self, scene: Scene) -> None:
        (scene.kit / "keys" / "node.key").write_text("-----BEGIN NOTHING-----\n")
        assert "wanted an elliptic curve's" in only(crosses(scene), NODE_KEY).found

    def test_key_of_another_certificate(self, scene: Scene) -> None:
        shutil.copy(scene.house / "kits" / "birch" / "keys" / "client.key", scene.kit / "keys")
        found = crosses(scene)
        assert found[CERTIFICATE_KEY].found == "it belongs to another certificate"
        assert list(found) == [CERTIFICATE_KEY, SERVER, CLOCK], "with it nobody can be called"

    def test_certificate_of_another_site(self, scene: Scene) -> None:
        for name in ("client.key", "client.crt"):
            shutil.copy(scene.house / "kits" / "birch" / "keys" / name, scene.kit / "keys")
        assert only(crosses(scene), CERTIFICATE).found == "it is for birch, the kit for alder"

    def test_certificate_of_another_authority(self, scene: Scene, tmp_path: Path) -> None:
        other = make_consortium(tmp_path / "south-sea")
        for name in ("client.key", "client.crt"):
            shutil.copy(other / "kits" / "alder" / "keys" / name, scene.kit / "keys")
        found = crosses(scene)
        assert found[CERTIFICATE].found == "it was not signed by keys/ca.crt"
        assert list(found) == [CERTIFICATE, SERVER, CLOCK]
        assert "refused the connection" in found[SERVER].found

    @pytest.mark.parametrize(
        ("days", "good", "said"),
        [(-2, False, "not valid before"), (340, True, ""), (366, False, "it expired on")],
    )
    def test_certificate_in_time(self, scene: Scene, days: int, good: bool, said: str) -> None:
        keys = read_kit(scene.kit).keys
        then = datetime.now(UTC) + timedelta(days=days)
        own = {"key": keys.certificate_key, "authority": keys.authority, "site": "alder"}
        found = next(check_certificate(keys.certificate, **own, now=then))
        assert found.good == good
        assert said in found.found
        assert found.advice.startswith("soon: ") == (days == 340), "in its last month a tick says so, too"


class TestServer:
    @pytest.mark.parametrize(
        ("seconds", "good"), [(0, True), (200, True), (-2, True), (400, False), (-60, False)]
    )
    def test_clock(self, scene: Scene, seconds: float, good: bool) -> None:
        """The server's clock is so many seconds ahead of ours."""
        scene.door.clock_s = seconds
        found = crosses(scene)
        if good:
            assert found == {}
        else:
            said = f"s {'behind' if seconds > 0 else 'ahead of'} the server's"
            assert said in only(found, CLOCK).found

    @pytest.mark.parametrize(
        ("status", "said"),
        [
            (400, "does not take this site's certificate"),
            (502, "SuperLink behind it does not run"),
            (404, "answers 404"),
        ],
    )
    def test_answers_that_are_none(self, scene: Scene, status: int, said: str) -> None:
        scene.door.status = status
        assert said in only(crosses(scene), SERVER).found

    def test_nobody_listens(self, scene: Scene) -> None:
        scene.door.shutdown()
        scene.door.server_close()
        found = crosses(scene)
        assert list(found) == [SERVER, CLOCK]
        assert "cannot be reached" in found[SERVER].found

    def test_server_of_another_authority(self, scene: Scene, tmp_path: Path) -> None:
        other = make_consortium(tmp_path / "south-sea")
        shutil.copy(other / "authority" / "ca.crt", scene.kit / "keys" / "ca.crt")
        found = crosses(scene)
        assert list(found) == [CERTIFICATE, SERVER, CLOCK]
        assert "is not who it should be" in found[SERVER].found
        assert found[SERVER].advice.startswith("do not join")

    def test_server_under_another_name(self, scene: Scene) -> None:
        scene.change(address=f'"127.0.0.2:{scene.door.server_port}"')
        scene.door.socket.close()
        with Door(("127.0.0.2", scene.door.server_port), Health) as door:
            listen(door, scene.house)
            found = crosses(scene)
            door.shutdown()
        assert list(found) == [SERVER, CLOCK]
        assert "is not who it should be" in found[SERVER].found


def test_check_that_breaks_is_a_cross_and_hides_no_other(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Path) -> Iterator[Finding]:
        raise RuntimeError("what nobody thought of")
        yield

    monkeypatch.setattr(check_module, "check_node_key", broken)
    scene.door.clock_s = 400
    found = crosses(scene)
    assert list(found) == [NODE_KEY, CLOCK]
    assert found[NODE_KEY].found == "RuntimeError: what nobody thought of"


def test_kit_that_cannot_be_read(tmp_path: Path) -> None:
    (found,) = check_site(tmp_path)
    assert (found.check, found.good) == (KIT, False)
    assert "cannot be read" in found.found


class TestCommand:
    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        def run(*words: object) -> tuple[int, str]:
            monkeypatch.setenv("COLUMNS", "300")
            monkeypatch.setattr(sys, "argv", ["pasta-client", "check", *map(str, words)])
            with pytest.raises(SystemExit) as stop:
                client.cli.main()
            return int(stop.value.code or 0), capsys.readouterr().out

        return run

    def test_ready(self, scene: Scene, run) -> None:
        status, out = run(scene.kit)
        assert status == 0
        assert out.count("✓") == len(EVERYTHING)
        assert "✗" not in out
        assert "ready to join" in out

    def test_not_ready(self, scene: Scene, run) -> None:
        scene.door.clock_s = 400
        (scene.kit / "keys" / "node.key").chmod(0o644)
        status, out = run(scene.kit)
        assert (status, out.count("✗")) == (2, 2)
        assert "chmod 600" in out
        assert "timedatectl" in out
        assert "not ready: 2 cross(es)" in out

    def test_for_programs(self, scene: Scene, run) -> None:
        status, out = run(scene.kit, "--json")
        told = json.loads(out)
        assert (status, told["ready"]) == (0, True)
        assert [finding["check"] for finding in told["findings"]] == EVERYTHING
