# SPDX-License-Identifier: Apache-2.0
"""A privacy ledger of three persons, what is asked of it, and what Opacus says it must answer."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from opacus.accountants import PRVAccountant, RDPAccountant

from client.ledger import Ledger
from client.spending import Limit
from pasta_model.privacy.accounting import Release

PEOPLE = ("sub-ada", "sub-bob", "sub-cyd")
DELTA = 1e-4
STEP = Release(1.1, 0.2, 5)
PLENTY = Limit(1e3, DELTA)


def opened(folder: Path, *, people: Sequence[str] = PEOPLE, site: str = "alder") -> Ledger:
    """A new process at the site opens its ledger, for all the people of its store."""
    ledger = Ledger(folder / "ledger.jsonl", site=site, witness=folder / "store" / "state" / "ledger.json")
    ledger.open_for(people)
    return ledger


def reserve(ledger: Ledger, task: str, release: Release = STEP, **changes: object) -> None:
    """Ask for a release in round 0 of run `first`, of everybody, unless told otherwise."""
    asked: dict[str, object] = {
        "run": "first",
        "number": 0,
        "mechanism": "training",
        "persons": PEOPLE,
        "limits": [PLENTY],
    }
    asked |= changes
    asked["limits"] = [replace(limit, accountant="rdp") for limit in asked["limits"]]  # type: ignore[attr-defined]
    ledger.reserve(task, release, **asked)  # type: ignore[arg-type]


def release(ledger: Ledger, task: str, release: Release = STEP, **changes: object) -> None:
    """Reserve, and note that the answer is kept."""
    reserve(ledger, task, release, **changes)
    ledger.note_released(task)


def spent(ledger: Ledger, *people: str, run: str = "", accountant: str = "rdp") -> float:
    limit = Limit(0.0, DELTA, run, accountant=accountant)  # type: ignore[arg-type]
    return ledger.spent(people or PEOPLE, limit)


@cache
def oracle(*releases: Release, accountant: str = "rdp") -> float:
    """What Opacus's accountant says that was told of every single step."""
    found = {"rdp": RDPAccountant, "prv": PRVAccountant}[accountant]()
    for r in releases:
        for _ in range(r.steps):
            found.step(noise_multiplier=r.noise_multiplier, sample_rate=r.sampling_rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PRV: log 0
        return float(found.get_epsilon(delta=DELTA))


def content(folder: Path) -> dict[str, bytes]:
    """Every byte of the ledger and its head."""
    return {p.name: p.read_bytes() for p in folder.glob("ledger.jsonl*") if p.suffix in (".jsonl", ".head")}


def lines_of(folder: Path) -> list[bytes]:
    return (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)


def write(folder: Path, lines: Sequence[bytes]) -> None:
    (folder / "ledger.jsonl").write_bytes(b"".join(lines))
