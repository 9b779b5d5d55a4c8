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
    about = {"DX": "CN", "RID": 2, "VISCODE": "m06", "SITE": b"11"} | changes
    with h5py.File(path, "a") as file:
        group = file.create_group(str(changes.get("name", "2_m06")))
        for place in ("MRI/T1", "PET/FDG"):
            if place != without:
                group[layout.format(place)] = changes.get("data", SMALL)
        group["tabular"] = np.asarray(changes.get("tabular", CLINICAL))
        group.attrs.update({key: about[key] for key in ("DX", "RID", "VISCODE", "SITE")})
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


def test_adnis_numbers_for_the_sexes_are_told_by_a_2_in_any_file(tmp_path: Path) -> None:
    man = write(tmp_path / "a.h5", tabular=(70.0, 1.0, *CLINICAL[2:]))
    woman = write(tmp_path / "b.h5", RID=3, tabular=(70.0, 2.0, *CLINICAL[2:]))
    assert [v.clinical["sex"] for v in read_published([man, woman])] == [0.0, 1.0]
    assert read_published([man])[0].clinical["sex"] == 1.0


def test_the_published_readmes_names_of_columns_are_known(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        names = [b"age", b"gender", b"education", b"MMSE", b"ADAS-Cog-13", b"ApoE4"]
        file["stats/tabular/columns"] = np.array(names)
    assert tuple(read_published([path])[0].clinical.values()) == CLINICAL


@pytest.mark.parametrize("tabular", [(70.0, 1.0), [b"a"] * 6])
def test_a_bad_row_of_values_is_a_problem_of_its_visit_only(tmp_path: Path, tabular: object) -> None:
    path = write(tmp_path / "a.h5", tabular=tabular)
    write(path, name="3_bl", RID=3)
    bad, good = read_published([path])
    assert bad.problems == ("tabular does not hold 6 numbers, one for each of stats/tabular/columns",)
    assert set(bad.clinical.values()) == {None}
    assert good.problems == ()


def test_values_may_be_the_dataset_data_in_a_group(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file.move("2_m06/tabular", "2_m06/values")
        file.move("2_m06/values", "2_m06/tabular/data")
    assert tuple(read_published([path])[0].clinical.values()) == CLINICAL


def test_attributes_may_be_arrays_of_one_value_or_empty(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", RID=np.array([2]), VISCODE=h5py.Empty("f"))
    (visit,) = read_published([path])
    assert (visit.name, visit.rid) == ("sub-ADNI0002_ses-M000", "2")


@pytest.mark.parametrize("kind", [OSError, RuntimeError, ValueError, KeyError])
def test_whatever_h5py_raises_of_a_damaged_file_is_one_clear_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def damaged(group: h5py.Group) -> None:
        raise kind("flipped bits")  # a flipped byte of a header gives any of these

    path = write(tmp_path / "a.h5")
    (visit,) = read_published([path])
    monkeypatch.setattr(h5py.Group, "__getitem__", lambda group, name: damaged(group))
    monkeypatch.setattr(h5py.Group, "get", lambda group, name: damaged(group))
    with pytest.raises(ManifestError, match=r"not a readable HDF5 file .*flipped bits"):
        read_published([path])
    with pytest.raises(VolumeError, match=r"cannot be read .*flipped bits"):
        read_array(path, visit.mri.inside)


def test_without_a_site_each_visit_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", SITE="")
    assert "--site" in read_published([path])[0].problems[0]
    assert read_published([path], site="Oslo")[0].problems == ()
