# SPDX-License-Identifier: Apache-2.0
"""The tables of a study's people, read together: a name in two of them stands for one person, or is refused.

Each hospital numbers its own people, so two tables may well have a "sub-001" each. Nothing but a RID, which
is alike at all sites, says that they are one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pasta_model.data.manifest import Session, read_manifest
from pasta_model.errors import ManifestError, Problems


def read_tables(paths: Sequence[Path]) -> list[Session]:
    """Return the sessions of all tables, in their order.

    Raises
    ------
    ManifestError
        When a table cannot be used; or with a line for every table that is named twice, every session in
        two tables, and every participant_id that would make one person of two.
    """
    times = Counter(path.resolve() for path in paths)
    once = {path.resolve(): path for path in paths}  # each read by its own name: its scans lie beside that
    tables = {path: read_manifest(path) for path in once.values()}
    problems = Problems("the study's tables do not go together")
    for place, path in once.items():
        if times[place] > 1:
            problems.add(f"{path}: named {times[place]} times, wanted once")
    for line in (*_twice(tables), *_mixed_up(tables)):
        problems.add(line)
    problems.raise_if_any(ManifestError)
    return [session for sessions in tables.values() for session in sessions]


def _twice(tables: Mapping[Path, Sequence[Session]]) -> Iterator[str]:
    """Say of each session that is in several tables in which."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path, sessions in tables.items():
        for session in sessions:
            found[session.name].append(path)
    for name, paths in sorted(found.items()):
        if len(paths) > 1:
            yield f"{name}: in {_and(paths)}; wanted one row a session: leave one out, or rename a person"


def _mixed_up(tables: Mapping[Path, Sequence[Session]]) -> Iterator[str]:
    """Say of each participant_id in several tables why it may be two people: other sites, or other RIDs."""
    found: dict[str, dict[Path, list[Session]]] = defaultdict(lambda: defaultdict(list))
    for path, sessions in tables.items():
        for session in sessions:
            found[session.subject][path].append(session)
    for subject, by_table in sorted(found.items()):
        sites = {path: frozenset(s.site for s in own) for path, own in by_table.items()}
        rids = {path: frozenset(s.person for s in own if s.rid) for path, own in by_table.items()}
        if len(frozenset().union(*rids.values())) > 1:
            where = _and(f"{_and(own)} in {path}" for path, own in rids.items() if own)
            yield f"{subject}: is {where}; wanted one RID a participant_id: rename one"
        elif len(set(sites.values())) > 1 and not all(rids.values()):
            where = _and(f"at {_and(own)} in {path}" for path, own in sites.items())
            yield f"{subject}: {where}; rename one if they are two people, give both the RID if they are one"


def _and(words: Iterable[object]) -> str:
    return " and ".join(sorted(str(word) for word in words))
