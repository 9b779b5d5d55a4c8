# SPDX-License-Identifier: Apache-2.0
"""Where the voxels of a session count: one brain for all that is said of it."""

from pathlib import Path

from pasta_model.data.manifest import Session
from pasta_model.data.volume import read_volume
from pasta_model.metrics.similarity import Mask, brain_mask


def brain_of(session: Session, mask: Path | None = None) -> Mask:
    """Return the brain of a session, (x, y, z): where its mask is above 0, or else that of its MRI.

    Parameters
    ----------
    mask
        A NIfTI on the grid of the session's PET, as the scores are given it.

    Raises
    ------
    VolumeError
        When it cannot be read, or the MRI has no brain, or more than that.
    """
    if mask is None:
        return brain_mask(read_volume(session.mri).data)
    brain: Mask = read_volume(mask).data > 0
    return brain
