# SPDX-License-Identifier: Apache-2.0
"""Real PETs of a manifest laid beside candidates: one score a session and method."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pasta_model.checkpoint import file_digest
from pasta_model.data.manifest import Session
from pasta_model.data.volume import Volume, read_volume
from pasta_model.errors import Problems, VolumeError
from pasta_model.evaluation.scores import SubjectScore, refuse_other_grid, score
from pasta_model.metrics.similarity import brain_mask

LEAST_IN_BRAIN = 0.5  # of a mask; with less it is another head's, or of another space


def score_session(
    session: Session,
    candidates: Mapping[str, Volume | Path],
    *,
    mask: Path | None = None,
    person: str | None = None,
) -> list[SubjectScore]:
    """Compare each candidate, by method, with the session's real PET inside its brain.

    Parameters
    ----------
    mask
        A NIfTI on the PET's grid, above 0 in the brain; without one the positive voxels of the MRI.
    person
        As `scores.score` takes it.

    Raises
    ------
    VolumeError
        With a line for every candidate that cannot be compared.
    """
    scores, lines = try_session(session, candidates, mask=mask, person=person)
    problems = Problems("sessions that cannot be compared")
    for line in lines:
        problems.add(line)
    problems.raise_if_any(VolumeError)
    return scores


def try_session(
    session: Session,
    candidates: Mapping[str, Volume | Path],
    *,
    mask: Path | None = None,
    person: str | None = None,
) -> tuple[list[SubjectScore], list[str]]:
    """Compare as `score_session` does; return the scores, and a line for what cannot be compared."""
    try:
        real, brain = _real(session, mask)
    except VolumeError as error:
        return [], [f"{session.name}: {error}"]
    scores, lines = [], []
    for method, candidate in candidates.items():
        try:
            made = candidate if isinstance(candidate, Volume) else _synthetic(candidate, session)
            scores.append(score(real, made, session=session, method=method, mask=brain, person=person))
        except VolumeError as error:
            lines.append(f"{session.name}: {method}: {error}")
    return scores, lines


def _real(session: Session, mask: Path | None) -> tuple[Volume, NDArray[np.bool_]]:
    """Read the real PET and the brain that belongs to it."""
    real, mri = read_volume(session.pet, unit="SUVR"), read_volume(session.mri)
    refuse_other_grid(real, mri, names=("real PET", "MRI"))
    if mask is None:
        return real, brain_mask(mri.data)
    given = read_volume(mask)
    refuse_other_grid(real, given, names=("real PET", f"mask {mask}"))
    brain = given.data > 0
    if not brain.any():
        raise VolumeError(f"{mask}: the mask is empty; wanted voxels above 0 in the brain")
    inside = float((mri.data[brain] > 0).mean())
    if inside < LEAST_IN_BRAIN:
        raise VolumeError(
            f"{mask}: the mask misses the brain: {inside:.0%} of it is where the MRI is above 0, wanted"
            f" {LEAST_IN_BRAIN:.0%}; is it in the same space?"
        )
    return real, brain


def _synthetic(path: Path, session: Session) -> Volume:
    """Read a synthetic PET; one of ours must be made from the session's own MRI."""
    sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
    if path.name.endswith("desc-synthetic_pet.nii.gz") and sidecar.is_file():
        try:
            about = json.loads(sidecar.read_text(encoding="utf-8"))
            raw, digest = about.get("Preparation"), about.get("MriSha256")
        except (OSError, ValueError, AttributeError) as error:
            raise VolumeError(f"{sidecar}: damaged; synthesise the session again") from error
        if digest and not raw and digest != file_digest(session.mri):
            raise VolumeError(
                f"{path}: was made from another MRI than {session.mri} (another session, or the MRI has"
                " changed); synthesise the session again"
            )
    return read_volume(path, unit="SUVR")
