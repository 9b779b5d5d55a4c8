# SPDX-License-Identifier: Apache-2.0
"""What `pasta synthesize` left beside its PETs: the spread of several samples, and MRIs that it flagged."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pasta_model.data.manifest import Session
from pasta_model.data.splits import people
from pasta_model.derivatives import spread_path, synthetic_path
from pasta_model.errors import VolumeError
from pasta_model.evaluation.brains import brain_of
from pasta_model.evaluation.comparison import EvaluationResult
from pasta_model.evaluation.groups import few
from pasta_model.evaluation.uncertainty import CoverageRow, SpreadRow, coverage_rows, spread_rows
from pasta_model.evaluation.uncertainty_records import SubjectUncertainty, read_uncertainty, unknown
from pasta_model.report.unlike import UnlikeRow
from pasta_model.workers import process_pool


@dataclass(frozen=True)
class Told:
    """What was found beside the PETs.

    Attributes
    ----------
    spreads
        Sessions with a spread that can be used: (method, session's name).
    unlike
        Flagged MRIs by site, before small ones are hidden; empty where nobody looked.
    left_out
        Sentences on what could not be used.
    """

    coverage: tuple[CoverageRow, ...] = ()
    spread: tuple[SpreadRow, ...] = ()
    spreads: frozenset[tuple[str, str]] = frozenset()
    unlike: tuple[UnlikeRow, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Job:
    session: Session
    person: str
    method: str
    folder: Path
    mask: Path | None


def beside_pets(
    result: EvaluationResult,
    sessions: Sequence[Session],
    folders: Mapping[str, Path],
    *,
    smallest: int = 0,
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Told:
    """Measure the uncertainty of methods with several samples, and count flagged MRIs by site.

    A spread that cannot be used costs its session's uncertainty and nothing else. Methods of fewer persons
    than `smallest` are left out.
    """
    persons, named = people(sessions), {s.name: s for s in sessions}
    ours = [
        _Job(session, persons[session.subject], method, folders[method], result.masks.get(name))
        for method, name, path in result.files
        if path == synthetic_path(folders[method], session := named[name])
    ]
    jobs = [job for job in ours if spread_path(synthetic_path(job.folder, job.session)).is_file()]
    records = _records(jobs, workers=workers, progress=progress)
    shown, lines = [], list[str]()
    for method in dict.fromkeys(r.method for r in records):
        own = [r for r in records if r.method == method]
        known = [r for r in own if not r.why]
        if len({r.person for r in known}) < max(smallest, 1):
            lines.append(f"{method}, uncertainty: {few(smallest) if known else own[0].why}.")
            continue
        shown += known
        if len(known) < len(own):
            why = next(r.why for r in own if r.why)
            lines.append(f"{method}: {len(own) - len(known)} sessions have no usable spread: {why}.")
    return Told(
        tuple(coverage_rows(shown, seed=seed)),
        tuple(spread_rows(shown, seed=seed)),
        frozenset((j.method, j.session.name) for j, r in zip(jobs, records, strict=True) if not r.why),
        tuple(_unlike(ours)),
        tuple(lines),
    )


def _records(
    jobs: Sequence[_Job], *, workers: int, progress: Callable[[int, int], None]
) -> list[SubjectUncertainty]:
    records: list[SubjectUncertainty] = []
    if workers < 2 or len(jobs) < 2:
        for job in jobs:
            records.append(_record(job))
            progress(len(records), len(jobs))
        return records
    with process_pool(min(workers, len(jobs))) as pool:
        for record in pool.map(_record, jobs):
            records.append(record)
            progress(len(records), len(jobs))
    return records


def _record(job: _Job) -> SubjectUncertainty:
    try:
        about: dict[str, Any] = {"method": job.method, "person": job.person}
        return read_uncertainty(job.session, job.folder, **about, mask=brain_of(job.session, job.mask))
    except VolumeError as error:
        return unknown(job.session, job.method, str(error), person=job.person)


def _unlike(jobs: Sequence[_Job]) -> list[UnlikeRow]:
    """Count a session once: it has one MRI, whatever the number of methods."""
    verdicts = {job.session.name: (job, told) for job in jobs if (told := _familiarity(job)) is not None}
    rows = []
    for site in sorted({job.session.site for job, _ in verdicts.values()}):
        own = [(job, told) for job, told in verdicts.values() if job.session.site == site]
        reasons = Counter(reason for _, (unlike, reason) in own if unlike and reason)
        rows.append(
            UnlikeRow(
                site,
                scans=len(own),
                flagged=sum(unlike for _, (unlike, _) in own),
                reason=reasons.most_common(1)[0][0] if reasons else "",
                persons=len({job.person for job, _ in own}),
            )
        )
    return rows


def _familiarity(job: _Job) -> tuple[bool, str] | None:
    """Return whether the sidecar flags the MRI, and its first reason; None where nobody looked."""
    pet = synthetic_path(job.folder, job.session)
    try:
        about = json.loads(pet.with_name(pet.name.replace(".nii.gz", ".json")).read_text(encoding="utf-8"))
        found = about["Familiarity"]
        return bool(found["unlike"]), str(next(iter(found["reasons"]), ""))
    except (OSError, ValueError, LookupError, TypeError):
        return None
