# SPDX-License-Identifier: Apache-2.0
"""A pair of volumes becomes a score: every metric, or the reason why there is none."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import mean_squared_error, structural_similarity

from pasta_model.data.grid import Grid, template
from pasta_model.data.manifest import Session
from pasta_model.data.volume import Volume
from pasta_model.errors import VolumeError
from pasta_model.evaluation.columns import ALL_METRICS, BY_NAME, FAMILIES, METRICS
from pasta_model.evaluation.scores import SubjectScore, score

GRID = template(3.0).head
CLINICAL = {"age": 71.5, "sex": 1.0}
WHO = {"session": Session("s1", "bl", "A", "CN", Path(), Path(), CLINICAL, rid="0002"), "method": "federated"}
WHOLE = np.ones(GRID.shape, bool)
BRAIN = np.linalg.norm(GRID.coordinates() / np.array([65.0, 80.0, 60.0], np.float32), axis=-1) < 1


def _pet(value: float | np.ndarray, *, affine: np.ndarray = GRID.affine, unit: str = "SUVR") -> Volume:
    return Volume(np.broadcast_to(np.asarray(value, np.float32), GRID.shape).copy(), affine, unit)


@pytest.fixture(scope="module")
def pair() -> tuple[Volume, Volume]:
    rng = np.random.default_rng(0)
    real = np.where(BRAIN, rng.uniform(0.5, 2.0, GRID.shape), 0.0)
    return _pet(real), _pet(np.where(BRAIN, real + rng.normal(scale=0.1, size=GRID.shape), 0.0))


@pytest.fixture(scope="module")
def found(pair: tuple[Volume, Volume]) -> SubjectScore:
    return score(*pair, mask=BRAIN, **WHO)


class TestScore:
    def test_says_whose_it_is(self, found: SubjectScore) -> None:
        assert (found.subject, found.session, found.site, found.diagnosis) == ("s1", "bl", "A", "CN")
        assert (found.person, found.sex, found.age, found.method) == ("rid:2", "F", 71.5, "federated")
        bare = replace(WHO["session"], clinical={"sex": None}, rid="")
        unknown = score(_pet(1.0), _pet(1.2), mask=WHOLE, session=bare, method="m")
        assert (unknown.person, unknown.sex, unknown.age) == ("s1", "", None)

    def test_has_every_metric_of_the_tables(self, found: SubjectScore) -> None:
        assert list(found.values) == [metric.name for metric in ALL_METRICS]
        assert found.why == {}
        assert None not in found.values.values()

    def test_of_a_constant_difference(self) -> None:
        values = score(_pet(1.25), _pet(1.0), mask=WHOLE, **WHO).values
        for suffix in ("", "_volume", "_slices"):
            assert values["mae" + suffix] == pytest.approx(0.25)
            assert values["mse" + suffix] == pytest.approx(0.0625)
            assert values["psnr" + suffix] == pytest.approx(20 * np.log10(3.0 / 0.25))
        assert values["metaroi_error"] == pytest.approx(0.25)
        assert values["metaroi_bias"] == pytest.approx(-0.25)
        assert (values["metaroi_real"], values["metaroi_synthetic"]) == pytest.approx((1.25, 1.0))
        assert (values["real_angular_left"], values["synthetic_temporal_right"]) == pytest.approx((1.25, 1.0))

    def test_published_scale_is_the_papers(self, pair: tuple[Volume, Volume], found: SubjectScore) -> None:
        scaled = [(v.data - v.data.min()) / np.ptp(v.data).astype(np.float64) for v in pair]
        error = scaled[1] - scaled[0]
        assert found.values["mae_volume_scaled"] == pytest.approx(np.abs(error).mean())
        assert found.values["mse_scaled"] == pytest.approx(mean_squared_error(*(v[BRAIN] for v in scaled)))
        slices = np.flatnonzero(BRAIN.any(axis=(0, 1)))
        assert found.values["mae_published"] == pytest.approx(np.abs(error[:, :, slices]).mean())
        wanted = [
            structural_similarity(
                *(v[:, :, k] for v in scaled),
                data_range=1.0,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for k in slices
        ]
        assert found.values["ssim_published"] == pytest.approx(np.mean(wanted))
        assert found.values["psnr_volume_scaled"] == pytest.approx(-10 * np.log10(np.mean(error**2)))

    def test_a_darker_pet_has_no_error_on_the_published_scale(self, pair: tuple[Volume, Volume]) -> None:
        real, _ = pair
        values = score(real, _pet(0.8 * real.data), mask=BRAIN, **WHO).values
        assert values["mae_published"] == pytest.approx(0.0, abs=1e-6)
        assert values["mae"] > 0.2

    def test_background_flatters(self, found: SubjectScore) -> None:
        assert found.values["mae_volume"] < found.values["mae_slices"] < found.values["mae"]

    def test_roughness_in_three_planes(self, pair: tuple[Volume, Volume]) -> None:
        real, _ = pair
        striped = real.data + np.where(np.arange(GRID.shape[1]) % 2, 0.3, -0.3)[None, :, None]
        values = score(real, _pet(striped), mask=BRAIN, **WHO).values
        ratios = {plane: values[f"roughness_{plane}_ratio"] for plane in ("axial", "coronal", "sagittal")}
        assert ratios["axial"] == pytest.approx(1.0, abs=1e-5)
        assert ratios["sagittal"] == pytest.approx(1.0, abs=1e-5)
        assert ratios["coronal"] > 1.2
        made, real_one = (values[f"roughness_coronal_{kind}"] for kind in ("synthetic", "real"))
        assert ratios["coronal"] == pytest.approx(made / real_one)


class TestNotAvailable:
    def test_psnr_of_the_same_volume(self, pair: tuple[Volume, Volume]) -> None:
        found = score(pair[0], pair[0], mask=BRAIN, **WHO)
        none = {name for name, value in found.values.items() if value is None}
        assert none == {name for name in BY_NAME if name.startswith("psnr")} == set(found.why)
        assert set(found.why.values()) == {"the volumes are equal"}
        assert (found.values["mae"], found.values["ssim"]) == (0.0, pytest.approx(1.0))

    def test_psnr_of_volumes_that_are_equal_where_they_are_measured(
        self, pair: tuple[Volume, Volume]
    ) -> None:
        real = pair[0]
        outside = real.data + np.where(BRAIN.any(axis=(0, 1)), 0, 0.3).astype(np.float32)
        found = score(real, _pet(outside), mask=BRAIN, **WHO)
        assert found.why["psnr"] == "the volumes are equal in the brain"
        assert found.why["psnr_slices"] == "the volumes are equal in every slice of the brain"
        assert found.values["psnr_volume"] is not None
        darker = score(real, _pet(0.5 * real.data), mask=BRAIN, **WHO)
        scaled = "the volumes are equal once each is scaled by its own range"
        assert darker.why["psnr_volume_scaled"] == scaled
        assert darker.values["psnr_volume"] is not None

    def test_one_empty_slice_takes_no_psnr_away(self, pair: tuple[Volume, Volume]) -> None:
        """The mask of another program is a voxel larger than the brain of two skull-stripped PETs."""
        larger = ndimage.binary_dilation(BRAIN)
        assert larger.any(axis=(0, 1)).sum() == BRAIN.any(axis=(0, 1)).sum() + 2
        wanted, found = (score(*pair, mask=mask, **WHO) for mask in (BRAIN, larger))
        assert found.why == {}
        for name in ("psnr_slices", "psnr_published"):
            assert found.values[name] == pytest.approx(wanted.values[name])

    def test_published_scale_of_a_constant_volume(self, pair: tuple[Volume, Volume]) -> None:
        found = score(pair[0], _pet(1.2), mask=BRAIN, **WHO)
        none = {name for name, value in found.values.items() if value is None}
        assert none == {n for n, metric in BY_NAME.items() if metric.family in {"published", "scaled"}}
        assert set(found.why.values()) == {
            "the synthetic PET is constant (1.2): it has no range to be scaled by"
        }

    def test_ratio_to_a_flat_pet(self) -> None:
        found = score(_pet(1.0), _pet(1.1), mask=BRAIN, **WHO)
        assert found.values["roughness_axial_real"] == 0.0
        assert found.values["roughness_axial_ratio"] is None
        assert found.why["roughness_axial_ratio"] == "the real PET is flat across axial slices"

    def test_roughness_of_a_thin_mask(self, pair: tuple[Volume, Volume]) -> None:
        mask = np.zeros(GRID.shape, bool)
        mask[:, :, 28] = BRAIN[:, :, 28]
        found = score(*pair, mask=mask, **WHO)
        assert found.values["roughness_axial_real"] is found.values["roughness_axial_ratio"] is None
        assert "no three neighbouring voxels" in found.why["roughness_axial_ratio"]
        assert found.values["roughness_coronal_real"] > 0

    def test_metaroi_of_another_place(self) -> None:
        far = Grid((20, 20, 20), (500.0, 0.0, 0.0), 3.0)
        rng = np.random.default_rng(0)
        pets = [Volume(rng.random(far.shape).astype(np.float32), far.affine, "SUVR") for _ in range(2)]
        found = score(*pets, mask=np.ones(far.shape, bool), **WHO)
        lost = {name for name, value in found.values.items() if value is None}
        assert lost == {name for name, metric in BY_NAME.items() if metric.family == "metaroi"}
        assert "no voxel in angular_left" in found.why["metaroi_error"]

    def test_ssim_of_a_small_volume(self) -> None:
        small = Grid((10, 20, 20), (-60.0, -60.0, -30.0), 6.0)
        pets = [Volume(np.random.default_rng(n).random(small.shape).astype(np.float32), small.affine, "SUVR")
                for n in range(2)]  # fmt: skip
        found = score(*pets, mask=np.ones(small.shape, bool), **WHO)
        assert found.why["ssim_slices"] == "SSIM needs 11 voxels along each axis, found 10"
        assert found.values["mae_slices"] > 0
        assert found.values["ssim"] is not None


class TestRefuses:
    def test_another_grid(self) -> None:
        moved = GRID.affine.copy()
        moved[0, 3] += 3.0
        with pytest.raises(VolumeError, match="real and synthetic PET lie on different grids"):
            score(_pet(1.0), _pet(1.0, affine=moved), mask=WHOLE, **WHO)

    def test_a_grid_that_is_not_ras(self) -> None:
        flipped = GRID.affine.copy()
        flipped[0, 0] *= -1
        with pytest.raises(VolumeError, match=r"not on an isotropic RAS\+ grid"):
            score(_pet(1.0, affine=flipped), _pet(1.0, affine=flipped), mask=WHOLE, **WHO)

    def test_another_unit(self) -> None:
        with pytest.raises(VolumeError, match="synthetic PET is in unit 'arbitrary'"):
            score(_pet(1.0), _pet(1.0, unit="arbitrary"), mask=WHOLE, **WHO)

    def test_nan(self) -> None:
        with pytest.raises(VolumeError, match="NaN"):
            score(_pet(1.0), _pet(np.nan), mask=WHOLE, **WHO)

    def test_an_empty_mask(self) -> None:
        with pytest.raises(VolumeError, match="not empty"):
            score(_pet(1.0), _pet(1.1), mask=~WHOLE, **WHO)


@pytest.mark.parametrize("bad", [{"mae": math.nan}, {"mae": math.inf}, {"mae": None}])
def test_a_score_never_holds_nan_and_never_nothing_without_a_reason(bad: dict[str, float | None]) -> None:
    with pytest.raises(ValueError, match="mae is"):
        SubjectScore("s", "bl", "A", "CN", "m", "s", values=bad)


def test_columns_are_known_by_family() -> None:
    assert {metric.family for metric in ALL_METRICS} == set(FAMILIES)
    assert len(BY_NAME) == len(ALL_METRICS)
    assert [metric.name for metric in METRICS] == ["mae", "psnr", "ssim", "metaroi_error"]
    assert BY_NAME["mse"].heading == "MSE (SUVR²)"
    assert BY_NAME["ssim"].heading == "SSIM"
    assert BY_NAME["mae"].text(None) == "not available"
