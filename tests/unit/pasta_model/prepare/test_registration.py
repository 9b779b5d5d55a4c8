# SPDX-License-Identifier: Apache-2.0
"""Registration finds poses, shifts and shadings that are known; what is no head is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nibabel.affines import apply_affine
from nibabel.eulerangles import euler2mat
from scipy import ndimage

from pasta_model.data.grid import Grid, template
from pasta_model.data.metaroi import METAROI_REGIONS
from pasta_model.data.volume import Volume
from pasta_model.errors import VolumeError
from pasta_model.prepare import registration
from pasta_model.prepare.quality import DOUBTFUL_STRETCH, LARGEST_STRETCH, dice
from pasta_model.prepare.template import template_brain
from pasta_model.prepare.transforms import AFFINE, INVERSE_AFFINE, RIGID, WARP, matrix_of

GRID = template(3.0).head
BRAIN = template_brain(GRID)
MASK = Volume(BRAIN.mask.astype(np.float32), GRID.affine)
MRI = Volume(BRAIN.t1.copy(), GRID.affine)
SEED = 7
CENTRES = np.array([region.centre for region in METAROI_REGIONS])
MIDDLE = np.array([0.0, -20.0, 10.0])


def pose(turn: tuple[float, float, float], shift: tuple[float, ...], *, scale: float = 1.0) -> np.ndarray:
    """MNI mm to the scanner's mm: a turn about the middle of the head, then a shift."""
    matrix = np.eye(4)
    matrix[:3, :3] = scale * euler2mat(*turn)
    matrix[:3, 3] = MIDDLE - matrix[:3, :3] @ MIDDLE + np.asarray(shift)
    return matrix


def seen(data: np.ndarray, grid: Grid, there: np.ndarray, *, box: Grid) -> Volume:
    """What a scanner with voxels `box` sees of `data`, moved by `there`."""
    back = np.linalg.inv(grid.affine) @ np.linalg.inv(there) @ box.affine
    moved = ndimage.affine_transform(data, back[:3, :3], back[:3, 3], output_shape=box.shape, order=1)
    return Volume(moved.astype(np.float32), box.affine)


def furthest(found: np.ndarray, truth: np.ndarray) -> float:
    """Largest distance in mm that two maps put MetaROI centres apart."""
    return float(np.linalg.norm(apply_affine(found, CENTRES) - apply_affine(truth, CENTRES), axis=1).max())


def with_skull() -> np.ndarray:
    """The template in a bright scalp, a dark skull between."""
    distance = 3.0 * ndimage.distance_transform_edt(~BRAIN.mask)
    return np.where((distance > 7) & (distance < 13), np.float32(0.9), BRAIN.t1).astype(np.float32)


def uptake() -> np.ndarray:
    """A PET: grey matter takes up more than white."""
    grey = BRAIN.mask & (BRAIN.t1 < 0.75 * np.quantile(BRAIN.t1[BRAIN.mask], 0.95))
    return ndimage.gaussian_filter(9000.0 * (BRAIN.mask * 0.5 + grey), 0.9).astype(np.float32)


def wide(shift: tuple[float, float, float], *, spacing: float = 3.0) -> Grid:
    """A scanner's box around a head that lies `shift` from the template's place."""
    size = int(216 / spacing)
    origin = [m + s - 108.0 for m, s in zip(MIDDLE, shift, strict=True)]
    return Grid((size, size, size), (origin[0], origin[1], origin[2]), spacing)


PLACE = (30.0, -20.0, 25.0)
THERE = pose((0.15, -0.1, 0.2), PLACE, scale=1.05)


@pytest.mark.slow
@pytest.mark.parametrize("data", [BRAIN.t1, with_skull()], ids=["stripped", "in its skull"])
def test_a_head_in_any_pose_is_found(data: np.ndarray, tmp_path: Path) -> None:
    mri = seen(600 * data, GRID, THERE, box=wide(PLACE))

    alignment = registration.register_mri(mri, tmp_path, grid=GRID, bent=False, seed=SEED)

    assert furthest(matrix_of(tmp_path / AFFINE), THERE) < 1.5
    assert furthest(matrix_of(tmp_path / INVERSE_AFFINE) @ THERE, np.eye(4)) < 1.5
    truth = seen(BRAIN.mask.astype(np.float32), GRID, THERE, box=wide(PLACE)).data > 0.5
    mask = registration.brain_mask(mri, alignment).data
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert dice(mask > 0.5, truth) > 0.95
    assert (tmp_path / WARP).is_file()


