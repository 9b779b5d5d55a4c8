# SPDX-License-Identifier: Apache-2.0
"""Norms by age, and z maps: right numbers, nothing outside the brain, nothing that explodes."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from pasta_model.data.grid import template
from pasta_model.data.volume import Volume
from pasta_model.errors import CheckpointError, ConfigError, ManifestError, VolumeError
from pasta_model.norms.model import Norms
from pasta_model.norms.sums import NormSums

KNOWN = template(3.0)
SHAPE = KNOWN.crop.shape


@pytest.fixture(scope="module")
def norms(make_people) -> Norms:
    """Norms of 24 people at two sites, of PETs as they are."""
    return Norms.of(NormSums.of(make_people(24), spacing=3.0, fwhm=0), sites=["alder", "birch"])


def shifted(norms: Norms, age: float, by: float) -> Volume:
    """A PET everywhere `by` standard deviations from what is expected at an age."""
    data = np.where(norms.brain, norms.expected(age).data + by * norms.spread, 0)
    return Volume(data.astype(np.float32), norms.grid.affine, "SUVR")


def test_what_is_put_in_is_found(norms) -> None:
    inside = norms.brain
    assert norms.level[inside].mean() == pytest.approx(1.2, abs=0.005)
    assert norms.slope[inside].mean() == pytest.approx(-0.1, abs=0.01)
    assert norms.spread[inside].mean() == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize("by", [-3.0, 0.0, 2.0])
def test_z_is_the_number_of_standard_deviations(norms, by) -> None:
    z = norms.z_map(shifted(norms, 68, by), 68, prediction=False)
    assert (z.unit, z.data.dtype) == ("z", np.float32)
    np.testing.assert_allclose(z.data[norms.brain], by, atol=1e-3)
    assert not z.data[~norms.brain].any()


def test_z_takes_in_how_unsure_the_norms_are(norms, make_people) -> None:
    ages = np.array([p.age for p in make_people(24)])
    for age in (75.0, 100.0):
        leverage = 1 / 24 + (age - ages.mean()) ** 2 / ((ages - ages.mean()) ** 2).sum()
        z = norms.z_map(shifted(norms, age, -3), age).data[norms.brain]
        np.testing.assert_allclose(z, -3 / np.sqrt(1 + leverage), rtol=1e-3)


def test_z_of_healthy_people_not_in_the_norms_is_standard_normal(norms, make_people) -> None:
    z = np.stack([norms.z_map(p.pet, p.age).data[norms.brain] for p in make_people(6, seed=5)])
    assert z.mean() == pytest.approx(0, abs=0.05)
    assert z.std() == pytest.approx(1, abs=0.08)  # Student's t of 22 degrees of freedom: 1.05


def test_age_is_adjusted_for(norms) -> None:
    old, young = (norms.z_map(shifted(norms, 85, 0), age).data[norms.brain].mean() for age in (85, 65))
    assert old == pytest.approx(0, abs=1e-3)
    assert young == pytest.approx(-2, abs=0.2)  # 20 years at 0.1 SUVR a decade, sd 0.1


def test_a_head_gets_a_head_and_a_crop_a_crop(norms) -> None:
    crop = shifted(norms, 75, -2)
    data = np.zeros(KNOWN.head.shape, np.float32)
    data[KNOWN.slices] = crop.data
    head = norms.z_map(Volume(data, KNOWN.head.affine, "SUVR"), 75)
    assert head.data.shape == KNOWN.head.shape
    np.testing.assert_array_equal(head.data[KNOWN.slices], norms.z_map(crop, 75).data)
    np.testing.assert_array_equal(norms.brain_on(head)[KNOWN.slices], norms.brain)
    assert norms.brain_on(head).sum() == norms.brain.sum()


def test_z_never_explodes_where_healthy_people_are_alike(make_people, make_pet) -> None:
    alike = [replace(p, pet=make_pet(1.2, noise=0)) for p in make_people(12)]
    norms = Norms.of(NormSums.of(alike, spacing=3.0))
    assert norms.spread[norms.brain].min() == pytest.approx(0.02)
    z = norms.z_map(make_pet(0.8, noise=0), 75).data
    assert z.min() > -0.4 / 0.02 - 1e-3


def test_norms_need_people_and_ages(make_people) -> None:
    people = make_people(10)
    assert Norms.of(NormSums.of(people, spacing=3.0)).persons == 10
    with pytest.raises(ConfigError, match=r"norms of 9 .*at least 10"):
        Norms.of(NormSums.of(people[:9], spacing=3.0))
    with pytest.raises(ConfigError, match="spread by 0 years"):
        Norms.of(NormSums.of([replace(p, age=75) for p in people], spacing=3.0))


@pytest.mark.parametrize("age", [None, float("nan"), 0.0, 200.0])
def test_a_z_map_needs_an_age(norms, make_pet, age) -> None:
    with pytest.raises(ManifestError, match="give the person's age"):
        norms.z_map(make_pet(), age)


def test_other_pets_are_refused(norms, make_pet) -> None:
    with pytest.raises(VolumeError, match="wanted SUVR"):
        norms.z_map(replace(make_pet(), unit="z"), 75)
    with pytest.raises(VolumeError, match="register and resample"):
        norms.z_map(replace(make_pet(), affine=np.eye(4)), 75)


def test_norms_come_back_from_disk_as_they_were(norms, tmp_path) -> None:
    norms.save(tmp_path / "norms.safetensors")
    again = Norms.load(tmp_path / "norms.safetensors")
    for name in ("spacing", "fwhm", "persons", "sites", "age", "age_scatter", "title"):
        assert getattr(again, name) == getattr(norms, name)
    for name in ("level", "slope", "spread", "brain"):
        np.testing.assert_array_equal(getattr(again, name), getattr(norms, name))
    with safe_open(tmp_path / "norms.safetensors", framework="numpy") as file:
        about = json.loads(file.metadata()["about"])
    assert about["persons"] == 24
    assert about["sites"] == ["alder", "birch"]
    assert "expected SUVR" in about["explanation"]


def _without_slope(tensors: dict, about: dict) -> None:
    del tensors["slope"]


def _other_grid(tensors: dict, about: dict) -> None:
    about["spacing"] = 1.5


def _no_spread(tensors: dict, about: dict) -> None:
    tensors["spread"] = np.zeros(SHAPE, np.float32)


def _nobody(tensors: dict, about: dict) -> None:
    about["persons"] = 0


def _not_finite(tensors: dict, about: dict) -> None:
    tensors["level"] = np.full(SHAPE, np.inf, np.float32)


@pytest.mark.parametrize("harm", [_without_slope, _other_grid, _no_spread, _nobody, _not_finite])
def test_damaged_norms_are_refused(norms, tmp_path, harm: Callable[[dict, dict], None]) -> None:
    path = tmp_path / "norms.safetensors"
    norms.save(path)
    with safe_open(path, framework="numpy") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    about = json.loads(metadata["about"])
    harm(tensors, about)
    save_file(tensors, path, metadata={**metadata, "about": json.dumps(about)})
    with pytest.raises(CheckpointError, match="norms are damaged"):
        Norms.load(path)


def test_other_files_are_refused(tmp_path) -> None:
    path = tmp_path / "norms.safetensors"
    with pytest.raises(CheckpointError, match="no such file; make norms"):
        Norms.load(path)
    path.write_text("not norms")
    with pytest.raises(CheckpointError, match="not a readable"):
        Norms.load(path)
    save_file({"level": np.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="format None"):
        Norms.load(path)
