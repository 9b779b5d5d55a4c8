# SPDX-License-Identifier: Apache-2.0
"""What is true of a raw twin, and how far a registration is from it.

Spaces: the head is the twin in MNI mm; the MRI and the PET each have the mm of their scanner, RAS+.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from simulation.twins.pose import Matrix, apply


@dataclass(frozen=True)
class RawTruth:
    """What is true of a raw twin and what a hospital would not know.

    Attributes
    ----------
    head_to_mri, head_to_pet
        MNI mm of the twin to mm (RAS+) of the scan's own space, (4, 4).
    bq_per_suvr
        Mean over the frames of the PET, Bq/mL, for an SUVR of 1.
    frame_starts, frame_seconds, frame_levels
        One value a frame; levels are relative to the mean frame.
    mri_white
        Scanner units of white matter before shading.
    suvr, suvr_scanned
        MetaROI SUVR of the twin's PET; and with what spills in from skull and scalp, about 1 % more, which
        is what a perfect registration of a PET without noise would find.
    landmarks
        Where the template's MetaROI centres lie in this brain, MNI mm of the twin.
    regions
        SUVR of the MetaROI regions as they lie in this brain, in the twin's PET.
    """

    subject: str
    session: str
    head_to_mri: list[list[float]]
    head_to_pet: list[list[float]]
    bq_per_suvr: float
    frame_starts: list[float]
    frame_seconds: list[float]
    frame_levels: list[float]
    mri_white: float
    suvr: float
    suvr_scanned: float
    landmarks: dict[str, list[float]]
    regions: dict[str, float]
    spacing: float

    @property
    def pet_to_mri(self) -> Matrix:
        """From mm of the PET to mm of the MRI: (4, 4), rigid."""
        moved: Matrix = np.asarray(self.head_to_mri) @ np.linalg.inv(self.head_to_pet)
        return moved


def read_truth(path: Path) -> RawTruth:
    """Read the JSON of a truth."""
    return RawTruth(**json.loads(path.read_text(encoding="utf-8")))


def landmark_error(
    estimated_raw_to_mni: ArrayLike | Callable[[Matrix], Matrix], truth: RawTruth, points_mni: ArrayLike
) -> Matrix:
    """Return how far an estimated registration of the MRI puts landmarks from where they are.

    Parameters
    ----------
    estimated_raw_to_mni
        From mm of the raw MRI to MNI mm: a matrix (4, 4), or a function of points (N, 3).
    points_mni
        Landmarks, MNI mm, (N, 3).

    Returns
    -------
    ndarray
        mm in MNI space, (N,).
    """
    raw = apply(truth.head_to_mri, points_mni)
    if callable(estimated_raw_to_mni):
        found = estimated_raw_to_mni(raw)
    else:
        found = apply(np.asarray(estimated_raw_to_mni), raw)
    error: Matrix = np.linalg.norm(found - np.asarray(points_mni), axis=-1)
    return error
