# SPDX-License-Identifier: Apache-2.0
"""Raw twins: what lies in the files is where, and as much as, the truth says."""

import csv
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from pasta_model.data.grid import template
from pasta_model.errors import ConfigError
from simulation.twins.anatomy import load_anatomy
from simulation.twins.clinic import sample_person
from simulation.twins.cohort import CohortSettings, SiteSettings, _make_one, _tasks, site_scanner
from simulation.twins.metabolism import metaroi_suvr
from simulation.twins.pose import apply
from simulation.twins.raw import (
    RawCohortSettings,
    RawSettings,
    RawTruth,
    landmark_error,
    read_truth,
    write_raw_dataset,
    write_raw_twin,
)
from simulation.twins.raw_scan import _MRI_BOX, _PET_BOX
from simulation.twins.twin import Twin, make_twin

GRID = template(3.0).head
QUICK = {
    "spacing": 3.0,
    "voxel": (3.6, 3.0, 3.0),
    "pet_voxel": (4.0, 4.0, 5.0),
    "frames": 2,
    "pet_orientation": "RPI",
}
CLEAN = QUICK | {"bias": 0.0, "noise": 0.0, "pet_noise": 0.04, "pet_voxel": (3.0, 3.0, 3.0)}
BARE = CLEAN | {"head": False, "frames": 1, "orientation": "PIR", "extension": ".nii"}
SITE = SiteSettings(name="alder", subjects=1)
Scan = Callable[..., tuple[Path, RawTruth]]


@pytest.fixture(scope="module")
def twin() -> Twin:
    person = sample_person(np.random.default_rng(0), diagnosis="CN")
    scanner = site_scanner(SITE, seed=0)
    anatomy = load_anatomy("icbm152", spacing=3.0)
    return make_twin(person, anatomy=anatomy, scanner=scanner, seed=np.random.SeedSequence(1))


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory, twin: Twin) -> Scan:
    """Return the folder and the truth of a scan; the same one is made once."""

    @cache
    def write(frozen: RawSettings, seed: int) -> tuple[Path, RawTruth]:
        folder = tmp_path_factory.mktemp("raw")
        return folder, write_raw_twin(folder, twin, seed=seed, settings=frozen)

    return lambda seed=5, **settings: write(RawSettings(**settings), seed)


def the(folder: Path, pattern: str) -> Path:
    (found,) = folder.rglob(pattern)
    return found


def seen(path: Path, head_to_scan: list[list[float]], points: np.ndarray) -> np.ndarray:
    """Values of a scan at points of the head, by way of the truth and the file's affine."""
    image = nib.load(path)
    data = image.get_fdata()
    data = data.mean(axis=3) if data.ndim == 4 else data
    index = apply(np.linalg.inv(image.affine), apply(head_to_scan, points))
    return ndimage.map_coordinates(data, index.T, order=3, mode="nearest")


@pytest.mark.parametrize(
    "changes",
    [
        CLEAN,
        CLEAN | {"oblique": True, "orientation": "RAS", "max_scale": 0.05},
        BARE,
    ],
)
def test_mri_lies_where_the_truth_says(scan: Scan, twin: Twin, changes: dict[str, object]) -> None:
    folder, truth = scan(**changes)
    brain = ndimage.binary_erosion(twin.mri > 0, iterations=1)
    points = GRID.coordinates()[brain]
    back = seen(the(folder, "*_T1w.nii*"), truth.head_to_mri, points)
    assert np.corrcoef(back, twin.mri[brain])[0, 1] > 0.98
    shifted = seen(the(folder, "*_T1w.nii*"), truth.head_to_mri, points + np.array([0, 1.5, 0]))
    assert np.corrcoef(shifted, twin.mri[brain])[0, 1] < np.corrcoef(back, twin.mri[brain])[0, 1] - 0.02


def test_bare_brain_has_its_middle_where_the_truth_says(scan: Scan, twin: Twin) -> None:
    folder, truth = scan(**BARE)
    for kind, map_, matrix in (
        ("*_T1w.nii", twin.mri, truth.head_to_mri),
        ("*_trc-18FFDG_pet.nii", twin.pet, truth.head_to_pet),
    ):
        image = nib.load(the(folder, kind))
        data = image.get_fdata()
        found = ndimage.center_of_mass(data)
        true = apply(matrix, apply(GRID.affine, ndimage.center_of_mass(map_)))
        np.testing.assert_allclose(apply(image.affine, found), true, atol=0.5)


def test_pet_is_suvr_times_scale(scan: Scan, twin: Twin) -> None:
    folder, truth = scan(**CLEAN)
    path = the(folder / "sub-A0001", "*_pet.nii.gz")
    inside = seen(path, truth.head_to_pet, GRID.coordinates().reshape(-1, 3)) / truth.bq_per_suvr
    suvr = inside.reshape(GRID.shape)
    brain = twin.mri > 0
    assert np.corrcoef(suvr[brain], twin.pet[brain])[0, 1] > 0.98
    assert suvr[brain].mean() == pytest.approx(twin.pet[brain].mean(), rel=0.02)
    assert metaroi_suvr(suvr, spacing=3.0) == pytest.approx(truth.suvr_scanned, rel=0.01)
    assert truth.suvr_scanned == pytest.approx(twin.suvr, rel=0.03)


