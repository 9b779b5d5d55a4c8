# SPDX-License-Identifier: Apache-2.0
"""Scripts in the place of Flower's commands, and what a SuperLink knows."""

from dataclasses import dataclass, field
from typing import Self

from server.deployment.control import Node, Run
from server.deployment.flower import Flower

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
