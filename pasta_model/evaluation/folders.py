# SPDX-License-Identifier: Apache-2.0
"""Real PETs of a manifest laid beside candidates: one score a session and method."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pasta_model.data.manifest import Session
from pasta_model.data.volume import Volume, read_volume
from pasta_model.derivatives import synthetic_path
from pasta_model.errors import Problems, VolumeError
from pasta_model.evaluation.scores import SubjectScore, score
from pasta_model.metrics.similarity import brain_mask


def score_session(session: Session, candidates: Mapping[str, Volume | Path]) -> list[SubjectScore]:
    """Compare each candidate, by method, with the session's real PET inside its brain."""
    real = read_volume(session.pet, unit="SUVR")
    mask = brain_mask(read_volume(session.mri).data)
    scores = []
    for method, candidate in candidates.items():
        volume = candidate if isinstance(candidate, Volume) else read_volume(candidate, unit="SUVR")
        scores.append(
            score(
                real,
                volume,
                mask=mask,
                subject=session.subject,
                session=session.session,
                site=session.site,
                diagnosis=session.diagnosis,
                method=method,
            )
        )
    return scores


def evaluate_folder(
    sessions: Sequence[Session],
    folder: Path,
    *,
    method: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[SubjectScore]:
    """Score the synthetic PETs that `pasta synthesize` wrote into a folder.

    Raises
    ------
    VolumeError
        With a line for every session without a usable pair.
    """
    problems = Problems(f"{folder}: sessions that cannot be compared")
    scores: list[SubjectScore] = []
    for done, session in enumerate(sessions, start=1):
        if not synthetic_path(folder, session).is_file():
            problems.add(f"{session.name}: no synthetic PET here; run 'pasta synthesize' first")
            continue
        try:
            scores += score_session(session, {method: synthetic_path(folder, session)})
        except VolumeError as error:
            problems.add(f"{session.name}: {error}")
        progress(done, len(sessions))
    problems.raise_if_any(VolumeError)
    return scores
