# SPDX-License-Identifier: Apache-2.0
"""Which file is whose, however another method names them."""

from pathlib import Path

import pytest

from pasta_model.data.manifest import Session
from pasta_model.derivatives import synthetic_path
from pasta_model.evaluation.matching import VolumeFolder, match


def _session(subject: str, session: str = "ses-1", pet: Path = Path("nothing")) -> Session:
    return Session(subject, session, "A", "CN", Path(), pet)


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_ses-1.nii.gz",
        "sub-01_ses-1_pet.nii",
        "fake_sub-01_ses-1_epoch_200.nii.gz",
        "ses-1-sub-01.nii",
        "sub-01/ses-1/pet.nii.gz",
        "ses-1/sub-01_fdg.nii.gz",
        "out/deep/sub-01/fake ses-1.nii",
    ],
)
def test_names_that_tell(name: str, tmp_path: Path) -> None:
    _touch(tmp_path, name, "sub-02_ses-1.nii.gz", "sub-011_ses-1.nii.gz", "sub-01_ses-12.nii", "notes.txt")
    assert VolumeFolder(tmp_path).find(_session("sub-01")).path == tmp_path / name


@pytest.mark.parametrize("name", ["sub-011_ses-1.nii.gz", "xsub-01_ses-1.nii", "sub-01_ses-1.json", "1.nii"])
def test_names_that_do_not(name: str, tmp_path: Path) -> None:
    found = VolumeFolder(_touch(tmp_path, name)).find(_session("sub-01"))
    assert found.path is None
    assert not found.several


def test_our_own_file_comes_first_and_its_spread_is_none(tmp_path: Path) -> None:
    session = _session("sub-01")
    ours = synthetic_path(tmp_path, session)
    _touch(tmp_path, str(ours.relative_to(tmp_path)), "sub-01_ses-1_other.nii.gz")
    _touch(tmp_path, str(ours.relative_to(tmp_path)).replace("desc-synthetic", "desc-syntheticSpread"))
    assert VolumeFolder(tmp_path).find(session).path == ours


def test_a_file_that_is_being_written_is_none(tmp_path: Path) -> None:
    _touch(tmp_path, ".partial-sub-01_ses-1.nii.gz", ".hidden/sub-01_ses-1.nii.gz")
    assert VolumeFolder(tmp_path).find(_session("sub-01")).path is None


def test_several_files_are_told(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"sub-01_ses-1_run-{n}.nii.gz" for n in range(5)))
    found = VolumeFolder(tmp_path).find(_session("sub-01"))
    assert found.several
    assert found.problem == (
        "5 files have its name (sub-01_ses-1_run-0.nii.gz, sub-01_ses-1_run-1.nii.gz,"
        " sub-01_ses-1_run-2.nii.gz, ...); wanted one"
    )


def test_a_file_of_another_session_is_told(tmp_path: Path) -> None:
    _touch(tmp_path, "sub-01_ses-2.nii.gz")
    found = VolumeFolder(tmp_path).find(_session("sub-01"))
    assert found.problem == (
        "no file names both sub-01 and ses-1; of the subject there is sub-01_ses-2.nii.gz"
    )
    assert "among 1 NIfTI files here" in VolumeFolder(tmp_path).find(_session("sub-02")).problem


def test_a_file_never_serves_two_sessions(tmp_path: Path) -> None:
    _touch(tmp_path, "sub-01_sub-02_ses-1.nii.gz")
    matches = match([_session("sub-01"), _session("sub-02")], {"m": tmp_path})
    assert [line.split(":")[0] for line in matches.problems] == ["sub-02_ses-1"]
    assert "has the name of sub-01_ses-1 too" in matches.problems[0]


def test_the_real_pet_is_no_synthetic_one(tmp_path: Path) -> None:
    _touch(tmp_path, "sub-01_ses-1_pet.nii.gz")
    real = tmp_path / "sub-01_ses-1_pet.nii.gz"
    (line,) = match([_session("sub-01", pet=real)], {"m": tmp_path}).problems
    assert "is the real PET itself" in line


def test_what_each_method_lacks(tmp_path: Path) -> None:
    folders = {
        "a": _touch(tmp_path / "a", "sub-01_ses-1.nii"),
        "b": _touch(tmp_path / "b", "sub-02_ses-1.nii"),
    }
    matches = match([_session("sub-01"), _session("sub-02")], folders)
    assert {method: list(names) for method, names in matches.missing.items()} == {
        "a": ["sub-02_ses-1"],
        "b": ["sub-01_ses-1"],
    }
    assert matches.found["sub-01_ses-1"] == {"a": tmp_path / "a" / "sub-01_ses-1.nii"}
    assert not matches.problems
