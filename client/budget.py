# SPDX-License-Identifier: Apache-2.0
"""The account of a site's privacy: the ledger, read for a person."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from client.audit import AuditLog
from client.guard.paid import refuse_replaced
from client.kit import read_kit
from client.ledger import Ledger
from client.policy import Policy, read_policy
from client.private import Privacy, default_ledger, open_ledger, persons
from client.spending import Limit, Spending
from pasta_model.config import settings_from_toml
from pasta_model.data.store import SiteStore
from pasta_model.federated_sections import PrivacySettings
from pasta_model.privacy.accounting import epsilon
from pasta_model.privacy.plan import plan_for

SPLITS = {"train": "those who train", "valid": "those who validate"}


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
        Epsilon of the person of whom most was released, by PRV and by RDP, among those who train and those
        who validate.
    limit
        The policy's, over all runs.
    """

    site: str
    subjects: int
    delta: float
    limit: float | None
    rows: tuple[Row, ...]
    spent: dict[str, tuple[float, float]]
    lines: int
    hash: str

    def told(self) -> dict[str, Any]:
        """Return everything as plain values."""
        left = {} if self.limit is None else {n: max(0.0, self.limit - s) for n, (s, _) in self.spent.items()}
        return {**asdict(self), "unit": "subject", "left": left}


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
        When it was changed, was taken away, or is about other people.
    """
    ledger = open_ledger(place.ledger, place.store)
    if place.log is not None:
        refuse_replaced(ledger, place.log)
    delta = place.policy.max_delta if place.policy else _last_delta(ledger)
    spent = {}
    for split, name in SPLITS.items():
        group = persons(place.store, split)
        if group and not ledger.is_new:
            limit = Limit(0.0, delta)
            prv, rdp = (ledger.spent(group, limit, accountant=a) for a in ("prv", "rdp"))
            spent[name] = (prv, rdp)
    chain = ledger.chain
    return Account(
        site=place.store.site,
        subjects=len(persons(place.store, "train")),
        delta=delta,
        limit=place.policy.max_epsilon if place.policy else None,
        rows=tuple(_rows(ledger, delta)),
        spent=spent,
        lines=chain.lines,
        hash=chain.hash,
    )


def planned(place: Place, settings_file: Path) -> dict[str, Any]:
    """Return the plan of a run here, with what will be spent of a subject when it is over.

    Raises
    ------
    PastaError
        When the settings cannot be used, or the run does not fit what is left.
    """
    settings = settings_from_toml(settings_file)
    trained = persons(place.store, "train")
    if place.policy is not None:
        place.policy.refuse_run(settings, train_subjects=len(trained))
    plan = plan_for(settings, subjects=len(trained))
    Privacy(place.store, settings, place.policy, place.ledger).look()
    ledger, whole = open_ledger(place.ledger, place.store), [plan.release(plan.steps)]
    limit = Limit(0.0, place.policy.max_delta if place.policy else plan.delta)
    before = [] if ledger.is_new else ledger.releases(trained)
    return {
        **asdict(plan),
        "rdp": epsilon(whole, delta=plan.delta, accountant="rdp"),
        "afterwards": max(
            epsilon([*whole, *history], delta=limit.delta, accountant="prv") for history in before or [[]]
        ),
    }


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
