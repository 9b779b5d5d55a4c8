# SPDX-License-Identifier: Apache-2.0
"""Measures processes that others start (memory and processor time by role), and a run's traffic."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from flwr.proto.control_pb2 import ListRunsRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor

from server.deployment.flower import Flower
from server.deployment.processes import descendants

POLL_S, TRAFFIC_S = 0.2, 1.0
ROLES = {  # by what stands in the command line, the first that does
    "server app": "flwr-serverapp",
    "client app": "flwr-clientapp",
    "SuperLink": "flower-superlink",
    "SuperExec": "flower-superexec",
    "SuperNode": "flower-supernode",
    "SuperNode, guarded": "pasta-client",
    "nginx": "nginx",
}
_TICK = os.sysconf("SC_CLK_TCK")


class Meter:
    """Watches from the moment that it is entered until it is left.

    Parameters
    ----------
    roots
        Returns the processes whose trees are watched.
    flower
        The SuperLink whose runs are asked for their traffic.
    """

    def __init__(self, roots: Callable[[], list[int]], flower: Flower) -> None:
        self._roots, self._flower = roots, flower
        self._peaks: dict[str, int] = defaultdict(int)
        self._seconds: dict[int, tuple[str, float]] = {}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._processes), threading.Thread(target=self._runs)]
        self.together = 0
        self.traffic: list[tuple[float, int, int]] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def peak(self, role: str) -> int:
        """Bytes that the largest process of a role had in memory at most."""
        return self._peaks[role]

    def processor_seconds(self, role: str) -> float:
        """Processor time of all processes of a role."""
        return sum(seconds for found, seconds in self._seconds.values() if found == role)

    def traffic_until(self, end: float) -> tuple[int, int]:
        """Bytes that SuperLink has (sent to, received from) all nodes until a moment."""
        _, sent, received = min(self.traffic, key=lambda sample: abs(sample[0] - end))
        return sent, received

    def _processes(self) -> None:
        while not self._over.wait(POLL_S):
            resident = 0
            for pid in {p for root in self._roots() for p in (root, *descendants(root))}:
                with suppress(OSError, ValueError, KeyError, IndexError):  # it ended meanwhile
                    resident += self._note(pid)
            self.together = max(self.together, resident)

    def _note(self, pid: int) -> int:
        folder = Path("/proc") / str(pid)
        command = (folder / "cmdline").read_bytes().decode(errors="replace")
        role = next((role for role, word in ROLES.items() if word in command), "other")
        lines = (line.split() for line in (folder / "status").read_text().splitlines())
        found = {words[0]: words[1] for words in lines if len(words) > 1}
        self._peaks[role] = max(self._peaks[role], 1024 * int(found["VmHWM:"]))
        times = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
        self._seconds[pid] = role, sum(map(int, times)) / _TICK
        return 1024 * int(found["VmRSS:"])

    def _runs(self) -> None:
        flower = self._flower
        client = ControlHttpClient.from_server_address(
            flower.address,
            insecure=flower.authority is None,
            root_certificates=flower.authority.read_bytes() if flower.authority else None,
            interceptors=[RuntimeVersionHttpInterceptor("pasta-server")],
        )
        while not self._over.wait(TRAFFIC_S):
            runs = client.ListRuns(ListRunsRequest()).run_dict.values()
            sums = sum(r.bytes_sent for r in runs), sum(r.bytes_recv for r in runs)
            self.traffic.append((time.time(), *sums))
        client.close()
