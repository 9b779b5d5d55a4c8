# SPDX-License-Identifier: Apache-2.0
"""From a hospital's scans to prepared sites: many subjects, several processes, resumable.

OUTPUT/
  sessions.tsv        every session: taken, left or refused, and why
  qc.tsv              figures; a person writes `exclude` here and runs the same command again
  qc/index.html       the cohort; a page a session beside it
  participants.tsv    the manifest of what is taken
  splits.tsv          who trains, who is held out: kept from run to run
  sub-*/ses-*/        scans in MNI space, transforms, picture, prepare.json
  sites/<site>/       the prepared site that a client trains on
  log.jsonl           each step of each session, with settings and versions
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pasta_model.data.grid import template
from pasta_model.data.manifest import Session, read_splits, write_manifest, write_splits
from pasta_model.data.metaroi import read_metaroi
from pasta_model.data.partition import By, partition_sites
from pasta_model.data.splits import apply_splits, assign_splits
from pasta_model.data.tables import write_table
from pasta_model.errors import ManifestError, Problems
from pasta_model.files import refuse_unwritable
from pasta_model.locks import only_one
from pasta_model.prepare import folders
from pasta_model.prepare.matching import match
from pasta_model.prepare.records import Decision, Pair, Visit
from pasta_model.prepare.review import read_exclusions, write_review
from pasta_model.prepare.settings import PrepareSettings
from pasta_model.prepare.sources import read_source
from pasta_model.prepare.stores import write_stores
from pasta_model.workers import process_pool

COLUMNS = ("participant_id", "session_id", "outcome", "reason", "mri", "pet", "days_apart")


@dataclass(frozen=True)
class PrepareJob:
    """What to prepare, and how.

    Attributes
    ----------
    source
        A BIDS folder, a table, or HDF5 files.
    site
        Name of the hospital, in place of what the source says.
    limit_days
        Largest distance in time of an MRI and its PET.
    unpaired
        Whether subjects without any PET are merely left out, and not a mistake.
    splits
        Table of splits to keep to; by default the output's own from an earlier run.
    partition, smallest
        Who is at which site in a simulation (see `data.partition`).
    metaroi
        The user's own MetaROI map, NIfTI in MNI space; by default the atlas's.
    """

    source: tuple[Path, ...]
    output: Path
    settings: PrepareSettings = field(default_factory=PrepareSettings)
    site: str | None = None
    limit_days: float = 180.0
    unpaired: bool = False
    splits: Path | None = None
    valid: float = 0.1
    test: float = 0.2
    seed: int = 2026
    partition: By = "site"
    smallest: int = 0
    metaroi: Path | None = None
    workers: int = 1


@dataclass(frozen=True)
class PreparedSite:
    """What came of it: a decision about every session, and the prepared sites."""

    decisions: tuple[Decision, ...]
    sites: tuple[Path, ...]

    def raise_if_refused(self) -> None:
        """Raise one error with a line for every session that must be mended."""
        problems = Problems("sessions that could not be used (the others are prepared)")
        for d in self.decisions:
            if d.outcome == "refused":
                problems.add(f"{d.subject} {d.session}: {d.reason}")
        problems.raise_if_any(ManifestError)


def prepare_site(
    job: PrepareJob, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> PreparedSite:
    """Prepare every session that can be used, then tables, pages and the sites' stores.

    Raises
    ------
    ManifestError
        When nothing can be read, or no session is left.
    SplitError
        When a person would be in two splits.
    BusyError
        When another process prepares into the same folder.
    """
    refuse_unwritable(job.output)
    if job.metaroi:  # a map that cannot be used is known before any work is done
        read_metaroi(job.metaroi, template(job.settings.spacing).crop)
    visits = read_source(job.source, site=job.site)
    with only_one(job.output, inside=True):
        return _prepared_site(job, visits, progress)


def _prepared_site(
    job: PrepareJob, visits: Sequence[Visit], progress: Callable[[int, int], None]
) -> PreparedSite:
    folders.remove_partial(job.output)
    pairs, decisions = match(visits, limit_days=job.limit_days, require_pet=not job.unpaired)
    exclusions = read_exclusions(job.output / "qc.tsv")
    if pairs:
        _with_splits(job, pairs)  # what cannot be split is known before the work is done
    records = _prepare_all(job, pairs, progress)
    decisions = tuple(_final(d, records, exclusions) for d in decisions)
    write_table(job.output / "sessions.tsv", COLUMNS, [_row(d) for d in decisions])
    whole = [p for p in pairs if "error" not in records[p.name]]
    write_review(job.output, whole, records, exclusions)
    taken = [p for p in whole if p.name not in exclusions]
    if not taken:
        PreparedSite(decisions, ()).raise_if_refused()
        raise ManifestError(f"{job.output}: no session is left; sessions.tsv says why of each")
    sessions = _manifest(job, taken)
    sites = write_stores(job.output, sessions, records, spacing=job.settings.spacing, metaroi=job.metaroi)
    return PreparedSite(decisions, sites)


def _prepare_all(
    job: PrepareJob, pairs: Sequence[Pair], progress: Callable[[int, int], None]
) -> dict[str, dict[str, Any]]:
    """Prepare pairs in several processes; return their records by name."""
    records: dict[str, dict[str, Any]] = {}
    if pairs:
        job.output.mkdir(parents=True, exist_ok=True)
    for done, (name, record) in enumerate(_records(job, pairs), start=1):
        records[name] = record
        _log(job.output / "log.jsonl", name, record)
        progress(done, len(pairs))
    return records


def _records(job: PrepareJob, pairs: Sequence[Pair]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield names and records as they are ready; one worker works in this process."""
    workers = min(job.workers, len(pairs))
    if workers <= 1:
        yield from ((p.name, folders.prepare_one(p, job.output, job.settings)) for p in pairs)
        return
    with process_pool(workers) as pool:
        tasks = {pool.submit(folders.prepare_one, p, job.output, job.settings): p.name for p in pairs}
        yield from ((tasks[task], task.result()) for task in as_completed(tasks))


