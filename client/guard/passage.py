# SPDX-License-Identifier: Apache-2.0
"""What of Flower passes the gate: objects that come are counted, messages that go are those of the gate."""

import threading
from collections.abc import Callable, Sequence

from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import get_object_type_from_object_content
from flwr.supernode.nodestate import NodeState

from client.guard.inspection import Packed


class Traffic:
    """Counts what Flower fetches for a message; several threads fetch."""

    def __init__(self, pull: Callable[[int, str], bytes]) -> None:
        self._pull, self._lock = pull, threading.Lock()
        self.bytes = self.arrays = 0

    def pull(self, run_id: int, identity: str) -> bytes:
        """Fetch one object."""
        content = self._pull(run_id, identity)
        with self._lock:
            self.bytes += len(content)
            self.arrays += get_object_type_from_object_content(content) == "Array"
        return content


class Outbox:
    """All that Flower's sender may see of the node's state.

    Parameters
    ----------
    depart
        Says what leaves in place of a reply; None when nothing does.
    state
        The node's.
    """

    def __init__(self, depart: Callable[[Message], Packed | None], state: NodeState) -> None:
        self._depart, self._state = depart, state
        self.messages: set[str] = set()
        self.objects: set[str] = set()

    def get_messages_legacy(self, *, is_reply: bool) -> Sequence[Message]:
        """Return the replies that may leave."""
        waiting = self._state.get_messages_legacy(is_reply=is_reply)
        packed = [self._depart(message) for message in waiting]
        leaving = [one for one in packed if one is not None]
        for one in leaving:
            self.messages.add(one.message.metadata.message_id)
            self.objects |= one.objects
        return [one.message for one in leaving]

    def get_message_processing_duration(self, message_id: str) -> float:  # noqa: ARG002 - as Flower calls it
        """Tell nothing: how long the site's code took is a metric of the policy's."""
        return 0.0

    def delete_messages(self, *, message_ids: Sequence[str]) -> None:
        """Pass on: they are sent."""
        self._state.delete_messages(message_ids=message_ids)