def test_pet_has_frames_that_rise_about_a_mean_of_one(scan: Scan) -> None:
    folder, truth = scan(**CLEAN)
    image = nib.load(the(folder / "sub-A0001", "*_pet.nii.gz"))
    sums = image.get_fdata().sum(axis=(0, 1, 2))
    np.testing.assert_allclose(sums / sums.mean(), truth.frame_levels, atol=1e-3)
    assert np.all(np.diff(sums) > 0)
    assert np.mean(truth.frame_levels) == pytest.approx(1)
    assert image.shape[3] == 2
    assert image.header["pixdim"][4] == 300
    assert image.header.get_xyzt_units() == ("mm", "sec")


def test_single_frame_is_three_dimensional(scan: Scan) -> None:
    folder, truth = scan(**BARE)
    assert nib.load(the(folder / "sub-A0001", "*_pet.nii")).ndim == 3
    assert truth.frame_levels == [1.0]
    assert truth.suvr_scanned == pytest.approx(truth.suvr)


def test_motion_moves_the_frames_about_the_truth(scan: Scan) -> None:
    folder, _ = scan(**CLEAN | {"motion_mm": 3.0})
    image = nib.load(the(folder / "sub-A0001", "*_pet.nii.gz"))
    middles = [ndimage.center_of_mass(frame) for frame in np.moveaxis(image.get_fdata(), 3, 0)]
    still, _ = scan(**CLEAN)
    middle = ndimage.center_of_mass(nib.load(the(still / "sub-A0001", "*_pet.nii.gz")).get_fdata()[..., 1])
    assert np.ptp(middles, axis=0).max() > 0.3
    np.testing.assert_allclose(np.mean(middles, axis=0), middle, atol=0.1)


@pytest.mark.parametrize(("orientation", "oblique"), [("LAS", False), ("RSP", True)])
def test_file_says_what_a_scanner_says(scan: Scan, orientation: str, *, oblique: bool) -> None:
    folder, _ = scan(**QUICK | {"orientation": orientation, "oblique": oblique})
    mri, pet = (nib.load(the(folder / "sub-A0001", f"*_{kind}.nii.gz")) for kind in ("T1w", "pet"))
    assert "".join(nib.aff2axcodes(mri.affine)) == orientation
    assert "".join(nib.aff2axcodes(pet.affine)) == "RPI"
    assert (np.count_nonzero(np.abs(mri.affine[:3, :3]) > 1e-6) > 3) == oblique
    for image in (mri, pet):
        assert image.get_data_dtype() == np.int16
        assert image.header["sform_code"] == image.header["qform_code"] == 1
        np.testing.assert_allclose(image.get_sform(), image.get_qform(), atol=1e-3)
    assert mri.header["descrip"].item() == b"synthetic digital twin, not a patient"


def test_field_of_view_holds_the_head(scan: Scan) -> None:
    folder, _ = scan(**QUICK)
    mri, pet = (nib.load(the(folder / "sub-A0001", f"*_{kind}.nii.gz")) for kind in ("T1w", "pet"))
    for image, box in ((mri, _MRI_BOX), (pet, _PET_BOX)):
        extent = image.header.get_zooms()[:3] * np.array(image.shape[:3])
        np.testing.assert_allclose(extent, box, rtol=0.02)
    data = nib.as_closest_canonical(mri).get_fdata()
    air = np.median(data[:4])
    for side in (data[:, :, -1], data[:, 0], data[0], data[-1]):
        assert np.percentile(side, 95) < 4 * air
    assert np.percentile(data[..., 0], 90) > 6 * air  # the neck goes on below


def test_mri_is_in_scanner_units_with_noise_in_the_air(scan: Scan) -> None:
    folder, truth = scan(**QUICK)
    data = nib.load(the(folder, "*_T1w.nii.gz")).get_fdata()
    assert 500 < data.max() < 3000
    corner = data[:6, -6:, -6:]
    # Rayleigh: the mean of a magnitude of pure noise is sigma sqrt(pi / 2)
    assert corner.mean() == pytest.approx(0.02 * truth.mri_white * np.sqrt(np.pi / 2), rel=0.15)


def test_poses_keep_to_the_settings_and_differ(scan: Scan) -> None:
    _, truth = scan(**QUICK)
    np.testing.assert_allclose(np.linalg.det(truth.pet_to_mri), 1.0)
    middle = np.array([0.0, -18.0, 0.0])
    for matrix in (truth.head_to_mri, truth.head_to_pet):
        assert 1 < np.abs(apply(matrix, middle) - middle).max() <= 25
        cosine = (np.trace(np.asarray(matrix)[:3, :3]) - 1) / 2
        assert 1 < np.degrees(np.arccos(cosine)) <= 3 * 12
    assert not np.allclose(truth.head_to_mri, truth.head_to_pet, atol=1)


