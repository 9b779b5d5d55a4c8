# SPDX-License-Identifier: Apache-2.0
"""Standardisation beside numpy's; a network that learns from small volumes, by its budget and seed alone."""

import numpy as np
import pytest
import torch

from pasta_model.data.grid import template
from pasta_model.diagnosis.intensities import Standard, brain_of, standard_of
from pasta_model.diagnosis.settings import DiagnosisSettings, diagnosis_settings
from pasta_model.diagnosis.training import Examples, _moved, read_scans, train_network
from pasta_model.errors import ConfigError, TrainingError

SHAPE = (8, 8, 8)
QUICK = DiagnosisSettings(steps=30, width=4, batch_size=4, shift=0.0, learning_rate=3e-3)
NOTHING = np.zeros((20, 0), np.float32)
PLAIN = Standard(np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32))


def examples(*, signal: float = 2.0) -> Examples:
    rng = np.random.default_rng(1)
    labels = np.arange(20) % 2
    scans = rng.normal(size=(20, *SHAPE))
    scans[labels == 1, 2:5, :, 2:5] -= signal
    return Examples(scans.astype(np.float16), NOTHING, labels, [f"p{n}" for n in range(20)])


def train(given: Examples, standard: Standard = PLAIN, *, seed: int = 0, **changes: object):
    settings = QUICK.model_copy(update=changes)
    return train_network(given, standard, classes=2, spacing=3.0, settings=settings, seed=seed)


def test_standard_is_numpys_inside_the_brain() -> None:
    scans = np.random.default_rng(0).normal(1.0, 0.2, (9, *SHAPE)).astype(np.float16)
    scans[:, 0] = 1.0  # hardly varies
    brain = np.ones(SHAPE, bool)
    brain[-1] = False
    found = standard_of(scans, brain)
    spread = scans.astype(np.float64).std(axis=0)
    least = 0.5 * np.median(spread[brain])
    np.testing.assert_allclose(found.mean, scans.astype(np.float64).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.factor[1:-1], 1 / np.maximum(spread, least)[1:-1], rtol=1e-3)
    np.testing.assert_allclose(found.factor[0], 1 / least, rtol=1e-3)
    assert (found.factor[-1] == 0).all()


def test_scans_without_any_spread_stay_finite() -> None:
    found = standard_of(np.ones((3, *SHAPE), np.float16), np.ones(SHAPE, bool))
    assert np.isfinite(found.factor).all()


def test_brain_is_the_crops() -> None:
    brain = brain_of(template(3.0))
    assert brain.shape == (48, 48, 56)
    assert 0.4 < brain.mean() < 0.7
    assert brain[24, 24, 28]


def test_learns_and_reads_new_scans() -> None:
    given = examples()
    network = train(given)
    rng = np.random.default_rng(8)
    new = rng.normal(size=(20, *SHAPE))
    new[10:, 2:5, :, 2:5] -= 2.0
    found = read_scans(network, new.astype(np.float16), NOTHING, PLAIN, settings=QUICK)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found[10:, 1] > 0.5).mean() > 0.8
    assert (found[:10, 1] < 0.5).mean() > 0.8


def test_reading_does_not_tell_left_from_right() -> None:
    network, scans = train(examples(), steps=2), examples().scans
    found, mirrored = (
        read_scans(network, each, NOTHING, PLAIN, settings=QUICK)
        for each in (scans, scans[:, :, ::-1].copy())
    )
    np.testing.assert_allclose(found, mirrored, atol=1e-6)


def test_seed_gives_the_network() -> None:
    one, same, other = (train(examples(), steps=3, seed=seed) for seed in (1, 1, 2))
    pairs = list(zip(one.parameters(), same.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_bfloat16_on_the_way_float32_at_rest() -> None:
    network = train(examples(), steps=2, dtype="bfloat16")
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    found = read_scans(
        network, examples().scans, NOTHING, PLAIN, settings=QUICK.model_copy(update={"dtype": "bfloat16"})
    )
    assert np.isfinite(found).all()


def test_classes_and_persons_are_drawn_alike() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    given = Examples(np.zeros((5, *SHAPE), np.float16), NOTHING[:5], labels, ["a", "a", "b", "c", "d"])
    np.testing.assert_allclose(given.weights(), [0.25, 0.25, 0.5, 0.5, 0.5])


def test_moves_by_whole_voxels_and_brings_zeros() -> None:
    scans = torch.zeros(64, 1, *SHAPE)
    scans[:, :, 3, 2, 4] = 1.0
    moved = _moved(scans, 1, torch.Generator().manual_seed(0))
    assert moved.shape == scans.shape
    places = {tuple(place.tolist()) for place in moved[:, 0].nonzero()[:, 1:]}
    assert len(moved[:, 0].nonzero()) == 64
    z, x, y = (sorted({place[axis] for place in places}) for axis in range(3))
    assert (z, x, y) == ([2, 3, 4], [1, 2, 3, 4, 5, 6], [3, 4, 5])
    assert not _moved(torch.ones(8, 1, *SHAPE), 2, torch.Generator().manual_seed(0)).all()


def test_loss_that_is_not_finite_stops() -> None:
    bad = Standard(np.full(SHAPE, np.nan, np.float32), np.ones(SHAPE, np.float32))
    with pytest.raises(TrainingError, match="step 0 is not finite"):
        train(examples(), bad)


def test_settings_refuse_everything_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        diagnosis_settings(folds=1, tasks=("CN / AD",), clinical=("iq",), readers=("regions",) * 2, pace=3)
    message = str(caught.value)
    for word in ("folds", "CN / AD", "iq", "regions, regions", "pace", "5 problem"):
        assert word in message


def test_clinical_values_that_define_the_diagnosis_are_asked_for_by_name() -> None:
    assert not {"mmse", "adas13"} & set(DiagnosisSettings().clinical)
    assert "mmse" in diagnosis_settings(clinical=("age", "mmse")).clinical
