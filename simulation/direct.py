# SPDX-License-Identifier: Apache-2.0
"""A federation without a network: the server's rounds and a site's answers in one process.

For a site alone (a federation of one) and for tests. Messages pass the same checks as over the wire.
"""

import logging
from collections.abc import Iterator, Mapping

from client.answers import answer
from pasta_model.config import Settings
from pasta_model.errors import PastaError
from pasta_model.exchange.contents import Parcel

logger = logging.getLogger(__name__)


class DirectPost:
    """Hands each parcel to the site and its answer straight back.

    Parameters
    ----------
    settings
        Of the run; the sites are those under `data.sites`, or the one of `node_config`.
    node_config
        As a Flower node would have it.
    """

    settle_checks = 0

    def __init__(self, settings: Settings, node_config: Mapping[str, bool | int | float | str]) -> None:
        self.run_config = settings.flat()
        self.node_config = node_config

    def nodes(self) -> dict[int, str]:
        """Return the one node; it has no key."""
        return {1: ""}

    def ask(
        self, parcels: Mapping[str, tuple[int, Parcel]], message_type: str
    ) -> Iterator[tuple[str, Parcel | str]]:
        """Answer each parcel, in the order of names."""
        for name, (_, parcel) in sorted(parcels.items()):
            try:
                reply: Parcel | str = answer(
                    message_type, parcel, run_config=self.run_config, node_config=self.node_config
                )
            except PastaError as error:
                reply = f"{type(error).__name__}: {error}"
            yield name, reply
