# SPDX-License-Identifier: Apache-2.0
"""Which ledger protects a store, and by which names it knows the store's people."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from client.ledger import Ledger
from pasta_model.data.store import Entry, SiteStore

Names: TypeAlias = tuple[str, ...]  # all of one person


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


def everybody(store: SiteStore) -> list[Names]:
    """Return all persons of a store, whatever their split, each by all names."""
    return _grouped(store.entries)


def names(store: SiteStore, split: str) -> list[Names]:
    """Return the persons of a split as the ledger knows them: each by all names.

    Who a person is called may change when the data are prepared anew: with an RID that was not known before,
    or that links two subjects. The names of the subjects stay, and with them what was spent.
    """
    return _grouped(store.entries[i] for i in store.indices(split))


def _grouped(entries: Iterable[Entry]) -> list[Names]:
    found: dict[str, set[str]] = {}
    for entry in entries:
        found.setdefault(entry.person, {entry.person}).add(entry.subject)
    return sorted(tuple(sorted(group)) for group in found.values())
