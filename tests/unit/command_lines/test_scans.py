# SPDX-License-Identifier: Apache-2.0
"""Scans that cannot be used: what each command answers."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pasta_model.data.grid import template
from tests.support.commands import Outcome
from tests.support.hospital import Hospital, cut

HEAD = template(3.0).head


def damage(path: Path) -> None:
    """Change a voxel behind the back of gzip's checksum: a value that a scan may have."""
    packed = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    packed[len(packed) // 2] ^= 1
    path.write_bytes(bytes(packed))


def replace_voxels(path: Path, value: float, *, only_one: bool = True) -> None:
    image = nib.load(path)
    data = np.asarray(image.dataobj, np.float32).copy()
    data[(28, 34, 28) if only_one else ...] = value
    nib.save(nib.Nifti1Image(data, image.affine), path)


def move(path: Path) -> None:
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 3] += HEAD.spacing
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj, np.float32).copy(), affine), path)


def grow(path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((30, 30, 30), np.float32), HEAD.affine), path)


def add_time(path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((*HEAD.shape, 2), np.float32), HEAD.affine), path)


SCANS = {
    "truncated": ("pet", cut, r"{scan}: not a readable NIfTI.*truncated: copy or export it again"),
    "truncated gzip": ("mri", cut, r"{scan}: not a readable NIfTI.*truncated: copy or export it again"),
    "damaged gzip": ("mri", damage, r"{scan}: not a readable NIfTI.*truncated: copy or export it again"),
    "empty file": ("pet", lambda path: path.write_bytes(b""), r"{scan}: not a readable NIfTI"),
    "text": ("pet", lambda path: path.write_text("patient 7"), r"{scan}: not a readable NIfTI"),
    "NaN": ("pet", lambda path: replace_voxels(path, np.nan), r"{scan}: 1 of \d+ voxels are NaN or infinite"),
    "infinite": ("mri", lambda path: replace_voxels(path, np.inf), r"{scan}: 1 of \d+ voxels are NaN or inf"),
    "four dimensions": ("pet", add_time, r"{scan}: found 4 dimensions .*, wanted 3"),
    "other place": ("pet", move, r"lie on different grids; .*register and resample them first"),
    "other shape": ("mri", grow, r"lie on different grids; .*register and resample them first"),
    "no activity": ("pet", lambda path: replace_voxels(path, 0, only_one=False), r"the PET is empty"),
    "not SUVR": ("pet", lambda path: replace_voxels(path, 5e3, only_one=False), r"the PET.*must be in SUVR"),
    "no brain": ("mri", lambda path: replace_voxels(path, 0, only_one=False), r"the MRI has no voxel above"),
}


@pytest.mark.parametrize(
    "fault",
    [
        *SCANS,
    ],
)
def test_scan_that_cannot_be_used_is_refused(
    fault: str, hospital: Hospital, splits: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    kind, spoil, wanted = SCANS[fault]
    spoil(hospital.scan(1, kind))
    words = ("store", hospital.manifest, tmp_path / "store", "--splits", splits, "--spacing", "3")
    said = refused("pasta", *words)
    assert "site alder: scans that cannot be used: 1 problem(s)" in said
    assert re.search("sub-02_ses-1: .*" + wanted.format(scan=hospital.scan(1, kind)), said), said


def test_all_bad_scans_of_a_site_are_told_at_once(
    hospital: Hospital, splits: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    for number in (3, 4, 5):
        hospital.admit(f"sub-0{number}")
    splits.write_text("participant_id\tsplit\n" + "".join(f"sub-0{n}\ttrain\n" for n in range(1, 6)))
    cut(hospital.scan(0, "pet"))
    replace_voxels(hospital.scan(2, "pet"), np.nan)
    move(hospital.scan(4, "pet"))
    words = ("store", hospital.manifest, tmp_path / "store", "--splits", splits, "--spacing", "3")
    said = refused("pasta", *words)
    assert "3 problem(s)" in said
    assert re.findall(r"- (sub-0\d)_ses-1: ", said) == ["sub-01", "sub-03", "sub-05"]


def test_scans_of_another_spacing_are_refused(
    hospital: Hospital, splits: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    words = ("store", hospital.manifest, tmp_path / "store", "--splits", splits, "--spacing", "1.5")
    said = refused("pasta", *words)
    assert "found MNI152 3 mm, wanted MNI152 1.5 mm; resample" in said


def test_scans_that_cannot_be_synthesised_are_told_at_once_and_the_others_are_done(
    hospital: Hospital, tmp_path: Path, model: Path, call: Callable[..., Outcome]
) -> None:
    hospital.admit("sub-03")
    cut(hospital.scan(0, "mri"))
    grow(hospital.scan(2, "mri"))
    said = call("pasta", "synthesize", "--model", model, hospital.manifest, tmp_path / "out")
    assert said.status == 2
    assert said.err.startswith("error: scans that could not be synthesised: 2 problem(s)\n")
    assert "sub-01_ses-1: " in said.err
    assert "sub-03_ses-1: lies on no grid that the network knows" in said.err
    names = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(names) == 2
    assert all(name.startswith("sub-02_ses-1") for name in names)


def test_synthetic_pets_that_are_not_there_are_told_at_once(
    hospital: Hospital, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "nothing").mkdir()
    words = ("evaluate", hospital.manifest, tmp_path / "nothing", "--output", tmp_path / "evaluation")
    said = refused("pasta", *words)
    assert "sessions that cannot be compared: 1 problem(s)" in said
    assert "synthetic: no session has a PET here" in said
    assert "run 'pasta synthesize' first" in said


def test_real_pet_of_another_grid_cannot_be_evaluated(
    hospital: Hospital, tmp_path: Path, model: Path, call: Callable[..., Outcome], refused: Callable[..., str]
) -> None:
    assert call("pasta", "synthesize", "--model", model, hospital.manifest, tmp_path / "out").status == 0
    grow(hospital.scan(0, "pet"))
    move(hospital.scan(1, "pet"))
    evaluation = tmp_path / "evaluation"
    words = ("evaluate", hospital.manifest, tmp_path / "out", "--output", evaluation, "--workers", 1)
    said = refused("pasta", *words)
    assert "2 problem(s)" in said
    assert "sub-01_ses-1: " in said
    assert "sub-02_ses-1: " in said
    assert said.count("real PET and MRI lie on different grids") == 2
