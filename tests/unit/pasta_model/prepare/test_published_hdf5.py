# SPDX-License-Identifier: Apache-2.0
"""HDF5 files in the published layout become visits."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from pasta_model.data.grid import template
from pasta_model.errors import ManifestError, VolumeError
from pasta_model.prepare.published_hdf5 import read_array, read_published
from pasta_model.prepare.records import RawScan
from pasta_model.prepare.scans import read_mri

CLINICAL = (74.3, 1.0, 16.0, 28.0, 18.67, 2.0)  # age, sex, education, MMSE, ADAS13, APOE4
SMALL = np.arange(24.0).reshape(2, 3, 4)


def write(path: Path, *, layout: str = "{}/data", without: str = "", **changes: object) -> Path:
    """Write a file of one visit; `without` leaves a part of it out."""
    about = {"DX": "CN", "RID": 2, "VISCODE": "m06"} | changes
    with h5py.File(path, "a") as file:
        group = file.create_group(str(changes.get("name", "2_m06")))
        for place in ("MRI/T1", "PET/FDG"):
            if place != without:
                group[layout.format(place)] = changes.get("data", SMALL)
        group["tabular"] = np.asarray(changes.get("tabular", CLINICAL))
        group.attrs.update({key: about[key] for key in ("DX", "RID", "VISCODE")})
    return path


@pytest.mark.parametrize("layout", ["{}/data", "{}"])
def test_a_scan_is_a_dataset_in_a_group_or_the_dataset_itself(tmp_path: Path, layout: str) -> None:
    (visit,) = read_published([write(tmp_path / "a.h5", layout=layout)])
    assert (visit.mri.inside, visit.pet.inside) == tuple(
        "/2_m06/" + layout.format(place) for place in ("MRI/T1", "PET/FDG")
    )
    assert np.array_equal(read_array(visit.pet.path, visit.pet.inside), SMALL)
    assert (visit.name, visit.diagnosis, visit.rid) == ("sub-ADNI0002_ses-M006", "CN", "2")
    assert tuple(visit.clinical.values()) == CLINICAL
    assert visit.problems == ()


def test_attributes_may_be_bytes_and_numbers_of_any_kind(tmp_path: Path) -> None:
    kinds = ({"DX": b"Dementia", "RID": b"2", "VISCODE": b"m06"}, {"DX": np.bytes_("AD"), "RID": 2.0},
             {"DX": "AD", "RID": np.float32(2)}, {"DX": "Dementia", "RID": np.int64(2)})  # fmt: skip
    for number, kind in enumerate(kinds):
        (visit,) = read_published([write(tmp_path / f"{number}.h5", **kind)])
        assert (visit.name, visit.diagnosis, visit.rid) == ("sub-ADNI0002_ses-M006", "Dementia", "2")


def test_nan_is_a_missing_value(tmp_path: Path) -> None:
    (visit,) = read_published([write(tmp_path / "a.h5", tabular=(70.0, np.nan, 12.0, np.nan, np.nan, 0.0))])
    assert tuple(visit.clinical.values()) == (70.0, None, 12.0, None, None, 0.0)
    assert visit.problems == ()


def test_columns_go_by_their_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", tabular=(2.0, 28.0, 1.0, 9.0, 70.0))
    with h5py.File(path, "a") as file:
        file["stats/tabular/columns"] = np.array([b"APOE4", b"MMSE", b"PTGENDER", b"OTHER", b"AGE"])
        file["stats/tabular/mean"] = np.zeros(5)
    (visit,) = read_published([path])
    assert visit.clinical == {
        "age": 70.0, "sex": 1.0, "education": None, "mmse": 28.0, "adas13": None, "apoe4": 2.0,
    }  # fmt: skip


def test_a_files_name_gives_the_split(tmp_path: Path) -> None:
    names = {"pasta_train.h5": "train", "x-valid.hdf5": "valid", "test.h5": "test", "train_all.h5": None}
    for name, split in names.items():
        (visit,) = read_published([write(tmp_path / name)])
        assert visit.split == split, name


def test_visits_of_all_files_are_read(tmp_path: Path) -> None:
    files = [write(tmp_path / "a_train.h5"), write(tmp_path / "a_test.h5", RID=3, VISCODE="bl")]
    visits = read_published(files, site="Oslo")
    assert [(v.name, v.split, v.site) for v in visits] == [
        ("sub-ADNI0002_ses-M006", "train", "Oslo"),
        ("sub-ADNI0003_ses-M000", "test", "Oslo"),
    ]


def test_a_group_lacking_an_mri_is_a_visit_without_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", without="MRI/T1")
    write(path, name="3_bl", RID=3)
    lacking, whole = read_published([path])
    assert (lacking.mri, bool(lacking.pet)) == (None, True)
    assert (bool(whole.mri), bool(whole.pet)) == (True, True)


def test_a_diagnosis_spelt_otherwise_is_the_visits_problem(tmp_path: Path) -> None:
    (visit,) = read_published([write(tmp_path / "a.h5", DX="Demenita")])
    assert visit.problems == ("diagnosis 'Demenita', wanted CN, MCI or Dementia; did you mean Dementia?",)


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_damaged_file_is_one_clear_message(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "a.h5")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ManifestError, match=r"a\.h5: not a readable HDF5 file .*copy it again"):
        read_published([path])


def test_a_file_without_visits_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["stats/tabular/mean"] = np.zeros(6)
    with pytest.raises(ManifestError, match="no visit"):
        read_published([tmp_path / "a.h5"])


def test_a_volume_lies_on_the_published_grid(tmp_path: Path) -> None:
    head = template(1.5).head
    data = np.ones(head.shape, np.float32)
    data[3, 4, 5] = 9.0
    (visit,) = read_published([write(tmp_path / "a.h5", data=data)])
    found = read_mri(visit.mri).volume
    assert np.array_equal(found.data, data)
    assert np.array_equal(found.affine, head.affine)


def test_a_volume_of_another_shape_or_gone_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    with pytest.raises(VolumeError, match=r"shape \(2, 3, 4\), wanted \(113, 137, 113\)"):
        read_mri(RawScan(path, "ses-M006", inside="/2_m06/MRI/T1/data"))
    with pytest.raises(VolumeError, match="cannot be read"):
        read_array(path, "/3_bl/MRI/T1/data")
