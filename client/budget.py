# SPDX-License-Identifier: Apache-2.0
"""The account of a site's privacy: the ledger, read for a person."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from client.audit import AuditLog
from client.chain import Entry
from client.guard.paid import LINES, refuse_replaced
from client.kit import read_kit
from client.ledger import Ledger
from client.memory import run_name
from client.people import Names, default_ledger, names, open_ledger
from client.policy import Policy, read_policy
from client.private import TRAINING, VALIDATION, Privacy, refuse_large_delta
from client.spending import Limit, Spending
from pasta_model.config import settings_from_toml
from pasta_model.data.store import SiteStore
from pasta_model.exchange.contents import TRAIN
from pasta_model.federated_sections import PrivacySettings
from pasta_model.privacy.accounting import Accountant, Release, epsilon
from pasta_model.privacy.plan import ErrorPlan, Plan, error_plan, plan_for

SPLITS = {"train": "those who train", "valid": "those who validate"}
OTHERS = "those of earlier runs"
BOTH: tuple[Accountant, ...] = ("prv", "rdp")


@dataclass(frozen=True)
class Place:
    """Where a site's store, policy, ledger and log are; no policy and no log where there is no kit."""

    store: SiteStore
    policy: Policy | None
    ledger: Path
    log: AuditLog | None = None


@dataclass(frozen=True)
class Row:
    """What one run released by one mechanism."""

    run: str
    mechanism: str
    rounds: int
    steps: int
    noise_multiplier: float
    sampling_rate: float
    epsilon: float
    first: str
    last: str


@dataclass(frozen=True)
class Account:
    """All that was spent.

    Attributes
    ----------
    spent
        Epsilon of the person of whom most was released, by PRV and by RDP, among those who train, those who
        validate, and those of earlier runs who now do neither.
    limit
        The policy's, over all runs.
    ledger
        Its file: all kits and stores that name it share the account; those that name another have their own.
    bare
        Updates of runs without subject privacy that left; no epsilon covers them.
    """

    site: str
    subjects: int
    delta: float
    limit: float | None
    rows: tuple[Row, ...]
    spent: dict[str, tuple[float, float]]
    lines: int
    hash: str
    ledger: str = ""
    bare: int = 0

    @property
    def run(self) -> str:
        """The only run in the ledger, which is judged by the tighter accountant; else empty."""
        runs = {row.run for row in self.rows}
        return runs.pop() if len(runs) == 1 else ""

    def left(self, group: str, *, run: str = "") -> float:
        """Return what the policy still allows a new run, or one that goes on: as it will be judged.

        Beside another run, one counts by RDP (see `Ledger.careful`).
        """
        prv, rdp = self.spent[group]
        beside_others = any(row.run != run for row in self.rows)
        return max(0.0, (self.limit or 0.0) - (rdp if beside_others else prv))

    def told(self) -> dict[str, Any]:
        """Return everything as plain values."""
        groups = () if self.limit is None else tuple(self.spent)
        left = {name: self.left(name) for name in groups}
        going_on = {self.run: {n: self.left(n, run=self.run) for n in groups}} if groups and self.run else {}
        return {**asdict(self), "unit": "subject", "left": left, "left_to_run": going_on}


def read_place(path: Path) -> Place:
    """Find store, policy and ledger of a kit, or of a store alone.

    Raises
    ------
    PastaError
        When any of them cannot be read.
    """
    if (path / "index.json").is_file():
        return Place(SiteStore(path), None, default_ledger(path))
    kit = read_kit(path, files=False)
    log = AuditLog(kit.guard.audit, site=kit.site.name, consortium=kit.site.consortium)
    return Place(SiteStore(kit.site.store), read_policy(kit.guard.policy), kit.guard.ledger, log)


