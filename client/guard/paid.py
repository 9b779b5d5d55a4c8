# SPDX-License-Identifier: Apache-2.0
"""The guard's own look into the privacy ledger: no line, no update, and no noised error.

As many of a round may leave as the ledger has releases of it. One that is sent again is one.
"""

import hashlib
import json
from typing import Any

from client.audit import AuditLog
from client.kit import Kit
from client.ledger import Ledger
from client.memory import run_name
from client.people import open_ledger
from client.private import TRAINING, VALIDATION
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from pasta_model.errors import PrivacyError
from pasta_model.exchange.contents import TRAIN, Parcel

# In the log of exchanges, with all that a line was paid for:
LINES, HASH, PAID = "ledger-lines", "ledger-hash", "ledger-paid"


def check_paid(kind: str, parcel: Parcel, settings: Settings, kit: Kit, log: AuditLog) -> dict[str, Any]:
    """Return what the log shall say of the ledger, when it has the update, or the error, that would leave.

    The ledger's hash in the log of exchanges is a second witness: who would replace the ledger must write
    that log anew, too.

    Raises
    ------
    PrivacyError
        When the run protects subjects and the ledger has no release of this round, or none that has not left
        yet as something else, or when the ledger is not the one of earlier updates.
    """
    leaving = {TRAINING: digest_of_arrays(parcel)} if kind == TRAIN else {}
    if settings.privacy.metrics == "noised" and "valid-mae" in parcel.values:
        leaving[VALIDATION] = hashlib.sha256(repr(parcel.values["valid-mae"]).encode()).hexdigest()
    if settings.privacy.unit != "subject" or not leaving:
        return {}
    ledger = open_ledger(kit.guard.ledger, SiteStore(kit.site.store))
    refuse_replaced(ledger, log)
    run, number = run_name(settings), int(str(parcel.values["round"]))
    paid = [f"{run}/{number}/{mechanism}/{what}" for mechanism, what in leaving.items()]
    left = {one for entry in log.entries() for one in entry.get(PAID, [])} | set(paid)
    for mechanism in leaving:
        wanted = sum(one.startswith(f"{run}/{number}/{mechanism}/") for one in left)
        found = ledger.released(run, number, mechanism)
        if wanted > found:
            raise PrivacyError(
                f"run {run}, round {number}, {mechanism}: with this {wanted} would have left, and the ledger"
                f" has {found} release(s); it stays here"
            )
    return {LINES: ledger.chain.lines, HASH: ledger.chain.hash, PAID: paid}


def digest_of_arrays(parcel: Parcel) -> str:
    """SHA-256 of a message's arrays, whatever is told with them."""
    found = hashlib.sha256()
    for name, array in sorted(parcel.arrays.items()):
        found.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        found.update(array.tobytes())
    return found.hexdigest()


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
