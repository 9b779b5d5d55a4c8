# SPDX-License-Identifier: Apache-2.0
"""The launcher, with scripts in the place of Flower's commands."""

import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from pasta_model.errors import FederationError
from server.deployment.flower import script, to_toml
from server.deployment.processes import descendants, running, stop_tree
from simulation.federation import run_command, run_simulation
from simulation.superlink import environment

SUPERLINK = """
import http.server, os, subprocess, sys

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

# A part of its own, in its own session, that does not listen when it is asked to end.
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
part = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
with open(os.environ["FLWR_HOME"] + "/pids", "w") as pids:
    pids.write(f"{os.getpid()} {part.pid}")
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Health).serve_forever()
"""
FLWR = """
import json, sys
if sys.argv[1] == "run":
    print("Successfully started run 42")
    for number in range(40):
        print(f"\\x1b[92mline {number}\\x1b[0m")
    sys.exit(RETURN_CODE)
print(json.dumps({"runs": [{"run-id": "42", "status": STATUS, "status-details": "no such site"}]}))
"""


@pytest.fixture
def flower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put scripts in the place of `flwr` and `flower-superlink`."""

    def install(
        *, status: str = "finished:completed", return_code: int = 0, superlink: str = SUPERLINK
    ) -> None:
        settings = f"STATUS, RETURN_CODE = {status!r}, {return_code}\n"
        for name, body in {"flwr": settings + FLWR, "flower-superlink": superlink}.items():
            path = tmp_path / name
            path.write_text(f"#!{sys.executable}\n{body}")
            path.chmod(0o755)
        for module in ("server.deployment.flower", "simulation.superlink"):
            monkeypatch.setattr(f"{module}.script", lambda name: str(tmp_path / name))
        monkeypatch.setattr("simulation.superlink.stop_tree.__kwdefaults__", {"grace_s": 0.5})

    return install


def run(state: Path, **changes) -> list[str]:
    lines: list[str] = []
    arguments = {"run_config": {"rounds": 2}, "nodes": 3, "state": state, "on_line": lines.append}
    run_simulation(state.parent, **(arguments | changes))
    return lines


def pids(state: Path) -> set[int]:
    return set(map(int, (state / "pids").read_text().split()))


def test_lines_are_passed_on_without_colours_and_kept_in_the_log(flower, tmp_path: Path) -> None:
    flower()
    lines = run(tmp_path / "state")
    assert lines == ["Successfully started run 42", *(f"line {number}" for number in range(40))]
    assert (tmp_path / "state" / "flower.log").read_text().splitlines()[-41:] == lines


def test_nothing_runs_afterwards_even_what_refuses_to_end(flower, tmp_path: Path) -> None:
    flower()
    run(tmp_path / "state")
    assert len(pids(tmp_path / "state")) == 2
    assert not pids(tmp_path / "state") & running().keys()


def test_nothing_runs_after_an_interruption(flower, tmp_path: Path) -> None:
    flower()

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "state", on_line=interrupt)
    assert not pids(tmp_path / "state") & running().keys()


def test_failed_run_is_reported_with_the_end_of_its_log(flower, tmp_path: Path) -> None:
    flower(status="finished:failed")
    with pytest.raises(FederationError) as error:
        run(tmp_path / "state")
    message = str(error.value)
    assert message.startswith("the federation's run ended as 'finished:failed': no such site\n")
    assert str(tmp_path / "state" / "flower.log") in message
    assert message.splitlines()[-1] == "line 39"
    assert "line 15" in message
    assert "line 14" not in message  # the last 25 lines


def test_refused_run_is_reported(flower, tmp_path: Path) -> None:
    flower(return_code=1)
    with pytest.raises(FederationError, match="`flwr run` failed with exit status 1"):
        run(tmp_path / "state")


def test_superlink_that_ends_at_once_is_reported(flower, tmp_path: Path) -> None:
    flower(superlink="raise SystemExit('the port is taken')")
    with pytest.raises(FederationError, match=r"(?s)did not start.*the port is taken"):
        run(tmp_path / "state")


def test_command_names_nodes_and_asks_for_no_more_processes_than_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    command = run_command(Path("/app"), Path("/state/run-config.toml"), nodes=4, cpus_per_node=2)
    assert Path(command[0]).name == "flwr"
    assert command[1:] == [
        "run",
        "/app",
        "pasta",
        "--stream",
        "--run-config",
        "/state/run-config.toml",
        "--federation-config",
        "num-supernodes=4 client-resources-num-cpus=2 client-resources-num-gpus=0.0 init-args-num-cpus=8",
    ]


def test_one_node_may_ask_for_more_cores_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    command = run_command(Path("/app"), Path("/c.toml"), nodes=4, cpus_per_node=2)
    assert command[-1].endswith("init-args-num-cpus=2")


def test_settings_survive_the_way_through_toml() -> None:
    values = {"rounds": 3, "out": 'a "quoted" C:\\path é', "resume": False, "lr": 1e-05, "empty": ""}
    assert tomllib.loads(to_toml(values)) == values


def test_environment_is_at_home_in_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_HOME", "/home/somebody/.flwr")
    monkeypatch.setenv("PATH", "/usr/bin")
    values = environment(tmp_path, ray=tmp_path / "ray")
    assert values["FLWR_HOME"] == str(tmp_path)
    assert values["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert values["PATH"] == f"{Path(script('flwr')).parent}{os.pathsep}/usr/bin"


def test_missing_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FederationError, match="'flwr-nothing' was not found: install"):
        script("flwr-nothing")


def test_descendants_are_found_through_generations() -> None:
    inner = "import time; time.sleep(30)"
    outer = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {inner!r}]).wait()"
    with subprocess.Popen([sys.executable, "-c", outer], start_new_session=True) as process:
        deadline = time.monotonic() + 10
        while not (found := descendants(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        stop_tree(process, grace_s=0.0)
    assert len(found) == 1
    assert not set(found) & running().keys()