def account_of(place: Place) -> Account:
    """Read the ledger.

    Raises
    ------
    PrivacyError
        When it was changed, was taken away, or is about other people, or when the policy's delta is too large
        for an epsilon to say anything.
    """
    if place.policy is not None:
        refuse_large_delta(place.store, {"max-delta in the site's policy": place.policy.max_delta})
    ledger = open_ledger(place.ledger, place.store)
    if place.log is not None:
        refuse_replaced(ledger, place.log)
    delta = place.policy.max_delta if place.policy else _last_delta(ledger)
    groups = {name: names(place.store, split) for split, name in SPLITS.items()}
    here = [person for group in groups.values() for person in group]

    def cost(group: list[Names], *, others: bool = False) -> tuple[float, float]:
        prv, rdp = (ledger.spent(group, Limit(0.0, delta, accountant=a), others=others) for a in BOTH)
        return prv, rdp

    spent = {name: cost(group) for name, group in groups.items() if group}
    if ledger.releases(here, others=True):
        spent[OTHERS] = cost(here, others=True)
    chain = ledger.chain
    return Account(
        site=place.store.site,
        subjects=len(place.store.persons("train")),
        delta=delta,
        limit=place.policy.max_epsilon if place.policy else None,
        rows=tuple(_rows(ledger, delta)),
        spent=spent,
        lines=chain.lines,
        hash=chain.hash,
        ledger=str(place.ledger),
        bare=0 if place.log is None else sum(map(_is_bare, place.log.entries())),
    )


def planned(place: Place, settings_file: Path) -> dict[str, Any]:
    """Return the plan of a run here, with what will be spent of a subject when it is over.

    Raises
    ------
    PastaError
        When the settings cannot be used, or the run does not fit what is left.
    """
    settings = settings_from_toml(settings_file)
    trained = place.store.persons("train")
    if place.policy is not None:
        place.policy.refuse_run(settings, train_subjects=len(trained))
    plan = plan_for(settings, subjects=len(trained))
    privacy = Privacy(place.store, settings, place.policy, place.ledger)
    privacy.refuse_unaffordable()
    ledger, run = open_ledger(place.ledger, place.store), run_name(settings)
    delta = place.policy.max_delta if place.policy else plan.delta
    limit = Limit(0.0, delta, accountant=ledger.careful(run))

    def afterwards(split: str, release: Callable[[int], Release], number: int, mechanism: str) -> float:
        rest = release(max(0, number - ledger.steps(run, mechanism)))
        return ledger.spent(names(place.store, split), limit, more=[rest])

    told: dict[str, Any] = {**asdict(plan), "rdp": _by_rdp(plan, plan.steps), "errors": None}
    told["afterwards"] = afterwards("train", plan.release, plan.steps, TRAINING)
    if privacy.tells_errors and (errors := error_plan(settings)):
        after = afterwards("valid", errors.release, errors.errors, VALIDATION)
        told["errors"] = {**asdict(errors), "rdp": _by_rdp(errors, errors.errors), "afterwards": after}
    return told


def _by_rdp(plan: Plan | ErrorPlan, steps: int) -> float:
    return epsilon([plan.release(steps)], delta=plan.delta, accountant="rdp")


def _is_bare(entry: Entry) -> bool:
    return (entry.get("event"), entry.get("kind")) == ("sent", TRAIN) and LINES not in entry


def _last_delta(ledger: Ledger) -> float:
    """Return the delta of the last run's plan, where no policy names one."""
    plans = list(ledger.plans.values())
    return float(plans[-1]["delta"]) if plans else PrivacySettings().delta


def _rows(ledger: Ledger, delta: float) -> Iterator[Row]:
    """Sum up the lines of each run and mechanism."""
    groups: dict[tuple[Any, ...], list[Spending]] = {}
    for line in ledger.spendings:
        release = line.release
        key = (line.run, line.mechanism, release.noise_multiplier, release.sampling_rate)
        groups.setdefault(key, []).append(line)
    for (run, mechanism, sigma, rate), lines in groups.items():
        yield Row(
            run,
            mechanism,
            rounds=len({line.round for line in lines}),
            steps=sum(line.release.steps for line in lines),
            noise_multiplier=sigma,
            sampling_rate=rate,
            epsilon=epsilon((line.release for line in lines), delta=delta),
            first=lines[0].time,
            last=lines[-1].time,
        )
