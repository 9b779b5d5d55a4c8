# SPDX-License-Identifier: Apache-2.0
"""SuperLink and runs as the coordinator starts them, with scripts in the place of Flower's commands."""

import logging
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Self

import pytest

from pasta_model.config import Settings, settings_from_flat
from pasta_model.errors import BusyError, CheckpointError, ConfigError, FederationError, PrivacyError
from server.deployment import launcher as launcher_module
from server.deployment import superlink as superlink_module
from server.deployment.control import Node, Run
from server.deployment.flower import Flower
from server.deployment.folder import Deployment
from server.deployment.launcher import app_folder, deployed_settings, launch
from server.deployment.processes import running
from server.deployment.superlink import admit, deployed_superlink, serve
from server.provision.consortium import site_entry
from server.provision.registry import read_invited
from server.provision.steps import add_site, provision, revoke_site

SUPERLINK = """
import json, os, sys, time
with open(os.environ["FLWR_HOME"] + "/started.json", "w") as file:
    json.dump({"pid": os.getpid(), "words": sys.argv[1:], "environment": dict(os.environ)}, file)
print("a SuperLink was here", flush=True)
time.sleep(600)
"""
FLWR = """
import json, os, sys, time
if sys.argv[1] == "run":
    print("Successfully started run 42", flush=True)
    print(open(sys.argv[sys.argv.index("--run-config") + 1]).read(), flush=True)
    time.sleep(SECONDS)
    sys.exit(0)
print(json.dumps({"runs": [{"run-id": "42", "status": STATUS, "status-details": "why it ended"}]}))
"""


@dataclass
class FakeControl:
    """What a SuperLink knows; stands for itself as a context, whoever opens it."""

    known: dict[str, Node] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    done: list[tuple[str, object]] = field(default_factory=list)

    def __call__(self, _: Flower) -> "FakeControl":
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave."""

    def nodes(self) -> dict[str, Node]:
        return dict(self.known)

    def register(self, name: str, public_key: str) -> None:
        from server.provision.keys import fingerprint

        self.known[fingerprint(public_key)] = Node(len(self.known) + 1, name, "registered", "")
        self.done.append(("register", name))

    def unregister(self, number: int) -> None:
        for key, node in self.known.items():
            if node.number == number:
                self.known[key] = Node(number, node.name, "unregistered", "")
                self.done.append(("unregister", node.name))

    def unfinished_runs(self) -> list[Run]:
        return self.runs

    def stop(self, number: int) -> None:
        self.done.append(("stop", number))


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        '[consortium]\nname = "north-sea"\nnames = ["localhost"]\nsuperlink-port = 12345\n'
        '[[sites]]\nname = "alder"\n[[sites]]\nname = "birch"\n'
    )
    provision(plan, tmp_path / "house")
    return Deployment.at(tmp_path / "house")


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> FakeControl:
    fake = FakeControl()
    monkeypatch.setattr(superlink_module, "Control", fake)
    monkeypatch.setattr(launcher_module, "Control", fake)
    return fake


@pytest.fixture
def flower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put scripts in the place of Flower's commands; SuperLink is healthy once it has begun."""

    def install(*, status: str = "finished:completed", seconds: float = 0.0) -> None:
        settings = f"STATUS, SECONDS = {status!r}, {seconds}\n"
        for name, body in {"flwr": settings + FLWR, "flower-superlink": SUPERLINK}.items():
            (tmp_path / name).write_text(f"#!{sys.executable}\n{body}")
            (tmp_path / name).chmod(0o755)
        for module in ("server.deployment.flower", "server.deployment.superlink"):
            monkeypatch.setattr(f"{module}.script", lambda name: str(tmp_path / name))
        monkeypatch.setattr(Flower, "answers", lambda self: (self.state / "started.json").exists())
        monkeypatch.setattr(launcher_module, "bundle_hash", lambda _: "0" * 64)

    install()
    return install


@pytest.fixture
def live(deployment: Deployment, flower: Callable[..., None]) -> Deployment:
    """A deployment whose SuperLink answers."""
    (deployment.flower.state / "started.json").touch()
    return deployment


def started(deployment: Deployment) -> dict[str, object]:
    import json

    path = deployment.flower.state / "started.json"
    while not path.exists() or not path.read_text().endswith("}"):
        time.sleep(0.02)
    return json.loads(path.read_text())


class TestFolder:
    def test_all_that_is_missing_is_told_at_once(self, deployment: Deployment) -> None:
        (deployment.folder / "server" / "server.key").unlink()
        deployment.invited.unlink()
        with pytest.raises(FederationError) as error:
            Deployment.at(deployment.folder)
        assert "2 problem(s)" in str(error.value)
        assert "server/server.key is missing" in str(error.value)

    def test_commands_trust_the_consortiums_authority_only(self, deployment: Deployment) -> None:
        deployment.flower.write_connection()
        connection = tomllib.loads((deployment.flower.state / "config.toml").read_text())["superlink"]
        authority = str(deployment.folder / "server" / "ca.crt")  # authority/ may be kept elsewhere
        assert connection["pasta"] == {"address": "127.0.0.1:12345", "root-certificates": authority}
        assert connection["default"] == "pasta"


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


