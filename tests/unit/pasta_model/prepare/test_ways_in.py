# SPDX-License-Identifier: Apache-2.0
"""Tables of paths, BIDS and published HDF5: what a hospital has becomes visits, problem by problem."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from pasta_model.errors import ManifestError
from pasta_model.prepare.adni import read_table
from pasta_model.prepare.bids import read_bids
from pasta_model.prepare.published_hdf5 import read_array, read_published
from pasta_model.prepare.vocabulary import day_of, diagnosis_of, session_of, site_of

ADNI = (
    "RID,PTID,VISCODE,SITE,COLPROT,EXAMDATE,DX_bl,DX,AGE,Years_bl,PTGENDER,PTEDUCAT,MMSE,ADAS13,APOE4,"
    "FDG,IMAGEUID,MRI,PET"
)


def table(folder: Path, *rows: str, header: str = ADNI) -> Path:
    for name in ("m.nii", "p.nii"):
        (folder / name).write_bytes(b"scan")
    path = folder / "adni.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_adnimerge_becomes_visits(tmp_path):
    path = table(
        tmp_path,
        "2,011_S_0002,bl,11,ADNI1,2005-09-08,CN,CN,74.3,0,Male,16,28,18.67,0,1.32,35475,m.nii,p.nii",
        "2,011_S_0002,m06,11,ADNI1,2006-03-06,CN,MCI to Dementia,74.3,0.5,Male,16,28,,0,NA,40817,m.nii,",
    )
    first, second = read_table(path)

    assert (first.subject, first.session, first.site, first.phase, first.rid) == (
        "sub-ADNI011S0002", "ses-M000", "site-11", "ADNI1", "2",
    )  # fmt: skip
    assert first.clinical == {
        "age": 74.3, "sex": 0.0, "education": 16.0, "mmse": 28.0, "adas13": 18.67, "apoe4": 0.0,
    }  # fmt: skip
    assert first.pet.path == tmp_path / "p.nii"
    assert "35475" in first.mri.label
    assert second.clinical["age"] == pytest.approx(74.8)  # AGE is that at baseline
    assert second.clinical["adas13"] is None
    assert (second.diagnosis, second.pet) == ("Dementia", None)
    assert second.mri.day - first.mri.day == 179
    assert (first.problems, second.problems) == ((), ())


def test_the_baseline_diagnosis_counts_at_baseline_only(tmp_path):
    row = "{},{},11,ADNI1,2005-09-08,AD,,74,0,Female,12,20,30,1,1,1,m.nii,p.nii"
    first, second = read_table(
        table(tmp_path, row.format("3,011_S_0003", "bl"), row.format("3,011_S_0003", "m12"))
    )
    assert (first.diagnosis, second.diagnosis) == ("Dementia", "")


def test_a_row_s_problems_stay_with_the_row(tmp_path):
    path = table(
        tmp_path,
        "1,011_S_0001,bl,11,ADNI1,2005-09-08,CN,Alzheimr,74,0,Mal,16,99,1,0,1,1,gone.nii,p.nii",
        "2,011_S_0002,bl,11,ADNI1,2005-09-08,CN,CN,74,0,Male,16,28,1,0,1,1,m.nii,p.nii",
    )
    bad, good = read_table(path)
    for word in ("gone.nii does not exist", "did you mean Dementia", "sex 'Mal'", "mmse '99'"):
        assert any(word in problem for problem in bad.problems), word
    assert good.problems == ()


def test_one_rid_of_two_names_is_a_problem(tmp_path):
    row = "{},{},bl,11,ADNI1,2005-09-08,CN,CN,74,0,Male,16,28,1,0,1,1,m.nii,p.nii"
    first, second = read_table(table(tmp_path, row.format(2, "011_S_0002"), row.format(2, "011_S_0009")))
    assert "011_S_0002, 011_S_0009" in first.problems[0]
    assert second.problems


def test_a_table_without_the_columns_names_all_that_are_missing(tmp_path):
    path = table(tmp_path, "1,2", header="FDG,AGE")
    with pytest.raises(ManifestError) as error:
        read_table(path)
    for what in ("subject", "session", "MRI", "PET"):
        assert f"no column for the {what}" in str(error.value)


def test_a_hospitals_plain_table_is_read_too(tmp_path):
    header = "participant_id,session_id,site,diagnosis,age,sex,mri,pet"
    (visit,) = read_table(table(tmp_path, "sub-7,ses-2,north,MCI,70,F,m.nii,p.nii", header=header))
    assert (visit.name, visit.site, visit.clinical["age"]) == ("sub-7_ses-2", "north", 70.0)


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    def put(name: str, content: object = None) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))

    put("participants.tsv", "participant_id\tsite\tsex\tage\tdiagnosis\nsub-01\tnorth\tF\t71\tAD\n")
    put("task_pet.json", {"Units": "SUV"})
    for session in ("ses-M000", "ses-M006"):
        stem = f"sub-01/{session}"
        put(f"{stem}/anat/sub-01_{session}_run-1_T1w.nii.gz")
        put(f"{stem}/anat/sub-01_{session}_run-2_T1w.nii.gz")
        put(f"{stem}/anat/sub-01_{session}_space-MNI_T1w.nii.gz")
        put(f"{stem}/pet/sub-01_{session}_trc-18FAV45_pet.nii.gz")
    put("trc-18FFDG_pet.json", {"Units": "Bq/mL", "FrameDuration": [300, 300]})
    put("sub-01/ses-M006/pet/sub-01_ses-M006_trc-18FFDG_pet.nii.gz")
    put("sub-01/ses-M006/pet/sub-01_ses-M006_trc-18FFDG_pet.json", {"FrameDuration": [300, 600]})
    put("sub-02/anat/sub-02_T1w.nii")
    return tmp_path


def test_bids_sessions_tracers_and_sidecars(bids):
    first, second, stranger = read_bids(bids)

    assert first.pet is None  # AV45 is no FDG
    assert first.mri.path.name == "sub-01_ses-M000_run-1_T1w.nii.gz"
    assert "(of 3)" in first.mri.label
    assert second.pet.units == "Bq/mL"  # inherited
    assert second.pet.frame_seconds == (300.0, 600.0)  # the nearer sidecar counts
    assert second.mri.day - first.mri.day == pytest.approx(6 * 30.4375)
    assert (first.diagnosis, first.site, first.clinical["sex"]) == ("Dementia", "north", 1.0)
    assert "participants.tsv" in stranger.problems[0]
    assert stranger.mri.path.name == "sub-02_T1w.nii"


def test_bids_dates_are_used_when_all_scans_have_one(bids):
    for session, day in (("ses-M000", "2010-01-01"), ("ses-M006", "2010-05-01T10:00:00")):
        lines = [
            f"anat/sub-01_{session}_run-1_T1w.nii.gz\t{day}",
            f"pet/sub-01_{session}_trc-18FFDG_pet.nii.gz\t{day}",
        ]
        scans = bids / "sub-01" / session / f"sub-01_{session}_scans.tsv"
        scans.write_text("\n".join(["filename\tacq_time", *lines]) + "\n")
    first, second, _ = read_bids(bids)
    assert second.mri.day - first.mri.day == 120


def test_a_folder_without_subjects_is_no_dataset(tmp_path):
    with pytest.raises(ManifestError, match="no folder sub-"):
        read_bids(tmp_path)


def published(path: Path, *, plain: bool = False) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("0002_bl")
        for place in ("MRI/T1", "PET/FDG"):
            group[place if plain else f"{place}/data"] = np.full((3, 4, 5), 7.0)
        group["tabular"] = np.array([70.5, 1.0, 16.0, np.nan, 12.0, 2.0])
        group.attrs.update({"DX": b"Dementia", "RID": 2, "VISCODE": "m06"})
        file.create_group("broken").attrs["DX"] = "CN"
    return path


@pytest.mark.parametrize("plain", [True, False])
def test_published_files_are_read(tmp_path, plain):
    visit, broken = read_published([published(tmp_path / "x_valid.h5", plain=plain)])

    assert (visit.name, visit.diagnosis, visit.split, visit.rid) == (
        "sub-ADNI0002_ses-M006",
        "Dementia",
        "valid",
        "2",
    )
    assert (visit.clinical["mmse"], visit.clinical["apoe4"], visit.clinical["sex"]) == (None, 2.0, 1.0)
    assert read_array(visit.mri.path, visit.mri.inside).mean() == 7.0
    assert broken.mri is None


def test_a_damaged_hdf5_is_one_message(tmp_path):
    path = published(tmp_path / "x.h5")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ManifestError, match="not a readable HDF5"):
        read_published([path])


@pytest.mark.parametrize(
    ("said", "meant"),
    [("NL", "CN"), ("SMC", "CN"), ("LMCI", "MCI"), ("AD", "Dementia"), ("Alzheimer's Disease", "Dementia"),
     ("MCI to Dementia", "Dementia"), ("Dementia to MCI", "MCI"), ("n/a", "")],
)  # fmt: skip
def test_diagnoses_as_they_are_spelt(said, meant):
    assert diagnosis_of(said) == (meant, "")


def test_names_of_visits_sites_and_days():
    assert [session_of(v) for v in ("bl", "m06", "m120", "scmri")] == [
        "ses-M000",
        "ses-M006",
        "ses-M120",
        "ses-scmri",
    ]
    assert [site_of(s) for s in ("11", "11.0", "St. Mary's", "")] == ["site-11", "site-11", "St.-Mary-s", ""]
    assert (
        len({day_of(d) for d in ("2010-05-01", "05/01/2010", "01.05.2010", "20100501", "2010-05-01T08:00")})
        == 1
    )
    assert day_of("spring") is None
