# SPDX-License-Identifier: Apache-2.0
"""The brain of a session is its mask's, or that of its MRI."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pasta_model.data.manifest import Session
from pasta_model.data.volume import read_volume, write_volume
from pasta_model.errors import VolumeError
from pasta_model.evaluation.brains import brain_of
from pasta_model.metrics.similarity import brain_mask


def test_a_mask_wins_even_where_the_mri_has_a_background(
    tmp_path: Path, make_session: Callable[..., Session]
) -> None:
    session = make_session("sub-1")
    mri = read_volume(session.mri)
    inside = brain_mask(mri.data)
    np.testing.assert_array_equal(brain_of(session), inside)
    write_volume(tmp_path / "mask.nii.gz", replace(mri, data=inside.astype(np.float32)))
    write_volume(session.mri, replace(mri, data=mri.data + np.float32(50)))
    np.testing.assert_array_equal(brain_of(session, tmp_path / "mask.nii.gz"), inside)
    with pytest.raises(VolumeError, match="strip the skull first"):
        brain_of(session)
