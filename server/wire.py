# SPDX-License-Identifier: Apache-2.0
"""Between our parcels and Flower's messages, at the server's end; replies come one at a time."""

import time
from collections.abc import Iterator, Mapping
from typing import Protocol, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from pasta_model.errors import ExchangeError
from pasta_model.exchange.contents import EVALUATE, REFERENCE, TRAIN, Parcel, Value
from server.invitations import key_fingerprint

ARRAYS, VALUES = "arrays", "values"
POLL_SECONDS = 0.1
LONGEST_REASON = 200  # characters of a site's own words
TTL_MARGIN = 3600.0  # s; Flower drops a message that is older than 12 hours unless it is told another limit


class Post(Protocol):
    """The way from the server to the nodes and back.

    Attributes
    ----------
    settle_checks
        How often in a row the list of nodes must be the same before a run begins.
    """

    settle_checks: int

    def nodes(self) -> dict[int, str]:
        """Nodes that are connected now, with the fingerprint of their key."""
        ...

    def ask(
        self, parcels: Mapping[str, tuple[int, Parcel]], message_type: str
    ) -> Iterator[tuple[str, Parcel | str]]:
        """Send a parcel to each name's node; yield (name, answer) as they come.

        An answer is a parcel, or a text that says why there is none.
        """
        ...


class GridPost:
    """Sends parcels to nodes and hands back their answers, one at a time.

    Parameters
    ----------
    grid
        Flower's view of the nodes.
    deadline
        Seconds to wait for the answers of one call.
    query_deadline
        The same for questions that need no look at scans; by default as long.
    settle_checks
        See `Post`.
    """

    def __init__(
        self, grid: Grid, *, deadline: float, query_deadline: float | None = None, settle_checks: int = 4
    ) -> None:
        self.grid = grid
        self.settle_checks = settle_checks
        self.deadline = deadline
        self.query_deadline = deadline if query_deadline is None else min(deadline, query_deadline)

    def nodes(self) -> dict[int, str]:
        """Nodes that are connected now, with the fingerprint of their key."""
        return {info.node_id: key_fingerprint(info.public_key) for info in self.grid.get_nodes()}

    def ask(
        self, parcels: Mapping[str, tuple[int, Parcel]], message_type: str
    ) -> Iterator[tuple[str, Parcel | str]]:
        """Send a parcel to each name's node; yield (name, answer) as they come.

        Only one answer is held in memory at a time. Whoever has not answered by the deadline is said to
        have not.
        """
        deadline = self.deadline if message_type in (TRAIN, EVALUATE, REFERENCE) else self.query_deadline
        pending = self._push(parcels, message_type)
        sent = set(pending)
        end = time.monotonic() + deadline
        while pending:
            left = len(pending)
            for name in list(pending):  # one by one: pulled together, they would all be in memory
                answer = self._pulled(pending[name])
                if answer is not None:
                    del pending[name]
                    yield name, answer
            if time.monotonic() > end:
                break
            if len(pending) == left:
                time.sleep(POLL_SECONDS)
        for name in sorted(parcels.keys() - sent):
            yield name, "the message could not be sent"
        for name in sorted(pending):
            yield name, f"no answer within {deadline:g} s"

    def _pulled(self, identity: str) -> Parcel | str | None:
        """Pull one answer; None when there is none yet. What a site made unreadable is its own failure."""
        try:
            for message in self.grid.pull_messages([identity]):
                return _read(message)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # Flower unpacks what the site uploaded before we see it
            return f"unreadable answer ({type(error).__name__})"
        return None

    def _push(self, parcels: Mapping[str, tuple[int, Parcel]], message_type: str) -> dict[str, str]:
        """Push every message; arrays that several share are converted once."""
        shared: dict[int, Array] = {}
        pending = {}
        for name, (node, parcel) in sorted(parcels.items()):
            for buffer in parcel.arrays.values():
                if id(buffer) not in shared:
                    shared[id(buffer)] = Array(buffer)
            arrays = ArrayRecord({key: shared[id(buffer)] for key, buffer in parcel.arrays.items()})
            content = RecordDict({ARRAYS: arrays, VALUES: ConfigRecord(dict(parcel.values))})
            message = Message(
                content, dst_node_id=node, message_type=message_type, ttl=self.deadline + TTL_MARGIN
            )
            # Of a message that it cannot send Flower returns no identity: nothing, or None.
            for identity in filter(None, self.grid.push_messages([message])):
                pending[name] = identity
        return pending


def _read(message: Message) -> Parcel | str:
    """Take the parcel out of an answer, or say why there is none."""
    if message.has_error():
        reason = "".join(c for c in str(message.error.reason) if c.isprintable())[:LONGEST_REASON]
        return f"code {message.error.code}: {reason}"
    try:
        return _parcel(message)
    except Exception as error:  # noqa: BLE001 - numpy reads it, and a site can send numpy anything
        return f"unreadable answer ({error})"


def _parcel(message: Message) -> Parcel:
    extra = set(message.content) - {ARRAYS, VALUES}
    if extra:
        raise ExchangeError(f"a message holds records {sorted(extra)}, wanted {ARRAYS} and {VALUES}")
    arrays = message.content.array_records.get(ARRAYS, ArrayRecord())
    values = message.content.config_records.get(VALUES, ConfigRecord())
    buffers = {name: array.numpy() for name, array in arrays.items()}
    if not all(isinstance(buffer, np.ndarray) for buffer in buffers.values()):
        raise ExchangeError("an array of a message is none")  # numpy opens archives, too
    return Parcel(cast("dict[str, Value]", dict(values)), buffers)
