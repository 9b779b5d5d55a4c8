# SPDX-License-Identifier: Apache-2.0
"""Between our parcels and Flower's messages, at the server's end; replies come one at a time."""

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Protocol, cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from pasta_model.errors import ExchangeError
from pasta_model.exchange.contents import Parcel, Value

ARRAYS, VALUES = "arrays", "values"
POLL_SECONDS = 0.1

logger = logging.getLogger(__name__)


class Post(Protocol):
    """The way from the server to the nodes and back.

    Attributes
    ----------
    settle_checks
        How often in a row the list of nodes must be the same before a run begins.
    """

    settle_checks: int

    def nodes(self) -> list[int]:
        """Nodes that are connected now."""
        ...

    def ask(
        self, parcels: Mapping[str, tuple[int, Parcel]], message_type: str
    ) -> Iterator[tuple[str, Parcel | str]]:
        """Send a parcel to each name's node; yield (name, answer) in the order of names.

        An answer is a parcel, or a text that says why there is none.
        """
        ...


class GridPost:
    """Sends parcels to nodes and hands back their answers in a fixed order.

    Parameters
    ----------
    grid
        Flower's view of the nodes.
    deadline
        Seconds to wait for the answers of one call.
    settle_checks
        See `Post`.
    """

    def __init__(self, grid: Grid, *, deadline: float, settle_checks: int = 4) -> None:
        self.grid = grid
        self.settle_checks = settle_checks
        self.deadline = deadline

    def nodes(self) -> list[int]:
        """Nodes that are connected now."""
        return sorted(self.grid.get_node_ids())

    def ask(
        self, parcels: Mapping[str, tuple[int, Parcel]], message_type: str
    ) -> Iterator[tuple[str, Parcel | str]]:
        """Send a parcel to each name's node; yield (name, answer) in the order of names.

        Only one answer is held in memory at a time; the order never depends on who was faster, so
        sums are reproducible.
        """
        shared: dict[int, ArrayRecord] = {}  # equal weights for all sites are converted once
        pending = {}
        for name, (node, parcel) in sorted(parcels.items()):
            key = id(parcel.arrays)
            if key not in shared:
                shared[key] = ArrayRecord({k: Array(v) for k, v in parcel.arrays.items()})
            content = RecordDict({ARRAYS: shared[key], VALUES: ConfigRecord(dict(parcel.values))})
            message = Message(content, dst_node_id=node, message_type=message_type)
            for identity in self.grid.push_messages([message]):
                pending[name] = identity
        end = time.monotonic() + self.deadline
        for name in sorted(parcels):
            yield name, self._answer(pending.get(name), end)

    def _answer(self, identity: str | None, end: float) -> Parcel | str:
        if identity is None:
            return "the message could not be sent"
        while True:
            for message in self.grid.pull_messages([identity]):
                if message.has_error():
                    return f"code {message.error.code}: {message.error.reason}"
                try:
                    return _parcel(message)
                except (ExchangeError, TypeError, ValueError) as error:
                    return f"unreadable answer ({error})"
            if time.monotonic() > end:
                return f"no answer within {self.deadline:g} s"
            time.sleep(POLL_SECONDS)


def _parcel(message: Message) -> Parcel:
    extra = set(message.content) - {ARRAYS, VALUES}
    if extra:
        raise ExchangeError(f"a message holds records {sorted(extra)}, wanted {ARRAYS} and {VALUES}")
    arrays = message.content.array_records.get(ARRAYS, ArrayRecord())
    values = message.content.config_records.get(VALUES, ConfigRecord())
    buffers = {name: array.numpy() for name, array in arrays.items()}
    return Parcel(cast("dict[str, Value]", dict(values)), buffers)
