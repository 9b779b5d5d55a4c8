# SPDX-License-Identifier: Apache-2.0
"""The site's own rules and records, and whether it runs what the coordinator runs."""

from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from client.audit import AuditLog
from client.checks.finding import Finding, cross, tick
from client.guard.paid import refuse_replaced
from client.people import names, open_ledger
from client.policy import read_policy
from client.spending import Limit
from pasta_model.data.store import SiteStore
from pasta_model.errors import PastaError

SHARED = "any other kit of the same people must name this ledger, too ([guard] ledger)"
POLICY, AUDIT, LEDGER, VERSIONS = "policy", "audit log", "privacy ledger", "versions"


def check_policy(path: Path) -> Iterator[Finding]:
    """Look whether the site's policy can be read, and say what it allows."""
    policy = read_policy(path)
    metrics = ", ".join(policy.metrics) or "no metric"
    found = (
        f"at least {policy.min_subjects} subjects, at most {policy.max_rounds} rounds, {metrics} may leave;"
        f" {len(policy.aggregations)} aggregation rule(s)"
    )
    if not policy.aggregations:
        yield cross(POLICY, "it allows no aggregation", f"name at least one in {path}")
    else:
        private = f"; only private runs, epsilon {policy.max_epsilon:g} in all"
        yield tick(POLICY, found + (private if policy.privacy_required else ""))


def check_ledger(path: Path, store: Path, *, policy: Path, log: AuditLog) -> Iterator[Finding]:
    """Look whether the privacy ledger is whole, about the people of the store, and the one of before."""
    try:
        here, allowed = SiteStore(store), read_policy(policy)
    except PastaError:  # a cross of their own
        yield tick(LEDGER, "not looked at before the scans and the policy can be read")
        return
    ledger = open_ledger(path, here)
    refuse_replaced(ledger, log)
    most = max(len(here.persons(split)) for split in ("train", "valid"))
    if most and allowed.max_delta >= 1 / most:
        advice = f"set max-delta in {policy} below {1 / most:.1g}"
        found = f"max-delta {allowed.max_delta:g} is not below 1 / {most} subjects"
        yield cross(LEDGER, found, advice)
        return
    if ledger.is_new:
        yield tick(LEDGER, "empty so far: no private run was here", f"{SHARED}: {path}")
        return
    limit = Limit(allowed.max_epsilon, allowed.max_delta, accountant=ledger.careful(""))  # for a new run
    spent = ledger.spent([*names(here, "train"), *names(here, "valid")], limit)
    judged = f"as a new run is judged, delta {limit.delta:g}, unit subject"
    found = f"epsilon {spent:.2f} of {limit.epsilon:g} is spent, {judged}"
    yield tick(LEDGER, found, f"{SHARED}: {path}")


def check_audit(log: Path, *, site: str, consortium: str) -> Iterator[Finding]:
    """Look whether the chain of the site's log holds."""
    chain = AuditLog(log, site=site, consortium=consortium).verify()
    if chain.holds:
        later = "the last line was cut off by a killed process; 'start' keeps it aside" if chain.torn else ""
        yield tick(AUDIT, f"{chain.lines} line(s), the chain holds" if chain.lines else "empty so far", later)
        return
    advice = "find out who changed it; 'pasta-client audit' shows more. Do not join before"
    yield cross(AUDIT, f"line {chain.broken_line}: {chain.reason}", advice)


def check_versions(wanted: Mapping[str, str]) -> Iterator[Finding]:
    """Compare the versions here with those the coordinator wrote into the kit."""
    if not wanted:
        yield tick(VERSIONS, "the kit does not tell the coordinator's")
        return
    here = {package: installed_version(package) for package in wanted}
    differ = {package: found for package, found in here.items() if found != wanted[package]}
    if not differ:
        yield tick(VERSIONS, ", ".join(f"{package} {found}" for package, found in here.items()))
        return
    found = "; ".join(f"{package} {have or 'missing'}" for package, have in differ.items())
    ways = " ".join(f"{package}=={wanted[package]}" for package in differ)
    yield cross(VERSIONS, found, f"pip install {ways}; the coordinator runs these")


def installed_version(package: str) -> str:
    """Return the version of an installed package, without its local part (`+cpu`); empty when missing."""
    try:
        return version(package).split("+")[0]
    except PackageNotFoundError:
        return ""
