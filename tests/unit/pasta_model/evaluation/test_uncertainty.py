# SPDX-License-Identifier: Apache-2.0
"""Rows on uncertainty: twelve people whose PETs and samples come from known normals."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pasta_model.data.grid import template
from pasta_model.data.manifest import Session
from pasta_model.data.volume import Volume, read_volume, write_volume
from pasta_model.derivatives import spread_path, synthetic_path
from pasta_model.errors import ConfigError, VolumeError
from pasta_model.evaluation import uncertainty
from pasta_model.evaluation.estimates import Estimate
from pasta_model.evaluation.uncertainty_records import (
    SubjectUncertainty,
    measure_uncertainty,
    read_uncertainty,
)
from pasta_model.metrics.uncertainty import LEVELS, Prediction

SHAPE = (16, 16, 16)
MASK = np.ones(SHAPE, dtype=bool)


def session(number: int) -> Session:
    return Session(f"sub-{number}", "bl", "A", "CN", Path("mri.nii"), Path("pet.nii"))


def record(number: int, *, sure: float = 1.0, samples: int = 5, method: str = "pasta") -> SubjectUncertainty:
    """One subject; the higher its number the wider its normal; the samples spread `sure` times too little."""
    rng = np.random.default_rng(number)
    sd = (0.05 + 0.02 * number) * rng.uniform(0.5, 1.5, SHAPE)
    real, stack = sd * rng.standard_normal(SHAPE), sd * rng.standard_normal((samples, *SHAPE)) / sure
    return measure_uncertainty(session(number), 1 + real, 1 + stack, method=method, mask=MASK)


@pytest.fixture(scope="module")
def fair() -> list[SubjectUncertainty]:
    return [record(number) for number in range(12)]


@pytest.fixture(scope="module")
def sure() -> list[SubjectUncertainty]:
    return [record(number, sure=3.0) for number in range(12)]


def test_the_person_is_who_the_caller_says() -> None:
    real, stack = np.ones(SHAPE), np.random.default_rng(0).normal(1, 0.1, (3, *SHAPE))
    given = {"method": "pasta", "mask": MASK}
    assert measure_uncertainty(session(1), real, stack, **given).person == "sub-1"
    assert measure_uncertainty(session(1), real, stack, **given, person="rid:1").person == "rid:1"
    assert measure_uncertainty(session(1), real, stack[:1], **given, person="rid:1").person == "rid:1"


def test_coverage_is_nominal_where_samples_come_from_the_truth(fair) -> None:
    rows = uncertainty.coverage_rows(fair)
    assert [(row.level, row.subjects, row.method) for row in rows] == [
        (level, 12, "pasta") for level in LEVELS
    ]
    for row in rows:
        assert row.coverage.value == pytest.approx(row.level, abs=0.01)
        assert row.coverage.low < row.coverage.value < row.coverage.high
        assert row.coverage.high - row.coverage.low < 0.02
        assert row.coverage.value == pytest.approx(np.mean([r.coverage[row.level] for r in fair]))
        assert row.width.value == pytest.approx(np.mean([r.width[row.level] for r in fair]))


def test_too_sure_covers_too_little_and_one_factor_mends_that_on_others(sure) -> None:
    (row,) = uncertainty.coverage_rows(sure, levels=[0.9])
    assert row.coverage.high < 0.7
    found = uncertainty.recalibration(sure[:6], level=0.9)
    assert (found.subjects, found.level) == (6, 0.9)
    assert found.factor > 2
    before = uncertainty.recalibrated_coverage(sure[6:], replace(found, factor=1.0))[0]
    after = uncertainty.recalibrated_coverage(sure[6:], found)[0]
    assert before.coverage.value == pytest.approx(
        uncertainty.coverage_rows(sure[6:], levels=[0.9])[0].coverage.value, abs=2e-3
    )
    assert after.coverage.value == pytest.approx(0.9, abs=0.02)
    assert after.width.value == pytest.approx(found.factor * before.width.value)


def test_a_calibrated_method_needs_no_factor(fair) -> None:
    assert uncertainty.recalibration(fair, level=0.8).factor == pytest.approx(1.0, abs=0.03)


def test_error_follows_spread_over_subjects(fair) -> None:
    (row,) = uncertainty.spread_rows(fair)
    wanted = stats.spearmanr([r.error for r in fair], [r.spread for r in fair]).statistic
    assert row.correlation.value == pytest.approx(wanted)
    assert row.correlation.value > 0.9
    assert row.error.value == pytest.approx(np.mean([r.error for r in fair]))
    assert row.spread.value == pytest.approx(np.mean([r.spread for r in fair]))


def test_error_against_spread_over_voxels(fair, sure) -> None:
    for records, ratio in ((fair, 1.0), (sure, None)):
        (row,) = uncertainty.calibration_rows(records)
        assert 0.1 < row.within.value < 0.6
        if ratio:
            assert row.ratio.value == pytest.approx(1.0, abs=0.03)
        else:
            assert row.ratio.low > 2
        assert row.ence.value > 0
    curve = uncertainty.reliability_curve(fair)
    assert [point.bin for point in curve] == list(range(1, 11))
    spreads = [point.spread.value for point in curve]
    assert spreads == sorted(spreads)
    for point in curve:
        assert point.ratio.value == pytest.approx(point.error.value / point.spread.value)


def test_methods_stand_apart_and_persons_count_once(fair) -> None:
    again = [replace(r, session="m12") for r in fair]
    other = [replace(r, method="unet") for r in fair[:5]]
    rows = uncertainty.spread_rows([*fair, *again, *other])
    assert [(row.method, row.subjects) for row in rows] == [("pasta", 12), ("unet", 5)]


def test_without_spread_everything_is_not_available_with_the_reason() -> None:
    real = np.ones(SHAPE)
    flat = [
        measure_uncertainty(session(n), real, np.ones((4, *SHAPE)), method="m", mask=MASK) for n in (1, 2)
    ]
    one = [measure_uncertainty(session(n), real, np.ones((1, *SHAPE)), method="m", mask=MASK) for n in (1, 2)]
    lone = [
        measure_uncertainty(session(1), real, Prediction(real, real, 1), method="m", mask=MASK) for _ in "ab"
    ]
    for records, why in ((flat, "spread is 0"), (one, "one sample"), (lone, "one sample")):
        rows = [
            *uncertainty.coverage_rows(records),
            *uncertainty.spread_rows(records),
            *uncertainty.calibration_rows(records),
        ]
        estimates = [v for row in rows for v in vars(row).values() if isinstance(v, Estimate)]
        assert len(estimates) == 8 + 3 + 3
        assert all(e.value is None and why in e.why for e in estimates)
        assert all(row.subjects == 0 for row in rows)
        with pytest.raises(ConfigError, match="0 sessions with a spread"):
            uncertainty.recalibration(records)


def test_too_few_or_all_alike_have_no_order(fair) -> None:
    (row,) = uncertainty.spread_rows(fair[:3])
    assert row.correlation.value is None
    assert "wanted at least 4" in row.correlation.why
    assert row.error.value is not None
    (row,) = uncertainty.spread_rows([replace(r, error=0.1) for r in fair])
    assert row.correlation.value is None
    assert "no order" in row.correlation.why


def test_several_methods_or_spread_nowhere_cannot_be_recalibrated(fair) -> None:
    with pytest.raises(ConfigError, match="of 2 methods"):
        uncertainty.recalibration([fair[0], replace(fair[1], method="unet")])
    with pytest.raises(ConfigError, match="no factor is enough"):
        uncertainty.recalibration([replace(fair[0], ratios=np.full(1001, np.inf))])


def test_volumes_that_do_not_match_are_a_mistake() -> None:
    with pytest.raises(VolumeError, match="one 3D shape"):
        measure_uncertainty(session(1), np.ones((4, 4, 4)), np.ones((3, *SHAPE)), method="m", mask=MASK)


def test_regions_need_samples() -> None:
    grid, rng = template(3.0).head, np.random.default_rng(0)
    mask = np.ones(grid.shape, dtype=bool)
    records = []
    for number in range(3):
        level = rng.normal(1.2, 0.1, size=6)  # of the whole brain, in each draw
        stack = level[:, None, None, None] + np.zeros(grid.shape) + 1e-3 * np.indices(grid.shape)[0] % 0.01
        for predicted in (stack[1:], Prediction.of(stack[1:])):
            found = measure_uncertainty(
                session(number), stack[0], predicted, method="m", mask=mask, grid=grid, levels=(0.5, 0.9)
            )
            records.append(found)
    assert all(r.regions for r in records[::2])
    assert not any(r.regions for r in records[1::2])
    rows = uncertainty.region_coverage_rows(records, levels=(0.5, 0.9))
    assert len(rows) == 6 * 2
    assert {row.subjects for row in rows} == {3}
    whole = next(row for row in rows if (row.region, row.level) == ("metaroi", 0.9))
    assert whole.coverage.value == pytest.approx(
        np.mean([r.regions["metaroi"][0.9][0] for r in records[::2]])
    )
    assert whole.width.value > 0


# --- From files -----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, make_session: Callable[..., Session]) -> tuple[Session, Path]:
    """A session, and a folder with mean, spread and sidecar of four samples."""
    one, out = make_session("sub-1"), tmp_path / "synthetic"
    real = read_volume(one.pet, unit="SUVR")
    path = synthetic_path(out, one)
    write_volume(path, Volume(real.data * 0.9, real.affine, "SUVR"))
    write_volume(spread_path(path), Volume(real.data * 0.1, real.affine, "SUVR"))
    about = {"Method": "diffusion", "Sampling": {"samples": 4}}
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(about))
    return one, out


def test_a_folder_of_synthesis(folder) -> None:
    one, out = folder
    found = read_uncertainty(one, out, method="pasta")
    assert found.samples == 4
    assert found.spread == pytest.approx(found.error, rel=1e-3), "10 % off, and 10 % spread"
    assert found.coverage[0.5] == 0  # t_3(0.75) sqrt(1.25) is 0.855 of the error
    assert found.coverage[0.8] == 1


def test_a_folder_without_spread_says_so(folder) -> None:
    one, out = folder
    path = synthetic_path(out, one)
    spread_path(path).unlink()
    assert "one sample" in read_uncertainty(one, out, method="pasta").why
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text("{}")
    with pytest.raises(VolumeError, match="how many samples"):
        read_uncertainty(one, out, method="pasta")
    path.unlink()
    with pytest.raises(VolumeError, match="no such file"):
        read_uncertainty(one, out, method="pasta")


def test_a_spread_on_another_grid_is_refused(folder) -> None:
    one, out = folder
    spread = spread_path(synthetic_path(out, one))
    write_volume(spread, Volume(np.ones((4, 4, 4), np.float32), np.eye(4), "SUVR"))
    with pytest.raises(VolumeError, match="different grids"):
        read_uncertainty(one, out, method="pasta")
