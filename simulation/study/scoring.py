# SPDX-License-Identifier: Apache-2.0
"""Scores of a study's PETs: a table a method and seed, kept while the PETs stay what they are.

With several seeds, a subject's value is the mean over them; how far seeds differ is a table of its own.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pasta_model.data.manifest import Session
from pasta_model.derivatives import synthetic_path
from pasta_model.errors import Problems, VolumeError
from pasta_model.evaluation.columns import ALL_METRICS, METRICS
from pasta_model.evaluation.folders import score_session
from pasta_model.evaluation.groups import few, persons
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.tables import read_scores, write_scores
from pasta_model.files import write_text

FORMAT = 2  # of the tables; another one when a measure is computed in another way


@dataclass(frozen=True)
class ScoreJob:
    """The PETs of one method and seed, the table that their scores go to, and who each subject is."""

    method: str
    seed: int
    folder: Path
    sessions: tuple[Session, ...]
    table: Path
    persons: Mapping[str, str]

    @property
    def key(self) -> str:
        """What the table depends on: the scans as they are on the disk now, the persons, the measures."""
        told = [f"format {FORMAT}", *(metric.name for metric in ALL_METRICS)]
        for session in self.sessions:
            who = (session.name, session.site, session.diagnosis, self.persons[session.subject])
            told.append(repr((who, session.clinical)))
            for path in (session.mri, session.pet, synthetic_path(self.folder, session)):
                state = path.stat() if path.is_file() else None
                told.append(f"{path} {state.st_size} {state.st_mtime_ns}" if state else f"{path} absent")
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    @property
    def done(self) -> bool:
        """Whether the table is there and of these PETs."""
        kept = self.table.with_suffix(".key")
        return self.table.is_file() and kept.is_file() and kept.read_text(encoding="utf-8") == self.key


def score(job: ScoreJob) -> None:
    """Score the PETs of a job, unless that is done.

    Raises
    ------
    VolumeError
        With a line for every session that cannot be compared.
    """
    if job.done:
        return
    problems, scores = Problems(f"{job.folder}: sessions that cannot be compared"), list[SubjectScore]()
    for session in job.sessions:
        try:
            place = {job.method: synthetic_path(job.folder, session)}
            scores += score_session(session, place, person=job.persons[session.subject])
        except VolumeError as error:
            problems.add(str(error))
    problems.raise_if_any(VolumeError)
    job.table.with_suffix(".key").unlink(missing_ok=True)
    write_scores(job.table, scores)
    write_text(job.table.with_suffix(".key"), job.key)  # last: says that the table is whole


def all_scores(jobs: Iterable[ScoreJob]) -> list[SubjectScore]:
    """Return the scores of all jobs: of each session and method a row a seed."""
    return [one for job in jobs for one in read_scores(job.table)]


def over_seeds(scores: Iterable[SubjectScore]) -> list[SubjectScore]:
    """Return a row a session and method, its values being means over the seeds that have them."""
    found: dict[tuple[str, str, str, str], list[SubjectScore]] = {}
    for one in scores:
        found.setdefault((one.method, *one.key), []).append(one)
    return [_mean(scores) for scores in found.values()]


@dataclass(frozen=True)
class SeedRow:
    """How a method's mean over all subjects differs from seed to seed.

    Attributes
    ----------
    means
        By metric: one a seed; none where the metric is of too few persons to be shown.
    hidden
        By metric, why it is not shown.
    """

    method: str
    means: dict[str, tuple[float, ...]]
    hidden: dict[str, str] = field(default_factory=dict)

    def spread(self, metric: str) -> float | None:
        """Return the standard deviation over seeds; None with one seed."""
        values = self.means[metric]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


def between_seeds(jobs: Sequence[ScoreJob], *, smallest: int = 0) -> list[SeedRow]:
    """Return the headline means of each method by seed; none over fewer than `smallest` persons."""
    rows: dict[str, SeedRow] = {}
    for job in jobs:
        scores = read_scores(job.table)
        row = rows.setdefault(job.method, SeedRow(job.method, {metric.name: () for metric in METRICS}, {}))
        for name in row.means:
            known = [s for s in scores if s.values.get(name) is not None]
            if 0 < persons(known) < smallest:
                row.hidden[name] = few(smallest)
            elif known:
                row.means[name] += (float(np.mean([s.values[name] for s in known])),)
    return [replace(row, means=row.means | dict.fromkeys(row.hidden, ())) for row in rows.values()]


def _mean(scores: Sequence[SubjectScore]) -> SubjectScore:
    if len(scores) == 1:
        return scores[0]
    values: dict[str, float | None] = {}
    why: dict[str, str] = {}
    for name in scores[0].values:
        known = [v for s in scores if (v := s.values.get(name)) is not None]
        values[name] = float(np.mean(known)) if known else None
        if not known:
            why[name] = scores[0].why.get(name, "not measured")
    return replace(scores[0], values=values, why=why)
