# SPDX-License-Identifier: Apache-2.0
"""A SuperLink as the coordinator starts it, and whom it admits, with a script in the place of Flower's."""

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from pasta_model.errors import BusyError, FederationError
from server.deployment import superlink as superlink_module
from server.deployment.control import Node
from server.deployment.folder import Deployment
from server.deployment.processes import running
from server.deployment.superlink import admit, deployed_superlink, serve
from server.provision.consortium import site_entry
from server.provision.registry import read_invited
from server.provision.steps import add_site, revoke_site
from tests.support.deployed import FakeControl


def started(deployment: Deployment) -> dict[str, object]:
    import json

    path = deployment.flower.state / "started.json"
    while not path.exists() or not path.read_text().endswith("}"):
        time.sleep(0.02)
    return json.loads(path.read_text())


class TestSuperLink:
    def test_is_started_for_this_machine_only_and_knows_its_nodes(
        self, deployment: Deployment, flower: Callable[..., None], control: FakeControl
    ) -> None:
        with deployed_superlink(deployment) as process:
            told = started(deployment)
            assert told["pid"] == process.pid
            assert sorted(node.name for node in control.known.values()) == ["alder", "birch"]
        words = list(map(str, told["words"]))
        options = dict(pairwise(words))
        server = deployment.folder / "server"
        assert (options["--host"], options["--port"]) == ("127.0.0.1", "12345")
        assert options["--ssl-certfile"] == str(server / "server.crt")
        assert options["--database"] == str(server / "state.db")
        assert {"--enable-supernode-auth", "--disable-runtime-dependency-installation"} <= set(words)
        assert "--insecure" not in words
        environment = told["environment"]
        assert environment["FLWR_HOME"] == str(server / "flower")
        assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
        assert process.pid not in running()

    def test_two_at_once_are_refused(
        self, deployment: Deployment, flower: Callable[..., None], control: FakeControl
    ) -> None:
        with (
            deployed_superlink(deployment),
            pytest.raises(BusyError, match="another process is at work"),
            deployed_superlink(deployment),
        ):
            pass

    def test_one_whose_parent_was_killed_is_stopped_first(
        self, deployment: Deployment, flower: Callable[..., None], control: FakeControl
    ) -> None:
        orphan = superlink_module._start(deployment)
        started(deployment)
        with deployed_superlink(deployment) as process:
            assert orphan.wait() == -signal.SIGTERM
            assert process.pid in running()

    def test_its_end_is_told_with_its_last_words(
        self, deployment: Deployment, flower: Callable[..., None], control: FakeControl
    ) -> None:
        with deployed_superlink(deployment) as process:
            started(deployment)
            while "was here" not in deployment.flower.log.read_text():
                time.sleep(0.02)
            process.kill()
            with pytest.raises(FederationError, match=r"(?s)exit status -9.*a SuperLink was here"):
                serve(deployment, process)


class TestAdmission:
    def test_twice_is_as_once(self, deployment: Deployment, control: FakeControl) -> None:
        admit(deployment)
        admit(deployment)
        assert sorted(control.done) == [("register", "alder"), ("register", "birch")]

    def test_who_is_revoked_is_shut_out_once(self, deployment: Deployment, control: FakeControl) -> None:
        admit(deployment)
        revoke_site(deployment.folder, "birch")
        control.done.clear()
        admit(deployment)
        admit(deployment)
        assert control.done == [("unregister", "birch")]

    @pytest.mark.parametrize("text", ["", "# half a copy"])
    def test_list_without_a_site_shuts_nobody_out(
        self, deployment: Deployment, control: FakeControl, text: str
    ) -> None:
        """It is being copied, and what is shut out is never taken again."""
        admit(deployment)
        control.done.clear()
        deployment.invited.write_text(text)
        with pytest.raises(FederationError, match="names no site"):
            admit(deployment)
        assert control.done == []

    def test_key_that_was_shut_out_is_told_and_stops_nobody(
        self, deployment: Deployment, control: FakeControl, caplog: pytest.LogCaptureFixture
    ) -> None:
        key = read_invited(deployment.folder / "server")["alder"].key
        control.known[key] = Node(7, "alder", "unregistered", "")
        admit(deployment)
        assert control.done == [("register", "birch")]
        assert "site alder cannot come" in caplog.text
        assert "renew-site --node-key" in caplog.text

    def test_change_is_heeded_while_it_runs_and_a_slip_ends_nothing(
        self,
        deployment: Deployment,
        control: FakeControl,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(superlink_module, "POLL_S", 0.01)
        caplog.set_level(logging.INFO)
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:

            def watch() -> None:
                with pytest.raises(FederationError):
                    serve(deployment, process)

            watcher = threading.Thread(target=watch)
            watcher.start()
            text = deployment.invited.read_text()
            deployment.invited.write_text("[sites\n")
            until(lambda: "is not heeded" in caplog.text)
            deployment.invited.write_text(text)
            add_site(deployment.folder, site_entry("cedar"))
            until(lambda: ("register", "cedar") in control.done)
            process.kill()
            watcher.join()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
