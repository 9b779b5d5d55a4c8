# SPDX-License-Identifier: Apache-2.0
"""The guard's own look into the privacy ledger: no line, no update, and no noised error."""

from typing import Any

from client.audit import AuditLog
from client.kit import Kit
from client.ledger import Ledger
from client.memory import run_name
from client.private import TRAINING, VALIDATION, open_ledger
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from pasta_model.errors import PrivacyError
from pasta_model.exchange.contents import TRAIN, Parcel

LINES, HASH = "ledger-lines", "ledger-hash"  # in the log of exchanges, with every private update


def check_paid(kind: str, parcel: Parcel, settings: Settings, kit: Kit, log: AuditLog) -> dict[str, Any]:
    """Return the ledger's last line for the log, when it has the update, or the error, that would leave.

    The ledger's hash in the log of exchanges is a second witness: who would replace the ledger must write
    that log anew, too.

    Raises
    ------
    PrivacyError
        When the run protects subjects and no release of this round is in the ledger, or when the ledger is
        not the one of earlier updates.
    """
    released = {TRAINING: "an update"} if kind == TRAIN else {}
    if settings.privacy.metrics == "noised" and "valid-mae" in parcel.values:
        released[VALIDATION] = "a validation error"
    if settings.privacy.unit != "subject" or not released:
        return {}
    ledger = open_ledger(kit.guard.ledger, SiteStore(kit.site.store))
    refuse_replaced(ledger, log)
    run, number = run_name(settings), int(str(parcel.values["round"]))
    for mechanism, what in released.items():
        if not ledger.has_released(run, number, mechanism):
            raise PrivacyError(
                f"{what} of run {run}, round {number} would leave, and the ledger has no release of it;"
                " it stays here"
            )
    return {LINES: ledger.chain.lines, HASH: ledger.chain.hash}


def refuse_replaced(ledger: Ledger, log: AuditLog) -> None:
    """Refuse a ledger that lacks what the log of exchanges saw in it.

    Raises
    ------
    PrivacyError
        When it was taken away and another one begun, or an older copy put in its place.
    """
    seen = [entry for entry in log.entries() if LINES in entry]
    if seen and not ledger.has_line(int(seen[-1][LINES]), str(seen[-1][HASH])):
        raise PrivacyError(
            f"{ledger.path}: not the ledger of which the log of exchanges saw {seen[-1][LINES]} lines: it was"
            " put in its place; put the right one back from a copy"
        )
