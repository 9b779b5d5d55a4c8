# SPDX-License-Identifier: Apache-2.0
"""The picture of the eight views: grey where nothing is low, coloured where it is, rows side by side."""

from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread

from pasta_model.data.grid import template
from pasta_model.data.volume import Volume
from pasta_model.errors import ConfigError, VolumeError
from pasta_model.norms.surface import VIEWS, surface
from pasta_model.report import surfaces
from pasta_model.report.surfaces import Z_LIMITS, surface_picture

CROP = template(3.0).crop


def z_map(value: float = 0.0) -> Volume:
    return Volume(np.full(CROP.shape, value, np.float32), CROP.affine, "z")


def colourful(pixels: np.ndarray) -> np.ndarray:
    return np.ptp(pixels[..., :3], axis=-1) > 0.15


def test_colours_begin_and_end_at_the_limits() -> None:
    seen = surface(VIEWS[0])
    painted = {
        z: surfaces._painted(seen, np.full(seen.shade.shape, z), Z_LIMITS) for z in (-1.6, -2.1, -5, -9)
    }
    assert not colourful(painted[-1.6])[seen.seen].any()
    assert colourful(painted[-2.1])[seen.seen & (seen.shade > 0.5)].all()
    np.testing.assert_array_equal(painted[-5], painted[-9])
    brightness = [painted[z][seen.seen][:, :3].sum() for z in (-2.1, -5)]
    assert brightness[0] < brightness[1]
    for picture in painted.values():
        np.testing.assert_array_equal(picture[..., 3], seen.seen)
        assert 0 <= picture.min() <= picture.max() <= 1


@pytest.mark.slow
def test_a_row_a_pet() -> None:
    png = surface_picture({"Real PET": z_map(-3.0), "A $ method": z_map()}, title="sub-A0001, 70 years")
    assert png == surface_picture(
        {"Real PET": z_map(-3.0), "A $ method": z_map()}, title="sub-A0001, 70 years"
    )
    pixels = imread(BytesIO(png))
    height, width, _ = pixels.shape
    assert width / height == pytest.approx(13.6 / (0.78 + 0.74 + 2 * 1.74), rel=0.01)
    top = round(height * 0.78 / 5.0)
    middle = top + round(height * 1.74 / 5.0)
    columns = np.linspace(0.05, 0.99, 9) * width
    for left, right in zip(columns[:-1].astype(int), columns[1:].astype(int), strict=True):
        assert colourful(pixels[top:middle, left:right]).mean() > 0.3
        letters = colourful(pixels[middle + 10 : middle + round(height * 1.4 / 5.0), left:right])
        assert letters.mean() < 0.02


def test_what_is_no_z_map_is_refused() -> None:
    with pytest.raises(VolumeError, match="at least one; found 0"):
        surface_picture({}, title="nobody")
    with pytest.raises(VolumeError, match=r"'Real PET': 'SUVR'"):
        surface_picture({"Real PET": Volume(z_map().data, CROP.affine, "SUVR"), "PASTA": z_map()}, title="")
    for limits in ((-2.0, -5.0), (-2.0, 1.0)):
        with pytest.raises(ConfigError, match="the stronger one first"):
            surface_picture({"PASTA": z_map()}, title="", limits=limits)
