# SPDX-License-Identifier: Apache-2.0
"""The MetaROI: where Landau found it, soft at its border; the references; a user's own map."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from pasta_model.data.atlas import load_atlas
from pasta_model.data.grid import Grid, template
from pasta_model.data.metaroi import (
    METAROI_REGIONS,
    PONS,
    REFERENCES,
    metaroi_map,
    read_metaroi,
    reference_mask,
    region_map,
    region_masks,
)
from pasta_model.data.volume import Volume, write_volume
from pasta_model.errors import ConfigError, VolumeError

# Published centres (Landau et al. 2011), MNI mm.
LANDAU = {
    "angular_left": (-47, -63, 37),
    "angular_right": (52, -58, 34),
    "posterior_cingulate": (3, -43, 29),
    "temporal_left": (-61, -43, -13),
    "temporal_right": (64, -52, -6),
}
HEAD = template(3.0).head
each_spacing = pytest.mark.parametrize("spacing", [1.5, 3.0])


def value_at(volume: np.ndarray, point: tuple[float, ...], grid: Grid) -> float:
    index = (np.array(point) - grid.origin) / grid.spacing
    return float(ndimage.map_coordinates(volume, index[:, None], order=1)[0])


def millilitres(mask: np.ndarray, grid: Grid) -> float:
    return float(mask.sum()) * grid.spacing**3 / 1000


class TestRegions:
    @each_spacing
    @pytest.mark.parametrize("name", LANDAU)
    def test_the_loss_looks_where_landau_found_it(self, spacing: float, name: str) -> None:
        grid = template(spacing).head
        assert value_at(metaroi_map(grid), LANDAU[name], grid) >= 0.9
        nearest = np.rint((np.array(LANDAU[name]) - grid.origin) / spacing).astype(int)
        assert metaroi_map(grid)[tuple(nearest)] >= 0.9

    @each_spacing
    def test_regions_lie_around_the_centres_and_have_the_size_of_a_gyrus(self, spacing: float) -> None:
        grid = template(spacing).crop
        masks = region_masks(grid)
        assert list(masks) == list(LANDAU) == [region.name for region in METAROI_REGIONS]
        for name, mask in masks.items():
            points = grid.coordinates()[mask]
            assert 3 < millilitres(mask, grid) < 12, name
            assert np.linalg.norm(points.mean(axis=0) - LANDAU[name]) < 4, name
            assert np.linalg.norm(points - LANDAU[name], axis=1).max() < 16, name

    def test_no_voxel_counts_for_two_regions(self) -> None:
        assert np.sum(list(region_masks(template(1.5).head).values()), axis=0).max() == 1

    def test_sizes_do_not_depend_on_the_spacing(self) -> None:
        fine, coarse = (template(spacing).head for spacing in (1.5, 3.0))
        for name, mask in region_masks(fine).items():
            wanted = millilitres(mask, fine)
            assert millilitres(region_masks(coarse)[name], coarse) == pytest.approx(wanted, rel=0.1)

    def test_the_crop_shows_what_the_head_shows(self) -> None:
        grid = template(3.0)
        np.testing.assert_array_equal(metaroi_map(grid.head)[grid.slices], metaroi_map(grid.crop))
        for name, mask in region_masks(grid.head).items():
            np.testing.assert_array_equal(mask[grid.slices], region_masks(grid.crop)[name])
            assert mask.sum() == mask[grid.slices].sum()  # none is cut off


class TestMap:
    @each_spacing
    def test_it_covers_the_regions_and_fades_within_a_few_millimetres(self, spacing: float) -> None:
        grid = template(spacing).crop
        m = metaroi_map(grid)
        inside = np.logical_or.reduce(list(region_masks(grid).values()))
        far = ndimage.distance_transform_edt(~inside, sampling=spacing) > 5 + spacing * np.sqrt(3)
        assert m.dtype == np.float32
        assert (m.min(), m.max()) == (0, 1)
        assert m[inside].min() > 0.99
        assert m[far].max() == 0
        assert ((m > 0.01) & (m < 0.99)).sum() > 1000

    def test_it_falls_with_the_distance(self) -> None:
        # A ray from the left temporal centre outwards meets no other region.
        fine = Grid((60, 1, 1), (-90.0, -43.0, -13.0), 0.5)
        m = metaroi_map(fine)[:, 0, 0]
        assert (np.diff(m) >= 0).all()
        assert m[0] == 0
        assert m[-1] > 0.99

    def test_somewhere_else_it_is_zero(self) -> None:
        elsewhere = Grid((4, 4, 4), (500.0, 500.0, 500.0), 3.0)
        assert not metaroi_map(elsewhere).any()
        assert not any(mask.any() for mask in region_masks(elsewhere).values())

    def test_what_a_caller_changes_stays_with_the_caller(self) -> None:
        metaroi_map(HEAD)[:] = 7
        region_masks(HEAD)["angular_left"][:] = True
        reference_mask(HEAD)[:] = True
        assert metaroi_map(HEAD).max() == 1
        assert not region_masks(HEAD)["angular_left"].all()
        assert not reference_mask(HEAD).all()


class TestReferences:
    def test_the_usual_one_is_the_two_ellipsoids_of_old(self) -> None:
        # Volumes of the ellipsoids, 4/3 pi abc: 4.98 and 3.62 ml.
        grid = template(1.5).head
        assert millilitres(reference_mask(grid), grid) == pytest.approx(4.98 + 3.62, rel=0.03)
        assert millilitres(reference_mask(grid, "vermis"), grid) == pytest.approx(3.62, rel=0.03)
        assert reference_mask(grid)[reference_mask(grid, "vermis")].all()

    @each_spacing
    def test_those_of_the_atlas(self, spacing: float) -> None:
        grid = template(spacing).head
        pons, cerebellum = (reference_mask(grid, name) for name in ("pons", "cerebellum"))
        assert 5 < millilitres(pons, grid) < 8
        assert 110 < millilitres(cerebellum, grid) < 130
        assert not (pons & cerebellum).any()
        ellipsoid = region_map(grid, PONS) > 0.5
        assert (ellipsoid & pons).sum() > 0.7 * min(ellipsoid.sum(), pons.sum())
        assert (reference_mask(grid, "vermis") & cerebellum).sum() > 0.6 * reference_mask(
            grid, "vermis"
        ).sum()

    @pytest.mark.parametrize("name", REFERENCES)
    def test_none_touches_the_metaroi(self, name: str) -> None:
        assert metaroi_map(HEAD)[reference_mask(HEAD, name)].max() == 0

    def test_unknown_name(self) -> None:
        wanted = "'brain', wanted one of pons-vermis, pons, vermis, cerebellum"
        with pytest.raises(ConfigError, match=wanted):
            reference_mask(HEAD, "brain")


class TestOwnMap:
    def write(self, path: Path, data: np.ndarray, affine: np.ndarray, **more: str) -> Path:
        write_volume(path, Volume(data.astype(np.float32), affine, **more))
        return path

    def test_on_the_same_grid_it_comes_back(self, tmp_path: Path) -> None:
        m = np.random.default_rng(0).uniform(0, 1, HEAD.shape)
        path = self.write(tmp_path / "m.nii.gz", m, HEAD.affine)
        np.testing.assert_allclose(read_metaroi(path, HEAD), m, atol=1e-6)

    @pytest.mark.parametrize("stored", ["RAS", "LAS"])
    def test_on_another_grid_it_is_interpolated_linearly(self, tmp_path: Path, stored: str) -> None:
        # A slope along y is exact under linear interpolation.
        fine = Grid((100, 120, 100), (-99.0, -130.0, -95.0), 2.0)
        slope = (fine.coordinates()[..., 1] + 130) / 250
        path = self.write(tmp_path / "m.nii", slope, fine.affine, stored=stored)
        wanted = (template(3.0).crop.coordinates()[..., 1] + 130) / 250
        np.testing.assert_allclose(read_metaroi(path, template(3.0).crop), wanted, atol=1e-5)

    def test_outside_the_file_it_is_zero(self, tmp_path: Path) -> None:
        small = Grid((10, 10, 10), (-10.0, -10.0, -10.0), 2.0)
        m = read_metaroi(self.write(tmp_path / "m.nii", np.ones(small.shape), small.affine), HEAD)
        inside = (np.abs(HEAD.coordinates() + 1) < 9).all(axis=-1)
        assert (m[inside] == 1).all()
        assert 0 < m.sum() < 1.5 * inside.sum()

    @pytest.mark.parametrize(
        ("values", "origin", "text"),
        [
            ((0, 5), -60.0, "a MetaROI map from 0 to 5, wanted values from 0 to 1"),
            ((-0.5, 1), -60.0, "a MetaROI map from -0.5 to 1, wanted"),
            ((0, 0), -60.0, "is 0 everywhere in the head; is it in MNI space"),
            ((0, 1), 800.0, "is 0 everywhere in the head; is it in MNI space"),
        ],
    )
    def test_refusals(self, tmp_path: Path, values, origin: float, text: str) -> None:
        grid = Grid((40, 40, 40), (origin, origin, origin), 3.0)
        data = np.full(grid.shape, values[0])
        data[10:30, 10:30, 10:30] = values[1]
        path = self.write(tmp_path / "m.nii", data, grid.affine)
        with pytest.raises(VolumeError, match=text) as error:
            read_metaroi(path, HEAD)
        assert str(error.value).startswith(f"{path}: ")

    def test_rounding_of_scaled_integers_is_forgiven(self, tmp_path: Path) -> None:
        data = np.full(HEAD.shape, 1.00001)
        assert read_metaroi(self.write(tmp_path / "m.nii", data, HEAD.affine), HEAD).max() == 1

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(VolumeError, match="no such file"):
            read_metaroi(tmp_path / "m.nii", HEAD)


def test_the_atlas_is_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        load_atlas().labels[0, 0, 0] = 1