def test_what_is_no_head_is_refused_and_leaves_no_transform(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(0, 1000, GRID.shape).astype(np.float32)
    with pytest.raises(VolumeError, match=r"does not look like a T1 of a head: correlation -?0\.\d\d"):
        registration.register_mri(Volume(noise, GRID.affine), tmp_path, grid=GRID, bent=False, seed=SEED)
    assert not list(tmp_path.iterdir())


def test_a_flat_or_foreign_volume_is_not_like_the_template() -> None:
    assert registration.likeness(Volume(np.ones(GRID.shape, np.float32), GRID.affine), BRAIN) == 0.0
    assert registration.likeness(MRI, BRAIN) == pytest.approx(1.0)
    assert registration.likeness(replace(MRI, data=5 - 2 * MRI.data), BRAIN) == pytest.approx(-1.0)


def test_a_known_shading_is_taken_away_and_the_mean_is_kept() -> None:
    x, y, z = np.moveaxis(GRID.coordinates() / 70.0, -1, 0)
    log_gain = 0.3 * x - 0.2 * y * z + 0.15 * z
    shaded = replace(MRI, data=(500 * MRI.data * np.exp(log_gain)).astype(np.float32))

    found = registration.without_shading(shaded, MASK)

    some = BRAIN.mask & (found.data > 0)
    removed = np.log(shaded.data[some] / found.data[some])
    assert np.corrcoef(removed, log_gain[some])[0, 1] > 0.8
    assert found.data[BRAIN.mask].mean() == pytest.approx(shaded.data[BRAIN.mask].mean(), rel=0.05)
    left = np.log(found.data[some] / (500 * MRI.data[some]))
    assert left.std() < 0.6 * log_gain[some].std()


def test_what_has_no_shading_stays_nearly_as_it_is() -> None:
    found = registration.without_shading(MRI, MASK)
    some = BRAIN.mask & (found.data > 0)
    assert np.log(found.data[some] / MRI.data[some]).std() < 0.05


SHIFTS = {"near": (7.0, -5.0, 9.0), "in other coordinates": (140.0, 60.0, -90.0)}


@pytest.mark.parametrize("shift", SHIFTS.values(), ids=SHIFTS)
def test_a_pet_is_found_by_its_shift(shift: tuple[float, float, float], tmp_path: Path) -> None:
    there = pose((0, 0, 0), shift)
    pet = seen(uptake(), GRID, there, box=wide(shift))

    registration.register_pet(pet, MRI, MASK, tmp_path, seed=SEED)

    found = matrix_of(tmp_path / RIGID)
    assert furthest(found, there) < 0.7
    assert np.allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-5)  # it stretches nothing


def stretched(factor: float) -> Volume:
    matrix = np.eye(4)
    matrix[1, 1] = factor
    matrix[1, 3] = MIDDLE[1] * (1 - factor)
    return seen(uptake(), GRID, matrix, box=wide((0.0, 0.0, 0.0)))


@pytest.mark.slow
def test_ones_own_head_needs_no_stretching_and_a_longer_one_does(tmp_path: Path) -> None:
    found = []
    for factor in (1.0, 1.12):
        pet = stretched(factor)
        registration.register_pet(pet, MRI, MASK, tmp_path, seed=SEED)
        found.append(registration.pet_stretch(pet, MRI, MASK, tmp_path, seed=SEED))
    assert 1.0 <= found[0] < DOUBTFUL_STRETCH
    assert found[1] > LARGEST_STRETCH
    assert found[1] == pytest.approx(1.12, abs=0.04)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    pet = seen(uptake(), GRID, pose((0.05, 0, 0), SHIFTS["near"]), box=wide(SHIFTS["near"]))

    def bytes_of(name: str, seed: int) -> bytes:
        (tmp_path / name).mkdir()
        registration.register_pet(pet, MRI, MASK, tmp_path / name, seed=seed)
        return (tmp_path / name / RIGID).read_bytes()

    first, again, other = bytes_of("a", 1), bytes_of("b", 1), bytes_of("c", 2)
    assert first == again
    assert first != other  # the seed reaches ANTs


@pytest.mark.slow
def test_the_same_seed_gives_the_same_mri_transform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "_deform", lambda *args, **how: None)  # takes long
    mri = seen(600 * BRAIN.t1, GRID, THERE, box=wide(PLACE))
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        registration.register_mri(mri, folder, grid=GRID, bent=False, seed=3)
    for name in (AFFINE, INVERSE_AFFINE):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_scans_in_mni_space_get_the_identity(tmp_path: Path) -> None:
    alignment = registration.write_identity(tmp_path)
    for name in (AFFINE, INVERSE_AFFINE, RIGID):
        assert np.array_equal(matrix_of(tmp_path / name), np.eye(4))
    assert (alignment.bent, alignment.atlas_to_mri) == (False, [str(tmp_path / AFFINE)])
