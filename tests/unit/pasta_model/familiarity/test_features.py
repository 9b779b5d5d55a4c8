# SPDX-License-Identifier: Apache-2.0
"""Each feature moves the way its name says, and no other way for what should not matter."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from pasta_model.data.grid import template
from pasta_model.data.manifest import Session
from pasta_model.data.store import prepare_store
from pasta_model.data.volume import Volume, write_volume
from pasta_model.errors import VolumeError
from pasta_model.familiarity.features import COUNT, FEATURES, NAMES, features_of, features_of_crop

GRID = template(3.0)
HEAD = GRID.head
Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


def named(mri: Volume) -> dict[str, float]:
    return dict(zip(NAMES, features_of(mri), strict=True))


def changed(mri: Volume, change: Change, *, masked: bool = True) -> Volume:
    brain = mri.data > 0
    made = change(mri.data.astype(np.float64), brain)
    if masked:
        made = np.where(brain, np.maximum(made, 1e-3 * made.max()), 0)
    return replace(mri, data=made.astype(np.float32))


@pytest.fixture(scope="module")
def brain(make_brain) -> Volume:
    return make_brain(1)


def test_features_have_names_of_their_own_and_are_finite(brain: Volume) -> None:
    assert len(set(NAMES)) == COUNT == len(FEATURES)
    assert all(feature.label and feature.low and feature.high and feature.least > 0 for feature in FEATURES)
    assert np.isfinite(features_of(brain)).all()


def test_scanner_units_do_not_matter(brain: Volume) -> None:
    np.testing.assert_allclose(
        features_of(changed(brain, lambda v, _: 3.7 * v)), features_of(brain), atol=0.02
    )


def test_volume_is_that_of_the_voxels(brain: Volume) -> None:
    ml = np.count_nonzero(GRID.to_network(brain.data)) * 27 / 1000
    assert named(brain)["volume"] == pytest.approx(np.log(ml), abs=1e-3)


def _noise(v: np.ndarray, _: np.ndarray) -> np.ndarray:
    return v + 0.2 * v.max() * np.random.default_rng(0).standard_normal(v.shape)


def _thick(v: np.ndarray, _: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter1d(v, 1.0, axis=2)


MOVES: dict[str, tuple[Change, bool, str, float]] = {  # change, in the mask, feature, by how much at least
    "noise": (_noise, True, "noise", 0.7),
    "blur": (lambda v, _: ndimage.gaussian_filter(v, 1.0), True, "sharpness_y", -0.2),
    "thick slices": (_thick, True, "sharpness_z", -0.2),
    "bias field": (lambda v, _: v * np.exp(HEAD.coordinates()[..., 1] / 100), True, "shading", 0.7),
    "inverted": (lambda v, m: 1.2 * v[m].max() - v, True, "match", -1.0),
    "upside down": (lambda v, _: v[:, :, ::-1], False, "match", -0.5),
    "one side darker": (
        lambda v, _: v * (1 - 0.2 * (HEAD.coordinates()[..., 0] > 0)),
        True,
        "asymmetry",
        0.5,
    ),
    "9 mm to the front": (lambda v, _: np.roll(v, 3, axis=1), False, "shift_y", 6.0),
    "9 mm to the right": (lambda v, _: np.roll(v, 3, axis=0), False, "shift_x", 8.0),
    "top cut off": (lambda v, _: np.where(HEAD.coordinates()[..., 2] > 45, 0, v), False, "flat_end", 0.1),
    "bottom cut off": (lambda v, _: np.where(HEAD.coordinates()[..., 2] < -30, 0, v), False, "shortfall", 5),
    "ghost": (
        lambda v, _: v + 0.3 * np.roll(v, 17, axis=1) + 0.3 * np.roll(v, -17, axis=1),
        True,
        "ripple",
        0.5,
    ),
    "hot spot": (
        lambda v, _: v * (1 + 2 * (np.abs(HEAD.coordinates()).max(axis=-1) < 11)),
        True,
        "bright",
        0.5,
    ),
    "fewer shades": (lambda v, _: np.round(v / v.max() * 4) * 0.25, True, "entropy", -1.0),
    "large dark ventricles": (
        lambda v, _: np.where(np.linalg.norm(HEAD.coordinates(), axis=-1) < 35, 0.1 * v, v),
        True,
        "csf",
        0.5,
    ),
    "flat grey and white": (lambda v, m: np.where(v > 0.4 * v.max(), v.max() * 0.8, v), True, "grey", 0.1),
    "half its size": (lambda v, _: v[:, :, :] * (HEAD.coordinates()[..., 1] < 0), False, "overlap", -0.8),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_fault_moves_the_feature_that_is_named_after_it(name: str, brain: Volume) -> None:
    change, masked, feature, least = MOVES[name]
    moved = named(changed(brain, change, masked=masked))[feature] - named(brain)[feature]
    assert moved / least > 1, f"{feature} moved by {moved}"


def test_a_store_gives_the_features_of_the_file(brain: Volume, tmp_path, make_session) -> None:
    mri = tmp_path / "sub-1_T1w.nii"
    write_volume(mri, brain)
    session: Session = make_session("sub-1", mri=mri)
    store = prepare_store(tmp_path / "site", [session], spacing=3.0)
    slab, _ = store.slab(0, 0, store.slices)
    np.testing.assert_array_equal(features_of_crop(slab, store.template), features_of(brain))


@pytest.mark.parametrize(
    "data",
    [
        np.ones(HEAD.shape),
        np.random.default_rng(0).uniform(0, 1, HEAD.shape),
        np.pad(np.ones((12, 12, 12)), [(20, 24), (20, 36), (20, 24)]),
        np.where(np.indices(HEAD.shape)[0] > 54, 1.0, 0) + (np.indices(HEAD.shape)[0] == 5),
    ],
    ids=["constant", "random", "cube", "planes"],
)
def test_what_is_no_brain_has_finite_features_too(data: np.ndarray) -> None:
    assert np.isfinite(features_of(Volume(data.astype(np.float32), HEAD.affine))).all()


def test_bad_input(brain: Volume) -> None:
    with pytest.raises(VolumeError, match="no grid"):
        features_of(Volume(brain.data[1:], HEAD.affine))
    with pytest.raises(VolumeError, match="NaN"):
        features_of(replace(brain, data=np.where(brain.data > 0, np.float32(np.nan), 0)))
    with pytest.raises(VolumeError, match="no voxel above zero"):
        features_of(replace(brain, data=np.zeros(HEAD.shape, np.float32)))
    few = np.zeros(HEAD.shape, np.float32)
    few[20:25, 20:25, 20:25] = 1
    with pytest.raises(VolumeError, match="125 voxels of brain"):
        features_of(replace(brain, data=few))
