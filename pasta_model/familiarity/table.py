# SPDX-License-Identifier: Apache-2.0
"""Verdicts on the MRIs of many sessions, and their table."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pasta_model.data.manifest import Session
from pasta_model.data.tables import write_table
from pasta_model.data.volume import read_volume
from pasta_model.errors import Problems, VolumeError
from pasta_model.familiarity.model import Familiarity, Verdict

COLUMNS = ("participant_id", "session_id", "distance", "percentile", "unlike", "reasons")


def judge_sessions(
    sessions: Sequence[Session],
    familiarity: Familiarity,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[Session, Verdict]]:
    """Judge the MRI of each session.

    Raises
    ------
    VolumeError
        With a line for every MRI that cannot be judged.
    """
    problems, found = Problems("MRIs that cannot be judged"), []
    for done, session in enumerate(sessions, start=1):
        try:
            found.append((session, familiarity.judge(read_volume(session.mri))))
        except VolumeError as error:
            problems.add(f"{session.name}: {error}")
        progress(done, len(sessions))
    problems.raise_if_any(VolumeError)
    return found


def write_verdicts(path: Path, found: Sequence[tuple[Session, Verdict]]) -> None:
    """Write a row a session, in their order."""
    rows = [
        (
            session.subject,
            session.session or "n/a",
            f"{verdict.distance:.3f}",
            f"{verdict.percentile:.3f}",
            "yes" if verdict.unlike else "no",
            "; ".join(verdict.reasons) or "n/a",
        )
        for session, verdict in found
    ]
    write_table(path, COLUMNS, rows)
