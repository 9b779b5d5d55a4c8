# SPDX-License-Identifier: Apache-2.0
"""What a privacy ledger is made of: limits, lines, and the chained file."""

import json
from dataclasses import dataclass
from pathlib import Path

from client.chain import Chain, ChainedLog, Entry
from pasta_model.errors import PrivacyError
from pasta_model.privacy.accounting import Accountant, Release


@dataclass(frozen=True)
class Limit:
    """What may be spent of a person.

    Attributes
    ----------
    run
        Counts the releases of this run only; empty: all that is in the ledger.
    """

    epsilon: float
    delta: float
    run: str = ""
    accountant: Accountant = "prv"

    @property
    def name(self) -> str:
        """What it is called in a message."""
        return f"run {self.run}" if self.run else "the site's policy, over all runs"


@dataclass(frozen=True)
class Spending:
    """A reserved line: a release, and whom it is about."""

    identity: str
    run: str
    round: int
    mechanism: str
    cohort: str
    release: Release
    time: str


class LedgerLog(ChainedLog):
    """The file; a ledger that is lost is not begun anew.

    Parameters
    ----------
    opener
        The site that opens it, where nobody has. Its chain begins with that name, whichever site reads on:
        that it is the right one for a store is known by the store's witness, and by its people.
    """

    error = PrivacyError
    unwritable = "nothing is released until it can"
    remedy = "put it back from a copy: without it nobody can say what was spent. Nothing is released before"
    without_head = remedy

    def __init__(self, path: Path, *, opener: str) -> None:
        super().__init__(path, whose=f"privacy ledger\n{_opener(path) or opener}")

    def verify(self) -> Chain:
        """Compare the whole file with its chain and head; where nothing was ever written, nothing is."""
        if not self.path.exists() and not self._head.exists():
            return Chain(0, self.first)
        return super().verify()


def _opener(path: Path) -> str:
    """Return the site that opened a ledger; empty where nobody has, or where its first line is damaged."""
    try:
        with path.open(encoding="utf-8") as lines:
            return str(json.loads(lines.readline())["site"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def spending_of(entry: Entry) -> Spending:
    """Read a reserved line."""
    release = Release(float(entry["noise_multiplier"]), float(entry["sampling_rate"]), int(entry["steps"]))
    names = ("task", "run", "round", "mechanism", "cohort")
    identity, run, number, mechanism, cohort = (entry[name] for name in names)
    return Spending(identity, run, number, mechanism, cohort, release, str(entry.get("time", "")))
