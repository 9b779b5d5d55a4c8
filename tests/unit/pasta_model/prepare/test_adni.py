# SPDX-License-Identifier: Apache-2.0
"""A table with ADNIMERGE's columns, or with those of our own manifest, becomes visits."""

import csv
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from pasta_model.errors import ManifestError
from pasta_model.prepare.adni import read_table
from pasta_model.prepare.records import Visit

BASELINE = {  # ADNIMERGE's own order and spelling; the two paths are the user's
    "RID": "2", "COLPROT": "ADNI1", "ORIGPROT": "ADNI1", "PTID": "011_S_0002", "SITE": "11", "VISCODE": "bl",
    "EXAMDATE": "2005-09-08", "DX_bl": "CN", "AGE": "74.3", "PTGENDER": "Male", "PTEDUCAT": "16",
    "PTETHCAT": "Not Hisp/Latino", "APOE4": "0", "FDG": "1.3", "AV45": "", "MMSE": "28", "ADAS13": "18.67",
    "IMAGEUID": "35475", "Hippocampus": "8336", "DX": "CN", "TAU": ">1300", "Years_bl": "0", "Month": "0",
    "MRI": "t1.nii.gz", "PET": "fdg.nii.gz",
}  # fmt: skip
MONTH_6 = BASELINE | {"VISCODE": "m06", "EXAMDATE": "2006-03-06", "Years_bl": "0.49", "Month": "6"}
OURS = {
    "participant_id": "sub-7", "session_id": "ses-M012", "site": "north", "diagnosis": "MCI", "age": "71",
    "sex": "F", "education": "12", "mmse": "27", "adas13": "n/a", "apoe4": "1", "mri": "t1.nii.gz",
    "pet": "fdg.nii.gz",
}  # fmt: skip


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[Visit, ...]]:
    """Write rows as a table beside two scans, and read its visits."""

    def run(*rows: dict[str, str], **words: str) -> tuple[Visit, ...]:
        for name in ("t1.nii.gz", "fdg.nii.gz"):
            (tmp_path / name).write_bytes(b"")
        with (tmp_path / "table.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return read_table(tmp_path / "table.csv", **words)

    return run


def test_a_row_of_adnimerge_is_a_visit(read, tmp_path: Path) -> None:
    (visit,) = read(BASELINE)
    assert (visit.subject, visit.session, visit.site) == ("sub-ADNI011S0002", "ses-M000", "site-11")
    assert (visit.diagnosis, visit.phase, visit.rid) == ("CN", "ADNI1", "2")
    assert visit.clinical == {
        "age": 74.3, "sex": 0.0, "education": 16.0, "mmse": 28.0, "adas13": 18.67, "apoe4": 0.0,
    }  # fmt: skip
    assert (visit.mri.path, visit.pet.path) == (tmp_path / "t1.nii.gz", tmp_path / "fdg.nii.gz")
    assert visit.mri.label == "t1.nii.gz (image 35475)"
    assert visit.problems == ()


def test_age_is_that_of_the_visit(read) -> None:
    first, second = read(BASELINE, MONTH_6)
    assert first.clinical["age"] == pytest.approx(74.3)
    assert second.clinical["age"] == pytest.approx(74.3 + 0.49)


@pytest.mark.parametrize("cell", ["", "NA", "NaN"])
def test_age_without_years_counts_the_visits_months(read, cell: str) -> None:
    (visit,) = read(MONTH_6 | {"Years_bl": cell})
    assert visit.clinical["age"] == pytest.approx(74.3 + 0.5)


def test_the_diagnosis_at_baseline_tells_of_the_baseline_alone(read) -> None:
    first, second = read(BASELINE | {"DX": "", "DX_bl": "LMCI"}, MONTH_6 | {"DX": "", "DX_bl": "LMCI"})
    assert (first.diagnosis, second.diagnosis) == ("MCI", "")


def test_a_visits_own_diagnosis_comes_before_that_at_baseline(read) -> None:
    first, second = read(BASELINE | {"DX": "MCI"}, MONTH_6 | {"DX": "MCI to Dementia"})
    assert (first.diagnosis, second.diagnosis) == ("MCI", "Dementia")


def test_days_are_those_of_the_scans_else_of_the_visit(read) -> None:
    dated = {"MRI_DATE": "2005-09-01", "PET_DATE": ""}
    (visit,) = read(BASELINE | dated)
    assert visit.mri.day == date(2005, 9, 1).toordinal()
    assert visit.pet.day == date(2005, 9, 8).toordinal()
    assert visit.mri.session == visit.pet.session == "ses-M000"


def test_a_rid_alone_names_the_subject(read) -> None:
    row = {name: cell for name, cell in BASELINE.items() if name != "PTID"}
    one, other = read(row | {"RID": "2"}, row | {"RID": "1234.0"})
    assert (one.subject, one.rid) == ("sub-ADNI0002", "2")
    assert (other.subject, other.rid) == ("sub-ADNI1234", "1234")


@pytest.mark.parametrize("changed", [{"RID": "3"}, {"PTID": "011_S_0003"}])
def test_a_person_of_two_names_is_refused_on_every_row_and_nobody_else(read, changed: dict) -> None:
    stranger = BASELINE | {"RID": "9", "PTID": "011_S_0009"}
    *confused, clear = read(BASELINE, MONTH_6 | changed, stranger)
    assert all("one person, one name, wanted" in " ".join(v.problems) for v in confused)
    assert clear.problems == ()


def test_a_rid_that_is_another_subjects_name_blames_only_its_own_rows(read) -> None:
    twice = (OURS | {"rid": "7", "participant_id": name} for name in ("1", "2"))
    *confused, clear = read(*twice, OURS | {"rid": "8", "participant_id": "7"})
    assert all(v.problems for v in confused)
    assert clear.problems == ()


def test_two_subjects_whose_names_become_one_are_refused(read) -> None:
    one, other = read(OURS | {"participant_id": "1-11"}, OURS | {"participant_id": "11-1", "session_id": "b"})
    assert one.subject == other.subject
    assert all("1-11" in " ".join(v.problems) and "11-1" in " ".join(v.problems) for v in (one, other))


def test_a_missing_file_is_a_problem_of_its_visit_only(read) -> None:
    lost, whole = read(BASELINE | {"MRI": "gone.nii.gz"}, MONTH_6)
    (problem,) = lost.problems
    assert problem.startswith("MRI ")
    assert "gone.nii.gz does not exist" in problem
    assert whole.problems == ()


def test_a_visit_without_paths_has_no_scans(read) -> None:
    (visit,) = read(BASELINE | {"MRI": "", "PET": "NA"})
    assert (visit.mri, visit.pet, visit.problems) == (None, None, ())


def test_the_column_fdg_is_a_number_never_a_path(read) -> None:
    row = {name: cell for name, cell in BASELINE.items() if name != "PET"}
    with pytest.raises(ManifestError, match="no column for the PET"):
        read(row)


def test_missing_columns_are_named_all_at_once(read) -> None:
    with pytest.raises(ManifestError) as error:
        read({"AGE": "70", "FDG": "1.3"})
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == 4
    for what in ("subject", "session", "MRI", "PET"):
        assert any(f"no column for the {what};" in line for line in lines), what


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(",".join(BASELINE) + "\n")
    with pytest.raises(ManifestError, match="no row below the header"):
        read_table(tmp_path / "table.csv")


def test_our_own_manifest_is_read(read) -> None:
    (visit,) = read(OURS)
    assert (visit.name, visit.site, visit.diagnosis) == ("sub-7_ses-M012", "north", "MCI")
    assert visit.clinical == {
        "age": 71.0, "sex": 1.0, "education": 12.0, "mmse": 27.0, "adas13": None, "apoe4": 1.0,
    }  # fmt: skip
    assert (visit.rid, visit.phase, visit.problems) == ("", "", ())


def test_our_own_manifests_age_is_that_of_the_visit_with_a_rid_too(read) -> None:
    (visit,) = read(OURS | {"rid": "2", "phase": "ADNI2"})
    assert (visit.clinical["age"], visit.rid, visit.phase) == (71.0, "2", "ADNI2")


@pytest.mark.parametrize("cell", ["NA", "n/a"])
def test_a_rid_and_a_phase_that_are_missing_are_empty(read, cell: str) -> None:
    (visit,) = read(OURS | {"rid": cell, "phase": cell})
    assert (visit.rid, visit.phase) == ("", "")


def test_a_named_hospital_replaces_the_column_of_sites(read) -> None:
    (visit,) = read(BASELINE, site="Oslo")
    assert visit.site == "Oslo"


def test_without_a_site_the_row_says_so(read) -> None:
    (visit,) = read(BASELINE | {"SITE": ""})
    assert "--site" in visit.problems[0]


def test_every_problem_of_a_row_is_told(read) -> None:
    (visit,) = read(BASELINE | {"VISCODE": "", "DX": "Demntia", "MMSE": "280", "PET": "gone.nii"})
    told = " | ".join(visit.problems)
    assert len(visit.problems) == 4
    for word in ("VISCODE", "did you mean Dementia?", "mmse '280'", "gone.nii does not exist"):
        assert word in told


def test_one_rid_in_several_spellings_is_one_person(read) -> None:
    visits = read(BASELINE, MONTH_6 | {"RID": "2.0"}, MONTH_6 | {"RID": "0002", "VISCODE": "m12", "PTID": ""})
    assert {(v.subject, v.rid, v.problems) for v in visits} == {("sub-ADNI011S0002", "2", ())}


def test_rows_without_rid_and_subject_get_nobodys_name(read) -> None:
    _, lost = read(BASELINE | {"RID": "NA"}, MONTH_6 | {"RID": "NA", "PTID": ""})
    assert "no subject" in lost.problems[0]


@pytest.mark.parametrize("name", ["EXAMDATE", "MRI_DATE", "PET_DATE"])
def test_a_date_that_cannot_be_read_is_a_problem(read, name: str) -> None:
    (visit,) = read(BASELINE | {name: "31/12/2005"})
    assert len(visit.problems) == 1
    assert "31/12/2005" in visit.problems[0]


def test_age_goes_by_months_where_there_are_no_years(read) -> None:
    rows = [
        {n: c for n, c in MONTH_6.items() if n != "Years_bl"} | {"VISCODE": code, "Month": month}
        for code, month in (("m06", "7"), ("uns1", "30"), ("uns1", "NA"), ("sc", ""))
    ]
    ages = [visit.clinical["age"] for visit in read(*rows)]
    assert ages == [pytest.approx(74.3 + 7 / 12), pytest.approx(74.3 + 2.5), None, pytest.approx(74.3)]


def test_adnis_code_of_a_missing_value_is_no_time(read) -> None:
    (visit,) = read(MONTH_6 | {"Years_bl": "-4", "Month": "-4"})
    assert visit.clinical["age"] == pytest.approx(74.3 + 0.5)


def test_a_failed_screening_is_refused(read) -> None:
    assert "failed screening" in read(BASELINE | {"VISCODE": "f"})[0].problems[0]


def test_a_name_without_a_letter_or_digit_is_refused(read) -> None:
    assert "wanted letters a to z" in " ".join(read(OURS | {"participant_id": "ÄÖ"})[0].problems)
    assert "wanted letters or digits" in read(OURS | {"session_id": "--"})[0].problems[0]


def test_a_json_beside_the_pet_tells_units_and_frames(read, tmp_path: Path) -> None:
    (tmp_path / "fdg.json").write_text('{"Units": "Bq/mL", "FrameDuration": [60, 300], "TracerName": "FDG"}')
    (visit,) = read(BASELINE)
    assert (visit.pet.units, visit.pet.frame_seconds, visit.problems) == ("Bq/mL", (60.0, 300.0), ())
    assert read(BASELINE | {"PET_UNITS": "SUV"})[0].pet.units == "SUV"


def test_a_json_beside_a_scan_names_its_scanner(read, tmp_path: Path) -> None:
    (tmp_path / "t1.json").write_text('{"Manufacturer": "Philips"}')
    (tmp_path / "fdg.json").write_text('{"Manufacturer": "Siemens"}')
    (visit,) = read(BASELINE)
    assert (visit.mri.manufacturer, visit.pet.manufacturer) == ("Philips", "Siemens")


def test_a_json_of_another_tracer_is_a_problem(read, tmp_path: Path) -> None:
    (tmp_path / "fdg.json").write_text('{"TracerName": "18F-AV45"}')
    assert "its JSON says '18F-AV45'" in read(BASELINE)[0].problems[0]


def test_the_wrong_mark_between_columns_is_told(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("RID;VISCODE;MRI;PET\n2;bl;a.nii;b.nii\n")
    with pytest.raises(ManifestError, match="found one column; wanted commas"):
        read_table(tmp_path / "table.csv")


def test_a_folder_is_no_scan(read, tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    assert "is no file" in read(BASELINE | {"MRI": "dicom"})[0].problems[0]
