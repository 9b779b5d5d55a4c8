# SPDX-License-Identifier: Apache-2.0
"""The distance against scipy and scikit-learn, its percentile against draws, and what is said of faults."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy import ndimage
from scipy.spatial.distance import mahalanobis

from pasta_model.data.grid import template
from pasta_model.data.volume import Volume
from pasta_model.errors import CheckpointError, FederationError, VolumeError
from pasta_model.familiarity import model
from pasta_model.familiarity.features import COUNT, NAMES, features_of
from pasta_model.familiarity.model import Familiarity, load_familiarity, save_familiarity
from pasta_model.familiarity.sums import FeatureSums

HEAD = template(3.0).head
RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(COUNT, COUNT)) + 2 * np.eye(COUNT)
CENTRE = RNG.normal(0, 3, COUNT)


def people(count: int, *, seed: int) -> np.ndarray:
    """Draw the features of so many people of one population, (count, k)."""
    return CENTRE + np.random.default_rng(seed).standard_normal((count, COUNT)) @ MIX


def fitted(count: int, *, seed: int = 1) -> Familiarity:
    return Familiarity.of(FeatureSums.of(people(count, seed=seed)))


def test_distance_is_mahalanobis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "SHRINKAGE", 0.0)
    table = people(200, seed=1)
    known = Familiarity.of(FeatureSums.of(table))
    for row in people(5, seed=2):
        wanted = mahalanobis(row, table.mean(axis=0), np.linalg.inv(np.cov(table.T)))
        assert known.check(row).distance == pytest.approx(wanted)


@pytest.mark.parametrize("count", [60, 100, 600])
def test_false_alarms_are_as_rare_as_promised_in_federations_of_any_size(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "SHRINKAGE", 0.0)
    percentiles = np.array(
        [
            known.check(row).percentile
            for seed in range(20)
            for known in [fitted(count, seed=seed)]
            for row in people(100, seed=1000 + seed)
        ]
    )
    assert (percentiles > 95).mean() == pytest.approx(0.05, abs=0.025)
    assert (percentiles > 99.5).mean() < 0.012
    assert np.median(percentiles) == pytest.approx(50, abs=6)


def test_shrinking_flags_no_more() -> None:
    known, rows = fitted(80), people(500, seed=3)
    assert np.mean([known.check(row).unlike for row in rows]) < 0.01


def test_what_stands_out_is_named_with_its_side_and_its_size() -> None:
    known = fitted(300)
    spread = np.sqrt(np.diag(known.covariance))
    far = known.mean.copy()
    far[NAMES.index("sharpness_z")] -= 6 * spread[NAMES.index("sharpness_z")]
    verdict = known.check(far)
    assert verdict.unlike
    assert verdict.percentile > 99.5
    assert verdict.reasons[0].startswith(
        "sharpness from foot to head is 6.0 sd below the training federation"
    )
    assert len(verdict.reasons) == 1
    usual = known.check(known.mean)
    assert (usual.unlike, usual.reasons, usual.distance) == (False, (), 0.0)


def test_an_unusual_combination_of_usual_features_is_named_as_such() -> None:
    covariance = np.eye(COUNT)
    covariance[0, 1] = covariance[1, 0] = 0.99
    known = Familiarity(NAMES, np.zeros(COUNT), covariance, 1000)
    odd = np.zeros(COUNT)
    odd[:2] = 2.5, -2.5
    verdict = known.check(odd)
    assert verdict.unlike
    assert all(reason.endswith("given its other features") for reason in verdict.reasons)
    assert verdict.reasons[0].split(" is ")[0] in {"brain volume", "share of dark voxels"}


def test_a_feature_without_spread_is_no_division_by_zero() -> None:
    table = people(100, seed=4)
    table[:, 3:5] = 0.1 + 0.2  # its variance is 0, or rounding below it
    known = Familiarity.of(FeatureSums.of(table))
    assert np.isfinite(known.check(table[0]).distance)
    other = table[0].copy()
    other[3] += 100
    assert known.check(other).unlike


@pytest.mark.parametrize("count", [0, 2, COUNT, 3 * COUNT - 1])
def test_too_few_persons_are_refused(count: int) -> None:
    with pytest.raises(FederationError, match=f"found {count} persons, wanted at least {3 * COUNT}"):
        fitted(count)


def test_sums_of_other_features_are_refused() -> None:
    with pytest.raises(FederationError, match="one version of the software"):
        Familiarity.of(FeatureSums.of(np.zeros((100, 3))))


# --- On disk --------------------------------------------------------------------------------


def test_comes_back_from_disk(tmp_path: Path) -> None:
    known = replace(fitted(100), spacing=3.0)
    save_familiarity(tmp_path / "f.safetensors", known)
    again = load_familiarity(tmp_path / "f.safetensors")
    assert (again.names, again.persons, again.spacing) == (NAMES, 100, 3.0)
    row = people(1, seed=9)[0]
    assert again.check(row) == known.check(row)


def _broken(path: Path, **changes: object) -> None:
    about = {"features": NAMES, "persons": 100} | changes
    arrays = {"mean": np.zeros(COUNT), "covariance": np.eye(COUNT)}
    arrays |= {k: about.pop(k) for k in ("mean", "covariance") if k in about}
    save_file(
        arrays, path, metadata={"format": str(about.pop("format", model.FORMAT)), "about": json.dumps(about)}
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "no reference of familiarity"),
        ({"persons": "many"}, "no reference of familiarity"),
        ({"persons": COUNT}, "persons"),
        ({"features": ["a"]}, "not this version's"),
        ({"mean": np.full(COUNT, np.nan)}, "wanted more than"),
        ({"covariance": np.eye(3)}, "wanted more than"),
        ({"covariance": -np.eye(COUNT)}, "that of no data"),
    ],
)
def test_a_damaged_file_is_one_message(changes: dict, message: str, tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    _broken(path, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_familiarity(path)


def test_a_file_that_is_none_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    with pytest.raises(CheckpointError, match="pasta familiarity build"):
        load_familiarity(path)
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="no reference of familiarity"):
        load_familiarity(path)


# --- Of brains ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known(make_brain: Callable[[int], Volume]) -> Familiarity:
    table = np.array([features_of(make_brain(number)) for number in range(60)])
    return Familiarity.of(FeatureSums.of(table), spacing=3.0)


@pytest.mark.slow
def test_brains_of_the_same_kind_are_familiar(known: Familiarity, make_brain) -> None:
    assert sum(known.judge(make_brain(1000 + number)).unlike for number in range(20)) <= 1


FAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "blur": lambda v: np.where(v > 0, ndimage.gaussian_filter(v, 1.0) + 1e-3, 0),
    "noise": lambda v: np.where(v > 0, v + 0.3 * v.max() * np.random.default_rng(0).random(v.shape), 0),
    "upside down": lambda v: v[:, :, ::-1],
    "back to front": lambda v: v[:, ::-1],
    "shifted 9 mm": lambda v: np.roll(v, 3, axis=0),
    "cut off": lambda v: np.where(HEAD.coordinates()[..., 2] > 40, 0, v),
    "inverted": lambda v: np.where(v > 0, 1.1 * v.max() - v, 0),
    "random": lambda v: np.random.default_rng(0).random(v.shape),
    "phantom": lambda v: (np.linalg.norm(HEAD.coordinates() / [60, 80, 60], axis=-1) < 1) * 1.0,
    "bias field": lambda v: v * np.exp(HEAD.coordinates()[..., 1] / 60),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_flagged_with_a_reason(fault: str, known: Familiarity, make_brain) -> None:
    for number in (1000, 1001):
        mri = make_brain(number)
        verdict = known.judge(
            replace(mri, data=FAULTS[fault](mri.data.astype(np.float64)).astype(np.float32))
        )
        assert verdict.unlike
        assert verdict.reasons


@pytest.mark.slow
def test_another_grid_is_refused(known: Familiarity) -> None:
    fine = template(1.5).head
    with pytest.raises(VolumeError, match=r"voxels of 1\.5 mm, the reference is of 3\.0 mm"):
        known.judge(Volume(np.ones(fine.shape, np.float32), fine.affine))
    with pytest.raises(VolumeError, match="no grid"):
        known.judge(Volume(np.ones((5, 5, 5), np.float32), np.eye(4)))
