# SPDX-License-Identifier: Apache-2.0
"""Sums over persons leave once a run: the same again, as often as they are asked for, and nothing else.

Two sums of which one has one person more tell that person's values. The log of exchanges remembers, even
where the store was prepared anew and the site's own memory of its answer went with it.
"""

import hashlib
import json
from typing import Any

from client.audit import AuditLog
from client.guard.paid import digest_of_arrays
from client.memory import run_name
from pasta_model.config import Settings
from pasta_model.errors import PolicyError
from pasta_model.exchange.contents import REFERENCE, Parcel

SUMS = "reference"  # in the log of exchanges: run, what the sums are for, SHA-256


def check_once(kind: str, parcel: Parcel, settings: Settings, log: AuditLog) -> dict[str, Any]:
    """Return what the log shall say of sums over persons, unless others left in this run before.

    Raises
    ------
    PolicyError
        When they did.
    """
    if kind != REFERENCE:
        return {}
    run = f"{run_name(settings)}/{parcel.values['what']}/"
    told = json.dumps(parcel.values, sort_keys=True) + digest_of_arrays(parcel)
    leaving = run + hashlib.sha256(told.encode()).hexdigest()
    left = {entry[SUMS] for entry in log.entries() if str(entry.get(SUMS, "")).startswith(run)}
    if left - {leaving}:
        raise PolicyError(
            f"run {run_name(settings)} got sums for {parcel.values['what']} from here already, and these are"
            " others: the difference would tell of single persons; give the next run another name"
        )
    return {SUMS: leaving}
