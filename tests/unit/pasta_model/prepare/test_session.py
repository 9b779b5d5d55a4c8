# SPDX-License-Identifier: Apache-2.0
"""A session whose scans lie in MNI space skips what it does not need; units and cuts are seen through."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from pasta_model.data.grid import template
from pasta_model.data.metaroi import METAROI_REGIONS, REFERENCES, reference_mask
from pasta_model.data.volume import Volume
from pasta_model.errors import VolumeError
from pasta_model.prepare import registration
from pasta_model.prepare.scans import Scan
from pasta_model.prepare.session import Prepared, prepare_scans
from pasta_model.prepare.settings import PrepareSettings
from pasta_model.prepare.template import template_brain

GRID = template(3.0).head
BRAIN = template_brain(GRID)
SETTINGS = PrepareSettings(spacing=3.0)
PASSED_OVER = {"MRI to template", "bias correction", "PET to MRI"}


@pytest.fixture(autouse=True)
def nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_ants_registration", "without_shading"):
        monkeypatch.setattr(registration, name, lambda *args, **how: pytest.fail("not needed here"))


def mri() -> Volume:
    return Volume(np.where(BRAIN.mask, 600 * BRAIN.t1, 0).astype(np.float32), GRID.affine)


def pet(*, gain: float = 1.0) -> Volume:
    """Uptake that differs from place to place, and spills over the brain's border."""
    along = 1.0 + 0.3 * np.tanh(GRID.coordinates()[..., 1] / 60.0)
    soft = ndimage.gaussian_filter(np.where(BRAIN.mask, along, 0.0), 0.9)
    return Volume((gain * soft).astype(np.float32), GRID.affine)


def prepare(folder: Path, *, gain: float = 1.0, **changes: object) -> Prepared:
    folder.mkdir(exist_ok=True)
    settings = SETTINGS.model_copy(update=changes)
    return prepare_scans(Scan(mri()), Scan(pet(gain=gain)), folder, settings=settings)


def test_registered_scans_are_left_as_they_are(tmp_path: Path) -> None:
    found = prepare(tmp_path)

    skipped = {line["step"]: line["skipped"] for line in found.steps if "skipped" in line}
    assert set(skipped) == PASSED_OVER
    assert "template's grid" in skipped["MRI to template"]
    assert "skull-stripped" in skipped["bias correction"]
    assert "MNI space" in skipped["PET to MRI"]
    assert np.allclose(found.mri.data, mri().data, atol=1e-2)
    assert found.mri.data.shape == GRID.shape
    assert "pet_stretch" not in found.figures


def test_what_was_done_is_logged_with_its_settings(tmp_path: Path) -> None:
    steps = {line["step"]: line for line in prepare(tmp_path, reference="vermis").steps}
    assert next(iter(steps)) == "read"
    assert all(line["seconds"] >= 0 for line in steps.values() if "skipped" not in line)
    assert steps["SUVR"]["reference"] == "vermis"
    assert steps["SUVR"]["uptake"] > 0


@pytest.mark.parametrize("reference", REFERENCES)
def test_suvr_is_one_in_its_reference_and_nothing_outside_the_brain(reference: str, tmp_path: Path) -> None:
    found = prepare(tmp_path, reference=reference)

    assert found.pet is not None
    inside = reference_mask(GRID, reference) & (found.mask.data > 0.5)
    assert found.pet.data[inside].mean() == pytest.approx(1.0, abs=1e-3)
    assert not found.pet.data[found.mask.data < 0.5].any()
    assert found.pet.unit == "SUVR"
    direct = pet().data / pet().data[reference_mask(GRID, reference)].mean()
    assert np.allclose(found.pet.data, direct * BRAIN.mask, atol=1e-2)


def test_the_pets_unit_changes_nothing_but_the_uptake(tmp_path: Path) -> None:
    suvr, becquerels = prepare(tmp_path / "a"), prepare(tmp_path / "b", gain=7000.0)
    assert suvr.pet is not None
    assert becquerels.pet is not None
    assert np.allclose(becquerels.pet.data, suvr.pet.data, atol=1e-4)
    assert becquerels.regions == pytest.approx(suvr.regions, abs=1e-4)
    assert becquerels.uptake == pytest.approx(7000 * suvr.uptake, rel=1e-5)
    assert set(suvr.regions) == {region.name for region in METAROI_REGIONS}


def test_an_mri_alone_needs_no_pet(tmp_path: Path) -> None:
    found = prepare_scans(Scan(mri()), None, tmp_path, settings=SETTINGS)
    assert (found.pet, found.uptake, found.regions) == (None, None, {})
    assert not {"PET to MNI space", "SUVR"} & {line["step"] for line in found.steps}


def test_a_field_of_view_that_cuts_the_brain_is_refused(tmp_path: Path) -> None:
    whole = mri()
    keep = 36  # slices from below, of 56
    share = BRAIN.mask[:, :, :keep].sum() / BRAIN.mask.sum()
    cut = replace(whole, data=np.ascontiguousarray(whole.data[:, :, :keep]))
    settings = SETTINGS.model_copy(update={"registration": "none"})

    with pytest.raises(
        VolumeError, match=r"only \d+ % of the brain lies in the MRI's field of view"
    ) as error:
        prepare_scans(Scan(cut), None, tmp_path, settings=settings)

    told = int(str(error.value).split("%")[0].split()[-1])
    assert told == pytest.approx(100 * share, abs=3)


def test_a_pet_that_ends_above_the_reference_region_is_refused(tmp_path: Path) -> None:
    short = pet()
    short.data[:, :, : round((-10 + 69.75) / 3)] = 0
    with pytest.raises(VolumeError, match="choose another reference region"):
        prepare_scans(Scan(mri()), Scan(short), tmp_path, settings=SETTINGS)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_registered_mri_with_an_axis_flipped_is_refused(axis: int, tmp_path: Path) -> None:
    flipped = replace(mri(), data=np.ascontiguousarray(np.flip(mri().data, axis)))
    with pytest.raises(VolumeError, match="is an axis flipped"):
        prepare_scans(Scan(flipped), None, tmp_path, settings=SETTINGS)


def test_a_registered_pet_of_half_a_brain_is_refused(tmp_path: Path) -> None:
    half = pet()
    half.data[:, 36:] = 0  # the front is missing
    with pytest.raises(VolumeError, match="does not fit the MRI"):
        prepare_scans(Scan(mri()), Scan(half), tmp_path, settings=SETTINGS)


def test_without_registration_another_grid_in_mni_space_is_resampled(tmp_path: Path) -> None:
    shifted = mri()
    affine = shifted.affine.copy()
    affine[:3, 3] += 3.0  # one voxel along each axis, and the data with it
    other = Volume(np.roll(shifted.data, (-1, -1, -1), (0, 1, 2)), affine)
    settings = SETTINGS.model_copy(update={"registration": "none"})

    found = prepare_scans(Scan(other), None, tmp_path, settings=settings)

    assert "registration = none" in [line.get("skipped") for line in found.steps]
    inner = (slice(2, -2),) * 3  # the other grid ends one voxel earlier
    assert np.allclose(found.mri.data[inner], mri().data[inner], atol=1e-2)