def test_truth_is_beside_and_pose_does_not_depend_on_the_rest(scan: Scan, twin: Twin) -> None:
    folder, truth = scan(**QUICK)
    assert read_truth(folder / "truth" / "sub-A0001_ses-M000.json") == truth
    _, other = scan(**BARE)
    assert other.head_to_mri == truth.head_to_mri
    assert other.bq_per_suvr == truth.bq_per_suvr
    for kind, map_ in (("mri", twin.mri), ("pet", twin.pet)):
        kept = nib.load(folder / "truth" / f"sub-A0001_ses-M000_{kind}.nii.gz")
        np.testing.assert_array_equal(kept.get_fdata(dtype=np.float32), map_)
        np.testing.assert_allclose(kept.affine, GRID.affine)


def test_landmark_error_is_the_distance_in_mni(scan: Scan) -> None:
    _, truth = scan(**QUICK)
    landmarks = np.array([[-46.0, -64.0, 37.0], [0.0, -46.0, 24.0]])
    exact = np.linalg.inv(truth.head_to_mri)
    np.testing.assert_allclose(landmark_error(exact, truth, landmarks), 0, atol=1e-9)
    off = landmark_error(lambda points: apply(exact, points) + np.array([3.0, 4.0, 0.0]), truth, landmarks)
    np.testing.assert_allclose(off, 5.0)


def test_wrong_settings_are_refused(tmp_path: Path, twin: Twin) -> None:
    for codes in ("LLS", "LA", "las", "XAS"):
        with pytest.raises(ValidationError, match="wanted one of R L"):
            RawSettings(orientation=codes)
    with pytest.raises(ConfigError, match="set its spacing"):
        write_raw_twin(tmp_path / "raw", twin, seed=0)
    assert not (tmp_path / "raw").exists()
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(ConfigError, match="not empty"):
        write_raw_dataset(tmp_path, RawCohortSettings())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw_dataset(tmp_path_factory.mktemp("twice") / "first", COHORT)


COHORT = RawCohortSettings(
    seed=3,
    sites=(SiteSettings(name="alder", subjects=1, missing_mmse=1.0), SiteSettings(name="birch", subjects=1)),
    scans=(RawSettings(**QUICK), RawSettings(**QUICK, orientation="RAS", oblique=True)),
)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_same_settings_give_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    again = digests(write_raw_dataset(tmp_path / "second", COHORT))
    assert again == digests(dataset)


def test_dataset_lies_after_bids(dataset: Path) -> None:
    description = json.loads((dataset / "dataset_description.json").read_text())
    assert description["BIDSVersion"]
    assert description["Synthetic"] is True
    assert "truth/" in (dataset / ".bidsignore").read_text()
    subjects = [path.name for path in sorted(dataset.glob("sub-*"))]
    assert subjects == ["sub-A0001", "sub-B0001"]
    for name in subjects:
        stem = f"{name}_ses-M000"
        session = dataset / name / "ses-M000"
        wanted = {f"anat/{stem}_T1w", f"pet/{stem}_trc-18FFDG_pet"}
        files = {str(f.relative_to(session)) for f in session.rglob("*") if f.is_file()}
        assert files == {f"{w}.{ending}" for w in wanted for ending in ("nii.gz", "json")}
        sidecar = json.loads((session / "pet" / f"{stem}_trc-18FFDG_pet.json").read_text())
        assert sidecar["Units"] == "Bq/mL"
        assert sidecar["TracerName"] == "FDG"
        assert sidecar["FrameTimesStart"] == [0, 300]
        assert sidecar["FrameDuration"] == [300] * 2
        assert read_truth(dataset / "truth" / f"{stem}.json").subject == name
    oblique = nib.load(the(dataset / "sub-B0001", "*_T1w.nii.gz")).affine
    assert nib.aff2axcodes(oblique) == ("R", "A", "S")


def test_participants_are_the_people_of_the_cohort(dataset: Path, tmp_path: Path) -> None:
    with (dataset / "participants.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["site"] for row in rows] == ["alder", "birch"]
    assert [row["mmse"] == "n/a" for row in rows] == [True, False]
    for mine, task in zip(rows, _tasks(CohortSettings(seed=3, sites=COHORT.sites), tmp_path), strict=True):
        theirs = _make_one(task).participant
        assert {name: theirs[name] for name in mine} == mine
    kept = nib.load(dataset / "truth" / "sub-A0001_ses-M000_pet.nii.gz").get_fdata()
    cohort = nib.load(the(tmp_path / "alder", "*_pet.nii.gz")).get_fdata()
    np.testing.assert_array_equal(kept, cohort)
