# SPDX-License-Identifier: Apache-2.0
"""Eight views of the brain: which way they look, which side they see, and how deep."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from pasta_model.data.grid import template
from pasta_model.data.metaroi import region_masks
from pasta_model.data.volume import Volume
from pasta_model.errors import ConfigError, VolumeError
from pasta_model.norms import projections
from pasta_model.norms.anatomy import grey_matter, tissue_maps
from pasta_model.norms.projections import project
from pasta_model.norms.surface import VIEWS, View, surface
from pasta_model.prepare.template import template_brain

HEAD = template(3.0).head
BY_NAME = {view.name: view for view in VIEWS}
QUICK = ("right lateral", "left medial")


@lru_cache
def coordinates() -> np.ndarray:
    return HEAD.coordinates()


def volume(data) -> Volume:
    return Volume(np.asarray(data, np.float32), HEAD.affine, "z")


def vector(axis: tuple[int, int]) -> np.ndarray:
    return axis[1] * np.eye(3)[axis[0]]


@pytest.fixture
def two_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only two of the views, to be quick."""
    monkeypatch.setattr(projections, "VIEWS", tuple(BY_NAME[name] for name in QUICK))


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_no_picture_is_mirrored(view: View) -> None:
    np.testing.assert_array_equal(np.cross(vector(view.inward), vector(view.right)), -vector(view.up))
    letters = {(0, 1): "R", (0, -1): "L", (1, 1): "A", (1, -1): "P"}
    assert view.sides == (letters[view.right[0], -view.right[1]], letters[view.right])


def test_the_eight_views() -> None:
    assert [v.name for v in VIEWS] == [
        "right lateral", "left lateral", "right medial", "left medial", "anterior", "posterior", "superior",
        "inferior",
    ]  # fmt: skip
    seen_from = {v.name: (-vector(v.inward)).tolist() for v in VIEWS}
    assert seen_from["right lateral"] == seen_from["left medial"] == [1, 0, 0]
    assert seen_from["left lateral"] == seen_from["right medial"] == [-1, 0, 0]
    assert (seen_from["anterior"], seen_from["superior"]) == ([0, 1, 0], [0, 0, 1])


@pytest.mark.parametrize("name", [*QUICK, "right medial"])
def test_a_view_sees_its_side_of_the_brain(name: str) -> None:
    seen = surface(BY_NAME[name])
    x, y, z = seen.points[seen.seen].T
    assert 150 < np.ptp(y) < 200  # the template's brain is 180 mm long
    assert ((x < 0) if name == "left medial" else (x > 0)).mean() > 0.99
    rows, columns = np.nonzero(seen.seen)
    assert np.corrcoef(rows, z)[0, 1] > 0.999
    assert np.corrcoef(columns, BY_NAME[name].right[1] * y)[0, 1] > 0.999
    lengths = np.linalg.norm(seen.normals[seen.seen], axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-4)
    assert (seen.normals[seen.seen] @ vector(BY_NAME[name].inward) > 0).mean() > 0.95
    assert 0 <= seen.shade.min() < seen.shade.max() <= 1.001
    assert not seen.shade[~seen.seen].any()


def test_points_lie_on_the_brains_surface() -> None:
    seen = surface(BY_NAME["right lateral"])
    maps = tissue_maps()
    index = np.round(seen.points[seen.seen] - maps.origin).astype(int).T
    tissue = (maps.grey + maps.white)[tuple(index)]
    assert tissue.mean() == pytest.approx(0.5, abs=0.12)


def test_a_spot_is_seen_where_it_lies(two_views) -> None:
    left_cuneus = np.linalg.norm(coordinates() - [-5.0, -80.0, 22.0], axis=-1) < 7
    right_angular = np.linalg.norm(coordinates() - [52.0, -58.0, 34.0], axis=-1) < 9
    found = project(volume(-4.0 * left_cuneus - 3.0 * right_angular))
    for name, wanted, lowest in (("right lateral", (-58, 34), -3), ("left medial", (-80, 22), -4)):
        seen, z = surface(BY_NAME[name]), found[name]
        assert np.nanmin(z) == pytest.approx(lowest, abs=0.3)
        y, height = seen.points[z < lowest / 2][:, 1:].mean(axis=0)
        assert (y, height) == pytest.approx(wanted, abs=6)


def test_the_search_ends_at_its_depth(two_views) -> None:
    depth = np.abs(coordinates()[..., 0])  # from the midline outwards; white matter lies about 40 mm out
    deep = volume(np.where(depth < 30, -5.0, 0.0))
    middle = np.s_[70:110, 70:110]
    near, far = (project(deep, depth=d)["right lateral"][middle] for d in (13.5, 45))
    assert (near == 0).mean() > 0.95
    assert (far == -5).mean() > 0.95


def test_what_is_taken(two_views) -> None:
    brain = template_brain(HEAD).mask
    noise = volume(np.where(brain, np.random.default_rng(0).uniform(1, 2, HEAD.shape), 0))
    lowest, mean, highest = (project(noise, take=t)["right lateral"] for t in ("lowest", "mean", "highest"))
    seen = np.isfinite(mean)
    assert (lowest[seen] <= mean[seen] + 1e-5).all()
    assert (mean[seen] <= highest[seen] + 1e-5).all()
    flat = project(volume(np.full(HEAD.shape, -2.5)), take="mean")["right lateral"]
    np.testing.assert_allclose(flat[seen], -2.5, atol=1e-5)
    assert np.isnan(flat[~seen]).all()


def test_head_and_crop_are_projected_alike(two_views) -> None:
    known = template(3.0)
    data = np.where(np.abs(coordinates() - [52.0, -58.0, 34.0]).max(axis=-1) < 12, -3.0, 0)
    crop = Volume(data[known.slices].astype(np.float32), known.crop.affine, "z")
    whole, part = project(volume(data)), project(crop)
    for name in QUICK:
        np.testing.assert_allclose(whole[name], part[name], atol=1e-5)


def test_impossible_projections_are_refused() -> None:
    with pytest.raises(ConfigError, match="depth of -1"):
        project(volume(np.zeros(HEAD.shape)), depth=-1)
    with pytest.raises(VolumeError, match="NaN or infinite"):
        project(replace(volume(np.zeros(HEAD.shape)), data=np.full(HEAD.shape, np.nan, np.float32)))


def test_grey_matter_is_grey_matter() -> None:
    grey, brain = grey_matter(HEAD), template_brain(HEAD).mask
    assert (grey & brain).sum() / grey.sum() > 0.95
    assert 0.4 < grey.sum() / brain.sum() < 0.8
    for name, mask in region_masks(HEAD).items():  # cortex, of another atlas
        assert grey[mask].mean() > 0.7, name
    white = np.round((np.array([26, -20, 30]) - HEAD.origin) / 3).astype(int)  # beside the ventricle
    assert not grey[tuple(white)]
    grey[:] = False
    assert grey_matter(HEAD).any()
