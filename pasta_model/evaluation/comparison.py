# SPDX-License-Identifier: Apache-2.0
"""The whole evaluation: several methods' folders beside the real PETs of a manifest, in several processes."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pasta_model.data.manifest import Session, read_manifest
from pasta_model.data.splits import people
from pasta_model.errors import ConfigError, Problems, VolumeError
from pasta_model.evaluation.agreement import RegionRow, agreement
from pasta_model.evaluation.folders import scaled_to_one, try_session
from pasta_model.evaluation.groups import KINDS
from pasta_model.evaluation.matching import Found, Matches, VolumeFolder, match
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import GroupRow, summarise
from pasta_model.workers import process_pool

METHOD = "synthetic"
"""Name of a method that is given without one."""

RESERVED = ("real PET", "MRI")
"""What no method may be called: tables and pictures call the real scans so."""

PAIRS_A_PROCESS = 8
"""A process starts in the time in which this many pairs are compared."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes
    ----------
    missing
        Sessions without a synthetic PET, by method, where that was allowed.
    files
        The synthetic PETs that were read: (method, session's name, path).
    masks
        By session's name, where its voxels counted; empty where that is the brain of its MRI.
    """

    scores: Sequence[SubjectScore]
    groups: Sequence[GroupRow]
    regions: Sequence[RegionRow]
    missing: Mapping[str, Sequence[str]] = field(default_factory=dict)
    files: Sequence[tuple[str, str, Path]] = ()
    masks: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What one process does at a time: a session with the PETs of all methods."""

    session: Session
    person: str
    candidates: Mapping[str, Path]
    mask: Path | None


def evaluate(
    manifest: Path | Sequence[Session],
    folders: Mapping[str, Path],
    *,
    mask: Path | None = None,
    partial: bool = False,
    smallest: int = 0,
    seed: int = 0,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> EvaluationResult:
    """Lay the synthetic PETs of several methods beside the real ones.

    Parameters
    ----------
    manifest
        The table of real PETs, or its sessions.
    folders
        Method to the folder of its PETs, in SUVR, on the grid of the real ones; see `VolumeFolder` for names.
    mask
        A NIfTI, above 0 where voxels count, for every session, or a folder with one of each; None: the
        brain of each session's MRI.
    partial
        Leave out sessions that a method has no PET of, in place of refusing.
    smallest
        Groups of fewer persons are not shown.
    seed
        Of the intervals.
    workers
        Processes; 1 for this one.

    Raises
    ------
    VolumeError
        With a line for every session and method that cannot be compared.
    ConfigError
        When no method or an unknown folder is given, or what is left out would tell of small groups.
    """
    sessions = read_manifest(manifest) if isinstance(manifest, Path) else tuple(manifest)
    _check_folders(folders)
    problems = Problems("sessions that cannot be compared")
    matches = match(sessions, folders)
    _note(matches, problems, partial=partial, smallest=smallest)
    work = _work(sessions, matches, mask, problems)
    for line in scaled_to_one([{RESERVED[0]: job.session.pet, **job.candidates} for job in work]):
        problems.add(line)
    problems.raise_if_any(VolumeError)
    scores: list[SubjectScore] = []
    for found, lines in _tried(work, workers, progress):
        scores += found
        for line in lines:
            problems.add(line)
    problems.raise_if_any(VolumeError)
    return EvaluationResult(
        scores,
        summarise(scores, by=KINDS, smallest=smallest, seed=seed),
        agreement(scores, smallest=smallest, seed=seed),
        {method: tuple(names) for method, names in matches.missing.items() if names},
        [(method, job.session.name, path) for job in work for method, path in job.candidates.items()],
        {job.session.name: job.mask for job in work if job.mask},
    )


def named_folders(words: Sequence[str]) -> dict[str, Path]:
    """Read NAME=FOLDER; a folder alone is "synthetic" where it is the only one, and else its own name.

    Raises
    ------
    ConfigError
        With a line for every method without a name or a folder, with the name of a real scan, or with that
        of another method.
    """
    problems, folders = Problems("folders of synthetic PETs"), dict[str, Path]()
    for word in words:
        name, given, path = word.partition("=")
        if not given or re.search(r"[/\\]", name):  # a path, also one with "=" in it
            path = word
            name = METHOD if len(words) == 1 else Path(word).resolve().name
        if not name.strip() or not path.strip():
            problems.add(f"{word!r}; wanted NAME=FOLDER, or a folder")
        elif name.casefold() in map(str.casefold, RESERVED):
            problems.add(f"{word!r}: the real scans are called {name!r}; choose another name")
        elif name in folders:
            problems.add(f"two folders are called {name!r}; name them: first={folders[name]} other={path}")
        else:
            folders[name] = Path(path)
    problems.raise_if_any(ConfigError)
    return folders


def _check_folders(folders: Mapping[str, Path]) -> None:
    problems = Problems("folders of synthetic PETs")
    if not folders:
        problems.add("none given; wanted at least one")
    for method, folder in folders.items():
        if not folder.is_dir():
            problems.add(f"{method}: {folder} is not a folder; check the path")
    problems.raise_if_any(ConfigError)


def _note(matches: Matches, problems: Problems, *, partial: bool, smallest: int) -> None:
    """Note what is missing where that is not allowed, and what is ambiguous."""
    lacking = {method: frozenset(names) for method, names in matches.missing.items()}
    for method, names in matches.missing.items():
        if len(names) == len(matches.found):
            problems.add(f"{method}: no session has a PET here; {next(iter(names.values()))}")
        elif not partial:
            for name, why in names.items():
                problems.add(f"{name}: {method}: {why}; or leave such sessions out with --partial")
    if partial and smallest > 1 and len(set(lacking.values())) > 1:
        problems.add(
            "the methods lack different sessions, and means of small groups could be computed from their"
            " differences; evaluate them one by one, or without --smallest"
        )
    for line in matches.problems:
        problems.add(line)


def _work(sessions: Sequence[Session], matches: Matches, mask: Path | None, problems: Problems) -> list[Work]:
    """Put sessions and their files together, with the mask of each where there is a folder of them."""
    masks = VolumeFolder(mask) if mask and mask.is_dir() else None
    persons, work = people(sessions), list[Work]()
    for session in sessions:
        found = masks.find(session) if masks else Found(mask)
        if masks and found.path is None:
            problems.add(f"{session.name}: mask: {found.problem}")
        if matches.found[session.name]:
            work.append(Work(session, persons[session.subject], matches.found[session.name], found.path))
    return work


def _tried(
    work: Sequence[Work], workers: int, progress: Progress
) -> Iterator[tuple[list[SubjectScore], list[str]]]:
    """Compare every session, in their order; another process only where it has enough to do."""
    pairs = sum(len(job.candidates) for job in work)
    workers = min(workers, len(work), pairs // PAIRS_A_PROCESS)
    if workers < 2:
        for done, job in enumerate(work, start=1):
            yield _try(job)
            progress(done, len(work))
        return
    with process_pool(workers) as pool:
        for done, found in enumerate(pool.map(_try, work), start=1):
            yield found
            progress(done, len(work))


def _try(job: Work) -> tuple[list[SubjectScore], list[str]]:
    return try_session(job.session, job.candidates, mask=job.mask, person=job.person)