def _log(path: Path, name: str, record: Mapping[str, Any]) -> None:
    if record.get("kept"):
        return
    line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "session": name, **record}
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(line, sort_keys=True) + "\n")


def _final(
    decision: Decision, records: Mapping[str, Mapping[str, Any]], exclusions: Mapping[str, str]
) -> Decision:
    """Turn a taken session into a refused or left one, where its scans or a person say so."""
    name = f"{decision.subject}_{decision.session}"
    if decision.outcome != "taken":
        return decision
    if "error" in records[name]:
        return replace(decision, outcome="refused", reason=str(records[name]["error"]))
    if name in exclusions:
        return replace(
            decision, outcome="left", reason=f"excluded in qc.tsv: {exclusions[name] or 'no comment'}"
        )
    return decision


def _row(decision: Decision) -> list[str]:
    days = "n/a" if decision.days_apart is None else f"{decision.days_apart:.0f}"
    reason = " ".join(decision.reason.split())
    scans = (decision.mri or "n/a", decision.pet or "n/a")
    return [decision.subject, decision.session, decision.outcome, reason, *scans, days]


def _with_splits(job: PrepareJob, pairs: Sequence[Pair]) -> tuple[tuple[Session, ...], dict[str, str]]:
    """Return the sessions with site and split, and the table of splits with those of earlier runs."""
    sessions = tuple(_session(job.output, p) for p in pairs)
    sessions = partition_sites(sessions, by=job.partition, smallest=job.smallest)
    kept = job.splits or job.output / "splits.tsv"
    given = read_splits(kept) if job.splits or kept.is_file() else {}
    own = {s.subject: s.split for s in sessions if s.split}  # of the published files
    splits = assign_splits(sessions, valid=job.valid, test=job.test, seed=job.seed, given={**own, **given})
    sessions = apply_splits(tuple(replace(s, split=None) for s in sessions), splits)
    return sessions, {**given, **splits}


def _manifest(job: PrepareJob, pairs: Sequence[Pair]) -> tuple[Session, ...]:
    """Write participants.tsv and splits.tsv of what is taken; return its sessions."""
    sessions, splits = _with_splits(job, pairs)
    write_splits(job.output / "splits.tsv", splits)
    write_manifest(job.output / "participants.tsv", sessions)
    return sessions


def _session(output: Path, pair: Pair) -> Session:
    folder = folders.session_folder(output, pair)
    visit = pair.visit
    return Session(
        subject=visit.subject, session=visit.session, site=visit.site, diagnosis=visit.diagnosis,
        mri=folder / folders.mri_name(pair.name), pet=folder / folders.pet_name(pair.name),
        clinical=visit.clinical, split=visit.split, rid=visit.rid, phase=visit.phase,
    )  # fmt: skip
