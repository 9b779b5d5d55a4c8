# SPDX-License-Identifier: Apache-2.0
"""An in-process grid: runs ClientApps in this process, so a whole federation takes milliseconds."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

Tamper = Callable[[Message, Message], Message | None]


class InProcessGrid(Grid):
    """Nodes 1..n, each with its own context; `tamper` may change or drop a reply.

    `keys` are public keys of nodes (PEM), as a SuperLink with node authentication tells them; `absent` are
    nodes that are not connected now.
    """

    def __init__(
        self,
        app: ClientApp,
        *,
        run_config: Mapping[str, bool | int | float | str],
        nodes: int,
        tamper: Tamper | None = None,
        keys: Mapping[int, bytes] | None = None,
    ) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        self.app = app
        self.tamper = tamper
        self.keys = dict(keys or {})
        self.absent: set[int] = set()
        self.asked: list[Message] = []
        self._replies: dict[str, Message] = {}
        self._contexts = {
            node: Context(
                run_id=1,
                node_id=node,
                node_config={"partition-id": node - 1, "num-partitions": nodes},
                state=RecordDict({"empty": ConfigRecord()}),
                run_config=dict(run_config),
            )
            for node in range(1, nodes + 1)
        }

    def set_run(self, run: object) -> None:
        """Nothing to set."""

    @property
    def run(self) -> object:
        """No run record."""
        return None

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Deprecated in Flower; nobody calls it."""
        raise AssertionError("messages are made by Message(...)")

    def get_node_ids(self) -> list[int]:
        """All nodes that are not absent."""
        return [node for node in self._contexts if node not in self.absent]

    def get_nodes(self) -> list[NodeInfo]:
        """All nodes that are not absent, with their keys."""
        return [NodeInfo(node_id=n, public_key=self.keys.get(n, b"")) for n in self.get_node_ids()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Run each message through the app at once."""
        identities = []
        for message in messages:
            identity = f"message-{len(self.asked)}"
            message.metadata.__dict__["_message_id"] = identity
            self.asked.append(message)
            reply = self.app(message, self._contexts[message.metadata.dst_node_id])
            if self.tamper is not None:
                changed = self.tamper(message, reply)
                if changed is None:
                    identities.append(identity)
                    continue
                reply = changed
            self._replies[identity] = reply
            identities.append(identity)
        return identities

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Hand over the replies that are there."""
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Sequence[Message]:
        """Push and pull in one go."""
        return self.pull_messages(self.push_messages(messages))
