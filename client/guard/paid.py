# SPDX-License-Identifier: Apache-2.0
"""The guard's own look into the privacy ledger: no line, no update."""

from typing import Any

from client.kit import Kit
from client.memory import run_name
from client.private import TRAINING, open_ledger
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from pasta_model.errors import PrivacyError
from pasta_model.exchange.contents import TRAIN, Parcel


def check_paid(kind: str, parcel: Parcel, settings: Settings, kit: Kit) -> dict[str, Any]:
    """Return the ledger's last line for the log, when it has the update that would leave.

    The ledger's hash in the log of exchanges is a second witness: who would replace the ledger must write
    that log anew, too.

    Raises
    ------
    PrivacyError
        When the run protects subjects and no release of this round is in the ledger.
    """
    if kind != TRAIN or settings.privacy.unit != "subject":
        return {}
    ledger = open_ledger(kit.guard.ledger, SiteStore(kit.site.store))
    run, number = run_name(settings), int(str(parcel.values["round"]))
    if not ledger.has_released(run, number, TRAINING):
        raise PrivacyError(
            f"an update of run {run}, round {number} would leave, and the ledger has no release of it;"
            " it stays here"
        )
    return {"ledger-lines": ledger.chain.lines, "ledger-hash": ledger.chain.hash}
