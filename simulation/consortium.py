# SPDX-License-Identifier: Apache-2.0
"""A whole consortium on this machine: provisioned, behind its proxy, with real SuperNodes, over TLS.

Everything runs as the people of a consortium would type it, each part in processes of its own: nginx, the
coordinator's `pasta-server superlink` and `pasta-server run`, each site's `pasta-client start`.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Self

from pasta_model.config import Settings
from pasta_model.errors import FederationError
from server.deployment.control import ONLINE, Control
from server.deployment.flower import script, to_toml
from server.deployment.folder import Deployment
from server.deployment.processes import descendants, free_port, stop_trees
from server.provision.steps import provision

PATIENCE_S = 180.0
PROXY, SUPERLINK, RUN = "proxy", "superlink", "run"


class LocalConsortium:
    """The consortium; a context that leaves nothing running.

    Parameters
    ----------
    folder
        A new folder for the consortium, its kits and the logs of its processes.
    stores
        The prepared store of each site, by name.
    policy
        What to set in every site's policy, as text; twins are few.
    size
        What the sites say they train.
    """

    def __init__(
        self, folder: Path, stores: Mapping[str, Path], *, policy: Mapping[str, str], size: str = "tiny"
    ) -> None:
        self.folder = folder.resolve()
        self.house = self.folder / "consortium"
        self.stores = stores
        self.nginx = find_nginx()
        self._policy = policy
        self._size = size
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.stop_all)
            self._provision()
            self.start_proxy()
            self.start_superlink()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def deployment(self) -> Deployment:
        """The coordinator's side of it."""
        return Deployment.at(self.house)

    def kit(self, site: str) -> Path:
        """Return the folder of a site's kit."""
        return self.house / "kits" / site

    def log(self, name: str) -> Path:
        """Return what a part has written: `proxy`, `superlink`, `run`, or a site."""
        return self.folder / "logs" / f"{name}.log"

    # --- parts ------------------------------------------------------------------------------

    def start_proxy(self) -> None:
        """Start nginx with the kit's configuration, where there is one; without it sites reach SuperLink."""
        server = self.house / "server"
        if self.nginx:
            self._start(PROXY, [self.nginx, "-p", str(server), "-c", "nginx.conf", "-g", "daemon off;"])

    def start_superlink(self) -> None:
        """Start the coordinator's SuperLink and wait until it is ready."""
        self._start(SUPERLINK, [script("pasta-server"), "superlink", str(self.house)])
        self._wait(SUPERLINK, lambda: "ready on" in self.log(SUPERLINK).read_text(encoding="utf-8"))

    def start_site(self, name: str) -> None:
        """Start a site's guard, and its SuperNode with it."""
        self._start(name, [script("pasta-client"), "start", str(self.kit(name) / "site.toml")])

    def approve(self, name: str, bundle: Path) -> None:
        """Let a site run a bundle."""
        self._client("approve", name, str(bundle), "--yes")

    def withdraw(self, name: str, bundle: Path) -> None:
        """Let a site run a bundle no more."""
        self._client("approve", name, "--withdraw", hashlib.sha256(bundle.read_bytes()).hexdigest())

    def copy_kit(self, name: str, copy: str, *, node_key: bytes) -> None:
        """Copy a site's kit with another node key, as an intruder with the site's files would have it."""
        records = shutil.ignore_patterns("audit.jsonl*", "quarantine", "flower")
        shutil.copytree(self.kit(name), self.kit(copy), ignore=records)
        (self.kit(copy) / "keys" / "node.key").write_bytes(node_key)
        change_toml(self.kit(copy) / "site.toml", {"port": str(free_port())})

    def online(self) -> list[str]:
        """Return the nodes that are connected, by the names under which they were admitted."""
        with Control(self.deployment.flower) as control:
            return sorted(node.name for node in control.nodes().values() if node.status == ONLINE)

    def wait_online(self, names: Sequence[str]) -> None:
        """Wait until these sites are connected."""
        for name in names:
            self._wait(name, partial(self._is_online, name))

    def start_run(self, settings: Settings, *, name: str = RUN) -> subprocess.Popen[bytes]:
        """Start `pasta-server run`; the same settings go on with a run that was interrupted."""
        path = self.folder / f"{name}.toml"
        path.write_text(to_toml(settings.flat()), encoding="utf-8")
        command = [script("pasta-server"), "run", str(path), "--consortium", str(self.house)]
        return self._start(name, command)

    def run(self, settings: Settings, *, name: str = RUN) -> None:
        """Run a federation to its end.

        Raises
        ------
        FederationError
            When it does not complete; the message ends with what it said.
        """
        process = self.start_run(settings, name=name)
        if process.wait() != 0:
            raise self._failure(name, "the run did not complete")

    def revive(self, name: str) -> None:
        """Start a killed site again, as its supervisor would, until Flower takes its key again.

        Flower holds a node that was killed for connected until its heartbeat has been missing for a while.
        """
        before, end = self._activated(name), time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            self.start_site(name)
            while self._running[name].poll() is None:
                if self._activated(name) != before:
                    return
                time.sleep(0.2)
            del self._running[name]
        raise self._failure(name, "it did not come back")

    def kill(self, name: str) -> None:
        """Kill a part and all that it started with SIGKILL."""
        process = self._running.pop(name)
        for pid in (process.pid, *descendants(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def stop(self, *names: str) -> None:
        """Ask parts to end, and wait until they have."""
        stop_trees([self._running.pop(name) for name in names])

    def stop_all(self) -> None:
        """Stop every part: first the sites and runs, then what they speak to."""
        ground = [name for name in (PROXY, SUPERLINK) if name in self._running]
        self.stop(*(name for name in self._running if name not in ground))
        self.stop(*ground)

    # --- how --------------------------------------------------------------------------------

    def _provision(self) -> None:
        """Make the consortium's folder and fill in each kit, as a coordinator and the sites would."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "logs").mkdir()
        plan = self.folder / "consortium.toml"
        sites = "".join(f'[[sites]]\nname = "{name}"\n' for name in self.stores)
        plan.write_text(
            f'[consortium]\nname = "loopback"\nnames = ["localhost"]\nport = {free_port()}\n'
            f"superlink-port = {free_port()}\n{sites}",
            encoding="utf-8",
        )
        provision(plan, self.house)
        for name, store in self.stores.items():
            if not self.nginx:
                change_toml(self.kit(name) / "site.toml", {"address": f'"{self.deployment.flower.address}"'})
            own = {"store": f'"{store}"', "port": str(free_port()), "size": f'"{self._size}"'}
            change_toml(self.kit(name) / "site.toml", own)
            change_toml(self.kit(name) / "policy.toml", self._policy)

    def _is_online(self, name: str) -> bool:
        return name in self.online()

    def _activated(self, name: str) -> list[str]:
        """Return when a site was last let in."""
        with Control(self.deployment.flower) as control:
            return [node.activated for node in control.nodes().values() if node.name == name]

    def _client(self, command: str, name: str, *words: str) -> None:
        """Run a command of a site's to its end."""
        line = [script("pasta-client"), command, str(self.kit(name) / "site.toml"), *words]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise FederationError(f"{' '.join(line)} failed\n{done.stdout}{done.stderr}")

    def _start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._running[name] = process
        return process

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not ready():
            if self._running[name].poll() is not None or time.monotonic() > end:
                raise self._failure(name, "it did not start")
            time.sleep(0.2)

    def _failure(self, name: str, what: str) -> FederationError:
        said = self.log(name).read_text(encoding="utf-8", errors="replace")
        return FederationError(f"{name}: {what}\n{said}")


def find_nginx() -> str:
    """Return nginx: the one that `PASTA_NGINX` names, or that is installed; empty when there is none."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    named = os.environ.get("PASTA_NGINX", "")
    return named if Path(named).is_file() else shutil.which("nginx", path=path) or ""


def change_toml(path: Path, values: Mapping[str, str]) -> None:
    """Change values in a TOML file by their names, as a person would with an editor.

    Raises
    ------
    FederationError
        When one of the names is not there, or more than once.
    """
    text = path.read_text(encoding="utf-8")
    for name, value in values.items():
        line = f"{name} = {value}".replace("\\", "\\\\")
        text, found = re.subn(rf"(?m)^{re.escape(name)} = .*$", line, text)
        if found != 1:
            raise FederationError(f"{path}: {name} stands there {found} times, wanted once")
    path.write_text(text, encoding="utf-8")
