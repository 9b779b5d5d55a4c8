# SPDX-License-Identifier: Apache-2.0
"""A site's privacy budget: a policy, a run that is planned, and releases that were paid for."""

from collections.abc import Sequence
from pathlib import Path

from client.ledger import Ledger
from client.people import open_ledger
from client.private import TRAINING
from client.spending import Limit
from pasta_model.data.store import SiteStore
from pasta_model.privacy.accounting import Release
from tests.support.accounting import remembered

DELTA, LIMIT = 1e-3, 6.0
STEP, ERROR = Release(3.0, 0.5, 4), Release(10.0, 1.0, 1)
RUN: dict[str, dict[str, object]] = {
    "federation": {"rounds": 5},
    "training": {"local-steps": 4},
    "privacy": {"unit": "subject", "epsilon": 3.0, "delta": DELTA, "subjects-per-step": 2},
}


def pay(
    ledger: Path,
    store: SiteStore,
    release: Release = STEP,
    *,
    run: str = "first",
    number: int = 0,
    mechanism: str = TRAINING,
    people: Sequence[str] = (),
) -> Ledger:
    """A release that was made and kept."""
    book = open_ledger(ledger, store)
    book.open_for(sorted({entry.person for entry in store.entries}))
    task = f"{run}-{number}-{mechanism}"
    book.reserve(
        task,
        release,
        run=run,
        number=number,
        mechanism=mechanism,
        persons=people or store.persons("train" if mechanism == TRAINING else "valid"),
        limits=[Limit(100.0, DELTA, accountant="rdp")],
    )
    book.note_released(task)
    return book


def prv(*releases: Release) -> float:
    return remembered(releases, delta=DELTA)


def rdp(*releases: Release) -> float:
    return remembered(releases, delta=DELTA, accountant="rdp")
