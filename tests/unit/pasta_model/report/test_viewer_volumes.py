# SPDX-License-Identifier: Apache-2.0
"""What the viewer reads is what was measured, to a step; nibabel is the judge of the files."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pasta_model.data.volume import Volume
from pasta_model.errors import VolumeError
from pasta_model.report.layers import BY_KEY
from pasta_model.report.viewer_volumes import brain_box, encode, pack, unpack, window

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


def _read(packed: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(unpack(packed))


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(np.float32, (3, 4, 5), elements=st.floats(-3, 3, width=32)),
    st.sampled_from(["real", "difference", "z_real", "uncertainty"]),
)
def test_a_volume_comes_back_to_half_a_step(data: np.ndarray, key: str) -> None:
    layer = BY_KEY[key]
    data = data if layer.signed else np.abs(data)
    found = _read(pack(data, AFFINE, layer))
    step = max(layer.step, float(np.abs(data).max()) / (127 if layer.signed else 255))
    np.testing.assert_allclose(found.get_fdata(), data, atol=0.501 * step)


@pytest.mark.parametrize("key", ["mri", "real", "difference", "z_real"])
def test_nothing_stays_nothing(key: str) -> None:
    assert not _read(pack(np.zeros((3, 3, 3), np.float32), AFFINE, BY_KEY[key])).get_fdata().any()


def test_a_hundredth_of_suvr_is_kept() -> None:
    data = np.array([0.0, 0.01, 1.23, 2.0], np.float32).reshape(4, 1, 1)
    found = _read(pack(data, AFFINE, BY_KEY["real"])).get_fdata().ravel()
    np.testing.assert_allclose(found, [0, 0.01, 1.23, 2.0], atol=1e-6)


def test_the_crop_keeps_every_voxel_where_it_was(volumes: dict[str, Volume]) -> None:
    found = _read(encode(volumes, name="x")["real"])
    mri = volumes["mri"]
    box = brain_box(mri.data)
    assert found.shape == tuple(side.stop - side.start for side in box)
    corner = mri.affine @ [*(side.start for side in box), 1]
    np.testing.assert_allclose(found.affine[:3, 3], corner[:3])
    assert found.header.get_xyzt_units()[0] == "mm"
    assert int(found.header["sform_code"]) == 4
    np.testing.assert_allclose(found.get_fdata(), volumes["real"].data[box], atol=0.0051)


def test_the_box_is_the_brain_and_a_voxel_more() -> None:
    mri = np.zeros((9, 9, 9))
    mri[3:5, 4, 0:2] = 1
    assert brain_box(mri) == (slice(2, 6), slice(3, 6), slice(0, 3))
    assert brain_box(np.zeros((2, 3, 4))) == (slice(0, 2), slice(0, 3), slice(0, 4))


def test_layers_stand_in_the_order_of_the_buttons(volumes: dict[str, Volume]) -> None:
    assert list(encode(dict(reversed(volumes.items())), name="x")) == ["mri", "real", "synthetic"]


def test_the_same_volume_is_the_same_bytes(volumes: dict[str, Volume]) -> None:
    assert encode(volumes, name="x") == encode(volumes, name="x")


def test_white_is_the_brightest_of_the_brain_but_a_few() -> None:
    mri = np.concatenate([np.zeros(900), np.arange(1, 1001)]).reshape(19, 10, 10)
    assert window(mri) == pytest.approx((0.0, 995.0), abs=1)
    assert window(np.zeros((2, 2, 2))) == (0.0, 1.0)


def test_what_cannot_be_shown_is_said(volumes: dict[str, Volume]) -> None:
    mri, real = volumes["mri"], volumes["real"]
    with pytest.raises(VolumeError, match=r"sub-1: found layers \['real'\], wanted the MRI"):
        encode({"real": real}, name="sub-1")
    with pytest.raises(VolumeError, match=r"unknown layers \['amyloid'\]"):
        encode({"mri": mri, "amyloid": real}, name="sub-1")
    with pytest.raises(VolumeError, match="does not lie on the grid of the MRI"):
        encode({"mri": mri, "real": Volume(real.data[1:], real.affine)}, name="sub-1")
    moved = real.affine + np.eye(4, k=3)
    with pytest.raises(VolumeError, match="does not lie on the grid of the MRI"):
        encode({"mri": mri, "real": Volume(real.data, moved)}, name="sub-1")
    with pytest.raises(VolumeError, match="NaN or infinity"):
        encode({"mri": mri, "real": Volume(real.data * np.float32("nan"), real.affine)}, name="sub-1")
