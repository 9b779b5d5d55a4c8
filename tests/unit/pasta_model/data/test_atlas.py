# SPDX-License-Identifier: Apache-2.0
"""The regions that ship: that they are whole, small, in MNI space, and found from a bundle too."""

import sys
from pathlib import Path

import nilearn
import numpy as np
import pytest
from scipy import ndimage

from pasta_model.data import atlas
from pasta_model.data.atlas import load_atlas
from pasta_model.data.volume import Volume, read_volume
from pasta_model.errors import ConfigError

FOLDER = Path(atlas.__file__).parent


def millimetres(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask) + load_atlas().origin


@pytest.fixture(scope="module")
def grey() -> Volume:
    """Grey matter of the ICBM152 template, 0 to 255."""
    folder = Path(nilearn.__file__).parent / "datasets" / "data"
    return read_volume(folder / "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz")


def test_every_region_is_there_and_nothing_else() -> None:
    found = load_atlas()
    assert np.unique(found.labels).tolist() == list(range(17))
    assert len(set(found.names)) == 16
    sides = [name.rpartition("_") for name in found.names if "_" in name]
    assert len(sides) == 14
    assert {side for _, _, side in sides} == {"left", "right"}


def test_it_is_small_and_its_licences_travel_with_it() -> None:
    assert (FOLDER / "regions.npz").stat().st_size < 100_000
    words = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "Copyright (c) 2018, Ross Markello" in words
    assert "Neither the name of the copyright holder" in words
    assert "Louis Collins, McConnell Brain Imaging Centre" in words


def test_left_is_left_and_both_sides_are_alike() -> None:
    found = load_atlas()
    for name in found.names[::2][:7]:
        left, right = found.mask(name), found.mask(name.replace("left", "right"))
        assert millimetres(left)[:, 0].mean() < -4
        assert millimetres(right)[:, 0].mean() > 4
        assert left.sum() == pytest.approx(right.sum(), rel=0.2)


@pytest.mark.parametrize(
    ("name", "centre", "millilitres"),
    [("pons", (0, -27, -33), (4, 10)), ("cerebellum", (0, -61, -37), (100, 140))],
)
def test_reference_regions_are_where_anatomy_has_them(name, centre, millilitres) -> None:
    points = millimetres(load_atlas().mask(name))
    assert np.linalg.norm(points.mean(axis=0) - centre) < 3
    assert millilitres[0] < len(points) / 1000 < millilitres[1]


def test_the_gyri_are_grey_matter_of_the_template(grey: Volume) -> None:
    found = load_atlas()
    for name in found.names[:14]:
        index = millimetres(found.mask(name)) - grey.affine[:3, 3]
        share = np.mean(ndimage.map_coordinates(grey.data, index.T, order=1) > 127)
        assert share > 0.8, name


def test_a_bundle_without_the_file_uses_the_installed_one(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(atlas, "__file__", str(tmp_path / "atlas" / "__init__.py"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(FOLDER.parents[2])])
    assert atlas._file() == FOLDER / "regions.npz"
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ConfigError, match=r"regions\.npz: no such file; install the package again"):
        atlas._file()
