# SPDX-License-Identifier: Apache-2.0
"""The site's own rules and records, and whether it runs what the coordinator runs."""

from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from client.audit import AuditLog
from client.checks.finding import Finding, cross, tick
from client.policy import read_policy

POLICY, AUDIT, VERSIONS = "policy", "audit log", "versions"


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
    elif policy.privacy_required:
        advice = "set privacy-required = false, or wait for a version that offers it"
        yield cross(POLICY, "it wants differential privacy, which this version does not offer", advice)
    else:
        yield tick(POLICY, found)


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
