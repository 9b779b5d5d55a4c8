# SPDX-License-Identifier: Apache-2.0
"""Regional measures of made-up scans; the logistic reader on labels that mean something, and nothing."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pasta_model.data.grid import template
from pasta_model.data.metaroi import region_map
from pasta_model.diagnosis.folds import person_folds
from pasta_model.diagnosis.regions import ELLIPSOIDS, mri_measures, read_regions, regional_measures
from pasta_model.errors import VolumeError
from pasta_model.metrics.regions import metaroi_suvr

CROP = template(3.0).crop
VENTRICLE = region_map(CROP, ELLIPSOIDS[2]) > 0.5


def test_mri_of_one_grey() -> None:
    found = mri_measures(np.full(CROP.shape, 7.0, np.float32), grid=CROP)
    assert len(found) == 20
    assert set(found.values()) == {1.0}


def test_fluid_is_counted_where_it_is() -> None:
    mri = np.full(CROP.shape, 200.0, np.float32)
    inside = np.argwhere(VENTRICLE)
    for x, y, z in inside[: len(inside) // 4]:
        mri[x, y, z] = 60.0  # 0.3 of the median
    found = mri_measures(mri, grid=CROP)
    quarter = (len(inside) // 4) / len(inside)
    assert found["ventricle_left_tissue"] == pytest.approx(1 - quarter)
    assert found["ventricle_left_level"] == pytest.approx(1 - 0.7 * quarter)
    assert found["ventricle_right_tissue"] == 1
    assert mri_measures(3.5 * mri, grid=CROP) == pytest.approx(found), "units are arbitrary"


def test_outside_the_brain_nothing_is_tissue() -> None:
    mri = np.where(VENTRICLE, 0.0, 5.0).astype(np.float32)
    assert mri_measures(mri, grid=CROP)["ventricle_left_tissue"] == 0


def test_ellipsoids_mirror_each_other() -> None:
    for left, right in (ELLIPSOIDS[:2], ELLIPSOIDS[2:]):
        x, y, z = left.centre
        assert replace(right, name=left.name, centre=(-right.centre[0], y, z)) == left
        assert x < 0


def test_pet_is_read_by_the_metaroi() -> None:
    pet = np.random.default_rng(0).uniform(0.5, 2, CROP.shape).astype(np.float32)
    network = np.moveaxis(pet, 2, 0)
    assert regional_measures(network, kind="U-Net", grid=CROP) == metaroi_suvr(pet, grid=CROP)


def test_no_brain() -> None:
    with pytest.raises(VolumeError, match="no voxel above zero"):
        mri_measures(np.zeros(CROP.shape, np.float32), grid=CROP)


def test_reader_is_scikit_learns_on_standardised_rows() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(40) % 2
    train, test = rng.normal(size=(40, 3)) + labels[:, None], rng.normal(size=(5, 3))
    found = read_regions(train, labels, {"a": test, "b": test + 1}, penalty=0.5)
    mean, spread = train.mean(0), train.std(0)
    wanted = LogisticRegression(C=0.5).fit((train - mean) / spread, labels)
    for name, rows in (("a", test), ("b", test + 1)):
        np.testing.assert_allclose(found[name], wanted.predict_proba((rows - mean) / spread), atol=1e-4)


@pytest.mark.parametrize(("signal", "low", "high"), [(0.0, 0.42, 0.58), (1.0, 0.8, 1.0)])
def test_labels_by_lot_give_a_coin(signal: float, low: float, high: float) -> None:
    aucs = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        labels = rng.permutation(np.arange(60) % 2)
        rows = rng.normal(size=(60, 5)) + signal * labels[:, None]
        held = person_folds([f"p{n:02}" for n in range(60)], labels.tolist(), folds=5, seed=seed)
        found = np.zeros((60, 2))
        for fold in range(5):
            train, test = held != fold, held == fold
            found[test] = read_regions(rows[train], labels[train], {"": rows[test]}, penalty=1.0)[""]
        aucs.append(roc_auc_score(labels, found[:, 1]))
    assert low < np.mean(aucs) < high
