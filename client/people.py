# SPDX-License-Identifier: Apache-2.0
"""Which ledger protects a store, and by which names it knows the store's people."""

from pathlib import Path

from client.ledger import Ledger
from pasta_model.data.store import SiteStore


def default_ledger(store: Path) -> Path:
    """Where the ledger of a store lies when nobody says: beside it, so that it outlives the store."""
    store = store.resolve()  # by whatever way it is reached
    return store.with_name(f"{store.name}.privacy") / "ledger.jsonl"


def open_ledger(path: Path, store: SiteStore) -> Ledger:
    """Open the ledger that protects a store.

    Raises
    ------
    PrivacyError
        When it was changed, was taken away, or is about other people.
    """
    ledger = Ledger(path, site=store.site, witness=store.path / "state" / "ledger.json")
    if not ledger.is_new:
        ledger.open_for(everybody(store))
    return ledger


def everybody(store: SiteStore) -> list[str]:
    """Return all names of all persons of a store, whatever their split."""
    return sorted({name for entry in store.entries for name in (entry.person, entry.subject)})


def names(store: SiteStore, split: str) -> list[str]:
    """Return all names of the persons of a split, as the ledger keeps them.

    Who a person is called may change when the data are prepared anew: with an RID that was not known before,
    or that links two subjects. The names of the subjects stay, and with them what was spent.
    """
    entries = (store.entries[i] for i in store.indices(split))
    return sorted({name for entry in entries for name in (entry.person, entry.subject)})
