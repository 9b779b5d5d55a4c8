# SPDX-License-Identifier: Apache-2.0
"""Real PETs of a manifest laid beside candidates: one score a session and method."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from pasta_model.checkpoint import file_digest
from pasta_model.data.manifest import Session
from pasta_model.data.store import MAX_SUVR, MIN_SUVR
from pasta_model.data.volume import Volume, read_volume
from pasta_model.errors import Problems, VolumeError
from pasta_model.evaluation.scores import SubjectScore, common_grid, refuse_other_grid, score
from pasta_model.metrics.similarity import Mask, brain_mask

LEAST_IN_BRAIN = 0.5  # of a mask; with less it is another head's, or of another space
LEAST_RANGE = 1e-3  # SUVR; what differs by less in the whole brain is no PET
LARGEST_SCALED = 1.001  # of PETs in [0, 1], with rounding; in SUVR the mean of a region is 1


def score_session(
    session: Session,
    candidates: Mapping[str, Volume | Path],
    *,
    mask: Path | None = None,
    person: str | None = None,
) -> list[SubjectScore]:
    """Compare each candidate of our own, by method, with the session's real PET inside its brain.

    Ours are in SUVR, and one that is constant is a result: a network that collapsed.

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
    scores, lines = try_session(session, candidates, mask=mask, person=person, ours=True)
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
    ours: bool = False,
) -> tuple[list[SubjectScore], list[str]]:
    """Compare as `score_session` does; return the scores, and a line for what cannot be compared.

    Unless the candidates are ours, those that are constant in the brain, or not in SUVR, cannot be.
    """
    scores = list[SubjectScore]()
    try:
        real, brain = _real(session, mask)
    except VolumeError as error:
        return scores, [f"{session.name}: {error}"]
    unusable = _fault(real, brain)
    lines = [f"{session.name}: real PET: {session.pet}: {unusable}"] if unusable else []
    for method, candidate in candidates.items():
        try:
            made = candidate if isinstance(candidate, Volume) else _synthetic(candidate, session)
            common_grid(real, made)
            if not ours and (fault := _fault(made, brain)):
                lines.append(f"{session.name}: {method}: {candidate}: {fault}")
            elif not unusable:
                scores.append(score(real, made, session=session, method=method, mask=brain, person=person))
        except VolumeError as error:
            lines.append(f"{session.name}: {method}: {error}")
    return scores, lines


def scaled_to_one(pets: Sequence[Mapping[str, Path]]) -> list[str]:
    """Return a line for each method whose PETs, all of them, are nowhere above 1: as in [0, 1].

    In SUVR the mean of the reference region is 1, and most of the brain is above it.

    Parameters
    ----------
    pets
        Of each session by method, the real one among them. Those that cannot be read are passed over.
    """
    methods = dict.fromkeys(method for own in pets for method in own)
    highest = {method: _highest(own[method] for own in pets if method in own) for method in methods}
    return [
        f"{method}: no voxel of any PET is above 1 (the highest: {top:.3g}), as on a scale of [0, 1]; wanted"
        " SUVR: undo the scaling, value x (high - low) + low, with the two numbers that the PETs were scaled"
        " by (as published: minimum and maximum of each scan)"
        for method, top in highest.items()
        if 0 < top <= LARGEST_SCALED
    ]


def _highest(paths: Iterable[Path]) -> float:
    """Return the highest voxel of all; enough is read to know whether it is above 1."""
    top = 0.0
    for path in paths:
        with suppress(VolumeError):
            top = max(top, float(read_volume(path).data.max()))
        if top > LARGEST_SCALED:
            break
    return top


def _fault(pet: Volume, brain: Mask) -> str:
    """Say why a PET cannot be one in SUVR; empty when it can."""
    inside = pet.data[brain]
    low, high = float(inside.min()), float(inside.max())
    if high - low < LEAST_RANGE:
        return (
            f"the PET is constant in the brain ({high:g} in all {inside.size:,} voxels); leave the session"
            " out, or make the PET again"
        )
    top = float(np.quantile(inside, 0.99))
    if MIN_SUVR < top < MAX_SUVR:
        return ""
    return (
        f"the PET's 99th percentile in the brain is {top:g}, wanted {MIN_SUVR:g} to {MAX_SUVR:g}: it is not"
        " in SUVR; divide it by its mean in the reference region"
    )


def _real(session: Session, mask: Path | None) -> tuple[Volume, Mask]:
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