class TestRun:
    def test_settings_as_they_are_deployed(
        self, deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        settings = settings_from_flat({"run.output": "runs/first", "federation.rounds": 7})
        deployed = deployed_settings(settings, deployment)
        assert deployed.run.output == str(tmp_path / "runs" / "first")
        assert deployed.run.resume
        assert deployed.federation.invited == str(deployment.invited)
        assert deployed.federation.rounds == 7
        assert deployed.run.initial == ""
        started = settings_from_flat({"run.initial": "models/twins.safetensors"})
        deployed = deployed_settings(started, deployment)
        assert deployed.run.initial == str(tmp_path / "models" / "twins.safetensors")

    def test_model_that_is_not_there_is_told_before_anything_else(
        self, deployment: Deployment, tmp_path: Path
    ) -> None:
        started = settings_from_flat({"run.initial": str(tmp_path / "gone.safetensors")})
        with pytest.raises(CheckpointError, match=r"gone\.safetensors: no such file"):
            launch(deployment, started, app=tmp_path)

    def test_privacy_that_cannot_be_kept_is_told_before_anything_else(
        self, deployment: Deployment, tmp_path: Path
    ) -> None:
        private = {"privacy.unit": "site", "aggregation.shares": "equal", "privacy.noise-multiplier": 1.0}
        deployed = deployed_settings(settings_from_flat({**private, "privacy.delta": 0.5}), deployment)
        with pytest.raises(
            PrivacyError, match=r"(?s)2 problem.*less than 1 / sites = 0\.5.*32 rounds at noise"
        ):
            launch(deployment, deployed, app=tmp_path)

    def test_lines_are_told_and_the_settings_reach_flower(
        self, live: Deployment, control: FakeControl, tmp_path: Path
    ) -> None:
        lines: list[str] = []
        launch(live, settings(tmp_path), app=tmp_path, tell=lines.append)
        assert lines[0].startswith(f"the bundle is {'0' * 64}")
        assert "Successfully started run 42" in lines
        assert f'run.output = "{tmp_path / "run"}"' in lines
        assert control.done == []

    def test_without_superlink_it_says_how_to_start_it(
        self, deployment: Deployment, flower: Callable[..., None], control: FakeControl, tmp_path: Path
    ) -> None:
        with pytest.raises(FederationError, match=f"pasta-server superlink {deployment.folder}"):
            launch(deployment, settings(tmp_path), app=tmp_path)

    def test_run_that_failed_is_an_error_though_flower_exits_with_0(
        self, live: Deployment, flower: Callable[..., None], control: FakeControl, tmp_path: Path
    ) -> None:
        flower(status="finished:failed")
        with pytest.raises(FederationError, match="'finished:failed': why it ended"):
            launch(live, settings(tmp_path), app=tmp_path)

    def test_earlier_run_of_the_same_output_is_stopped_and_no_other(
        self, live: Deployment, control: FakeControl, tmp_path: Path
    ) -> None:
        control.runs = [Run(1, "/elsewhere", "running"), Run(2, str(tmp_path / "run"), "running")]
        launch(live, settings(tmp_path), app=tmp_path)
        assert control.done == [("stop", 2)]

    def test_interruption_stops_the_run(
        self, live: Deployment, flower: Callable[..., None], control: FakeControl, tmp_path: Path
    ) -> None:
        flower(seconds=600.0)

        def interrupt(line: str) -> None:
            if "started run" in line:
                control.runs = [Run(42, str(tmp_path / "run"), "running")]
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            launch(live, settings(tmp_path), app=tmp_path, tell=interrupt)
        assert control.done == [("stop", 42)]

    def test_two_commands_for_one_output_are_refused(
        self, live: Deployment, control: FakeControl, tmp_path: Path
    ) -> None:
        def second(line: str) -> None:
            if "started run" in line:
                with pytest.raises(BusyError, match="another process is at work"):
                    launch(live, settings(tmp_path), app=tmp_path)

        launch(live, settings(tmp_path), app=tmp_path, tell=second)

    def test_app_is_this_checkout_unless_one_is_given(self, tmp_path: Path) -> None:
        assert (app_folder(None) / "server" / "server_app.py").is_file()
        with pytest.raises(ConfigError, match=r"no pyproject\.toml of an app"):
            app_folder(tmp_path)


def settings(tmp_path: Path) -> Settings:
    return settings_from_flat({"run.output": str(tmp_path / "run")})


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
