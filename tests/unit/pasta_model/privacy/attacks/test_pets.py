# SPDX-License-Identifier: Apache-2.0
"""PETs as they are compared: inside the brain, in SUVR, on one grid."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pasta_model.data.grid import template
from pasta_model.data.store import SiteStore
from pasta_model.data.volume import Volume, write_volume
from pasta_model.errors import VolumeError
from pasta_model.privacy.attacks.pets import ground_of, stored_pets, synthetic_pets

HEAD = template(3.0).head


@pytest.fixture
def store(make_store: Callable[..., SiteStore]) -> SiteStore:
    return make_store()


def put(folder: Path, subject: str, data: np.ndarray, affine: np.ndarray = HEAD.affine) -> None:
    name = f"{subject}_bl_space-MNI152_trc-18FFDG_desc-synthetic_pet.nii.gz"
    write_volume(folder / subject / "bl" / "pet" / name, Volume(data.astype(np.float32), affine, "SUVR"))


def test_the_mean_and_the_brain_are_those_of_all_sides(store) -> None:
    seen = []
    ground = ground_of([(store, [0]), (store, [1, 2])], lambda: seen.append(1))
    assert len(seen) == 3
    mri, pet = zip(*(store.slab(i, 0, store.slices) for i in (0, 1, 2)), strict=True)
    assert np.array_equal(ground.brain, np.sum([m > -1 for m in mri], axis=0) >= 2)
    suvr = (np.mean(pet, axis=0) + 1) * 1.5
    assert np.allclose(ground.mean, suvr[ground.brain], atol=1e-4)
    portions = list(stored_pets(store, [0, 1, 2, 3] * 5, ground))
    assert [len(p) for p in portions] == [16, 4]
    assert np.allclose(portions[0][:3].mean(axis=0), ground.mean, atol=1e-4)


def test_synthetic_pets_lie_as_the_stored_ones(store, tmp_path) -> None:
    ground = ground_of([(store, [0, 1, 2])], lambda: None)
    valid = store.indices("valid")
    real = (store.slab(valid[0], 0, store.slices)[1] + 1) * 1.5
    put(tmp_path, "sub-Adan", store.template.to_head(real))
    found = synthetic_pets(tmp_path, store, valid, ground)
    assert np.allclose(found, next(stored_pets(store, valid, ground)), atol=1e-3)


def test_every_session_without_a_usable_pet_is_named(store, tmp_path) -> None:
    ground = ground_of([(store, [0, 1, 2])], lambda: None)
    spoilt = np.ones(HEAD.shape)
    spoilt[3, 3, 3] = np.nan
    fine = template(1.5).head
    put(tmp_path, "sub-Aada", np.ones(fine.shape), fine.affine)
    put(tmp_path, "sub-Abob", spoilt)
    with pytest.raises(VolumeError) as refused:
        synthetic_pets(tmp_path, store, [0, 1, 2], ground)
    said = str(refused.value)
    assert "3 problem(s)" in said
    assert "sub-Aada_bl: found (113, 137, 113) voxels, wanted MNI152 3 mm" in said
    assert "NaN or infinite" in said
    assert "sub-Acyd_bl: no synthetic PET here" in said
