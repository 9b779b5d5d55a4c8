# SPDX-License-Identifier: Apache-2.0
"""A BIDS dataset becomes visits: the right files, their metadata, and what the tables say."""

import json
import math
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from pasta_model.errors import ManifestError
from pasta_model.prepare.bids import read_bids
from pasta_model.prepare.records import Visit
from pasta_model.prepare.sidecars import is_fdg
from pasta_model.prepare.vocabulary import DAYS_OF_MONTH

PEOPLE = "participant_id\tsite\tdiagnosis\tage\tsex\nsub-01\tOslo\tMCI\t70\tF\n"
T1, FDG = (
    "sub-01/ses-{0}/anat/sub-01_ses-{0}_T1w.nii.gz",
    "sub-01/ses-{0}/pet/sub-01_ses-{0}_trc-18FFDG_pet.nii.gz",
)


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., tuple[Visit, ...]]:
    """Write a dataset of empty scans and of tables, and read its visits; a dict becomes a JSON file."""

    def run(*scans: str, files: dict[str, object] | None = None, **words: str) -> tuple[Visit, ...]:
        for name, content in (
            {"participants.tsv": PEOPLE} | dict.fromkeys(scans, "") | (files or {})
        ).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(content) if isinstance(content, dict) else str(content)
            (tmp_path / name).write_text(text, encoding="utf-8")
        return read_bids(tmp_path, **words)

    return run


def names(visit: Visit) -> tuple[str, str]:
    return tuple(scan.path.name if scan else "" for scan in (visit.mri, visit.pet))


def test_sessions_are_visits_with_their_scans(dataset) -> None:
    first, second = dataset(T1.format("M000"), FDG.format("M000"), T1.format("M012"))
    assert names(first) == ("sub-01_ses-M000_T1w.nii.gz", "sub-01_ses-M000_trc-18FFDG_pet.nii.gz")
    assert names(second) == ("sub-01_ses-M012_T1w.nii.gz", "")
    assert [v.name for v in (first, second)] == ["sub-01_ses-M000", "sub-01_ses-M012"]
    assert (first.site, first.diagnosis, first.clinical["age"], first.clinical["sex"]) == (
        "Oslo",
        "MCI",
        70.0,
        1.0,
    )
    assert first.mri.label == T1.format("M000")
    assert first.problems == second.problems == ()


def test_without_session_folders_a_subject_is_one_visit(dataset) -> None:
    (visit,) = dataset("sub-01/anat/sub-01_T1w.nii", "sub-01/pet/sub-01_trc-18FFDG_pet.nii")
    assert (visit.session, names(visit)) == ("ses-M000", ("sub-01_T1w.nii", "sub-01_trc-18FFDG_pet.nii"))


@pytest.mark.parametrize("tracer", ["18FAV45", "11CPIB", "18FFDOPA", "18FFDGal", "AV1451"])
def test_another_tracer_is_never_taken(dataset, tracer: str) -> None:
    (visit,) = dataset(T1.format("M000"), FDG.format("M000").replace("18FFDG", tracer))
    assert visit.pet is None


def test_fdg_is_found_among_tracers(dataset) -> None:
    other = FDG.format("M000").replace("18FFDG", "11CPIB")
    (visit,) = dataset(other, FDG.format("M000"))
    assert names(visit) == ("", "sub-01_ses-M000_trc-18FFDG_pet.nii.gz")


@pytest.mark.parametrize(("tracer", "taken"), [("FDG", True), ("PIB", False), (None, False)])
def test_without_a_tracer_in_its_name_the_sidecar_tells(dataset, tracer: str | None, taken: bool) -> None:
    pet = "sub-01/pet/sub-01_pet.nii.gz"
    about = {"TracerName": tracer} if tracer else {"Units": "Bq/mL"}
    (visit,) = dataset(pet, files={"sub-01/pet/sub-01_pet.json": about})
    assert bool(visit.pet) is taken


def test_the_nearer_sidecar_overrides_the_farther_one(dataset) -> None:
    (visit,) = dataset(
        FDG.format("M000"),
        files={
            "pet.json": {"Units": "counts", "FrameDuration": [60, 60]},
            "sub-01/sub-01_pet.json": {"FrameDuration": [120, 300]},
            "sub-01/ses-M000/pet/sub-01_ses-M000_trc-18FFDG_pet.json": {"Units": "Bq/mL"},
        },
    )
    assert (visit.pet.units, visit.pet.frame_seconds) == ("Bq/mL", (120.0, 300.0))


def test_a_sidecar_of_another_tracer_run_or_session_does_not_apply(dataset) -> None:
    (visit,) = dataset(
        FDG.format("M000"),
        files={
            "trc-18FFDG_pet.json": {"Units": "Bq/mL"},
            "trc-11CPIB_pet.json": {"Units": "SUV"},
            "sub-01/sub-01_ses-M012_pet.json": {"Units": "SUV"},
            "sub-01/ses-M000/pet/sub-01_ses-M000_trc-18FFDG_run-2_pet.json": {"FrameDuration": [1, 2]},
        },
    )
    assert (visit.pet.units, visit.pet.frame_seconds) == ("Bq/mL", ())


def test_each_scans_own_sidecars_name_its_scanner(dataset) -> None:
    (visit,) = dataset(
        T1.format("M000"),
        FDG.format("M000"),
        files={
            "T1w.json": {"Manufacturer": "GE"},
            "sub-01/sub-01_T1w.json": {"Manufacturer": "Philips", "Units": "nonsense"},
            "pet.json": {"Manufacturer": "Siemens"},
        },
    )
    assert (visit.mri.manufacturer, visit.pet.manufacturer) == ("Philips", "Siemens")
    assert visit.mri.units == ""


def test_a_damaged_sidecar_of_an_mri_costs_nothing_but_the_scanners_name(dataset) -> None:
    (visit,) = dataset(T1.format("M000"), files={T1.format("M000").replace(".nii.gz", ".json"): "{"})
    assert (visit.mri.manufacturer, visit.problems) == ("", ())


@pytest.mark.parametrize("duration", [300, None, [], "300"])
def test_a_frame_duration_that_is_no_list_is_unknown(dataset, duration: object) -> None:
    sidecar = FDG.format("M000").replace(".nii.gz", ".json")
    (visit,) = dataset(FDG.format("M000"), files={sidecar: {"FrameDuration": duration}})
    assert visit.pet.frame_seconds == ()


def test_a_frame_duration_that_is_no_number_is_left_to_the_readers_refusal(dataset) -> None:
    sidecar = FDG.format("M000").replace(".nii.gz", ".json")
    (visit,) = dataset(FDG.format("M000"), files={sidecar: {"FrameDuration": [60, None]}})
    assert visit.pet.frame_seconds == pytest.approx((60.0, math.nan), nan_ok=True)


def scans_tsv(session: str, mri: str, pet: str) -> dict[str, object]:
    lines = ["filename\tacq_time", *(f"{name.format(session).split('/', 2)[2]}\t{day}" for name, day in
             ((T1, mri), (FDG, pet)))]  # fmt: skip
    return {f"sub-01/ses-{session}/sub-01_ses-{session}_scans.tsv": "\n".join(lines) + "\n"}


def test_dates_of_scans_count_when_all_are_known(dataset) -> None:
    (visit,) = dataset(
        T1.format("M006"),
        FDG.format("M006"),
        files=scans_tsv("M006", "2010-03-01T10:20:30", "2010-03-18T00:00:00"),
    )
    assert visit.pet.day - visit.mri.day == 17
    assert visit.mri.day == date(2010, 3, 1).toordinal()


def test_a_date_that_is_missing_makes_all_of_the_subject_go_by_months(dataset) -> None:
    visits = dataset(
        *(form.format(session) for form in (T1, FDG) for session in ("M000", "M006")),
        files=scans_tsv("M000", "2010-03-01", "2010-03-18") | scans_tsv("M006", "2010-09-01", "n/a"),
    )
    assert [(v.mri.day, v.pet.day) for v in visits] == [(0.0, 0.0), (6 * DAYS_OF_MONTH,) * 2]


def test_sessions_that_say_no_month_have_no_days(dataset) -> None:
    (visit,) = dataset(T1.format("one"), FDG.format("one"))
    assert (visit.mri.day, visit.pet.day) == (None, None)


def test_a_table_of_sessions_dates_and_describes_them(dataset) -> None:
    table = (
        "session_id\tacq_time\tdiagnosis\tmmse\nses-M000\t2010-01-01\tCN\t29\nses-M012\t2011-01-03\tAD\tn/a\n"
    )
    first, second = dataset(T1.format("M000"), T1.format("M012"), files={"sub-01/sub-01_sessions.tsv": table})
    assert (first.diagnosis, second.diagnosis) == ("CN", "Dementia")
    assert (first.clinical["mmse"], second.clinical["mmse"]) == (29.0, None)
    assert second.mri.day - first.mri.day == 367


def test_of_several_t1w_the_plain_one_is_taken_and_the_choice_told(dataset) -> None:
    plain = T1.format("M000")
    runs = [
        plain.replace("_T1w", f"_{word}_T1w") for word in ("acq-mprage", "run-2", "desc-preproc", "space-MNI")
    ]
    (visit,) = dataset(plain, *runs)
    assert visit.mri.path.name == "sub-01_ses-M000_T1w.nii.gz"
    assert visit.mri.label == f"{plain} (of 5)"


def test_of_several_runs_the_first_is_taken(dataset) -> None:
    runs = [T1.format("M000").replace("_T1w", f"_run-{n}_T1w") for n in (2, 1, 3)]
    (visit,) = dataset(*runs)
    assert visit.mri.path.name == "sub-01_ses-M000_run-1_T1w.nii.gz"


def test_raw_comes_before_processed(dataset) -> None:
    processed = T1.format("M000").replace("_T1w", "_desc-a_T1w")
    raw = T1.format("M000").replace("_T1w", "_acq-b_run-1_T1w")
    assert dataset(processed, raw)[0].mri.path.name == Path(raw).name


def test_a_folder_of_derivatives_is_not_read(dataset) -> None:
    (visit,) = dataset(T1.format("M000"), "derivatives/x/" + FDG.format("M000"))
    assert visit.pet is None


def test_a_synthetic_pet_is_never_taken_for_a_measured_one(dataset) -> None:
    synthetic = FDG.format("M000").replace("_trc-18FFDG", "_space-T1w_trc-18FFDG_desc-synthetic")
    (visit,) = dataset(T1.format("M000"), synthetic)
    assert visit.pet is None


@pytest.mark.parametrize("name", ["T2w.nii.gz", "FLAIR.nii.gz", "T1w.json", "desc-brain_mask.nii.gz"])
def test_what_is_no_t1w_is_no_mri(dataset, name: str) -> None:
    (visit,) = dataset(f"sub-01/anat/sub-01_{name}")
    assert visit.mri is None


def test_a_subject_without_a_row_is_a_problem_of_that_subject_only(dataset) -> None:
    known, unknown = dataset(T1.format("M000"), "sub-02/anat/sub-02_T1w.nii.gz")
    assert known.problems == ()
    assert "sub-02 is not in participants.tsv; add the row" in unknown.problems


def test_without_a_site_it_may_be_named(dataset) -> None:
    table = {"participants.tsv": "participant_id\tdiagnosis\nsub-01\tCN\n"}
    assert "--site" in dataset(T1.format("M000"), files=table)[0].problems[0]
    (visit,) = dataset(T1.format("M000"), files=table, site="Oslo")
    assert (visit.site, visit.problems) == ("Oslo", ())


def test_a_misspelt_diagnosis_and_an_impossible_value_are_told(dataset) -> None:
    table = {"participants.tsv": "participant_id\tsite\tDX\tmmse\nsub-01\tA\tDemenita\t300\n"}
    told = " | ".join(dataset(T1.format("M000"), files=table)[0].problems)
    assert "did you mean Dementia?" in told
    assert "mmse '300'" in told


def test_the_person_is_known_by_the_rid_where_there_is_one(dataset) -> None:
    table = (
        "participant_id\tsite\tdiagnosis\trid\tphase\nsub-01\tA\tCN\t2.0\tADNI2\nsub-02\tA\tCN\tn/a\tn/a\n"
    )
    one, other = dataset(T1.format("M000"), "sub-02/anat/sub-02_T1w.nii", files={"participants.tsv": table})
    assert (one.rid, one.phase) == ("2", "ADNI2")
    assert (other.rid, other.phase) == ("", "")


def test_a_folder_without_subjects_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no folder sub-\*"):
        read_bids(tmp_path)


CLINICA = {  # columns as its converter of ADNI writes them
    "participants.tsv": "participant_id\tsex\teducation_level\tage_bl\tsite\toriginal_study\tadni_rid\tapoe4"
    "\tdiagnosis_sc\nsub-01\tF\t16\t70\t11\tADNI1\t2\t1\tLMCI\n",
    "sub-01/sub-01_sessions.tsv": "session_id\texamination_date\tcurrent_study\tdiagnosis\tMMSE\n"
    "ses-M000\t2010-01-05\tADNI1\tn/a\t28\nses-M012\t2011-01-10\tADNI2\tn/a\tn/a\n",
}


def test_columns_may_have_clinicas_names(dataset) -> None:
    first, second = dataset(T1.format("M000"), T1.format("M012"), files=CLINICA)
    assert (first.site, first.phase, second.phase, first.rid) == ("site-11", "ADNI1", "ADNI2", "2")
    assert first.clinical == {
        "age": 70.0, "sex": 1.0, "education": 16.0, "mmse": 28.0, "adas13": None, "apoe4": 1.0,
    }  # fmt: skip
    assert (first.diagnosis, second.diagnosis) == ("MCI", "")  # diagnosis_sc is that of the first session
    assert second.mri.day - first.mri.day == 370
    assert second.clinical["age"] == pytest.approx(71.0)


def test_what_changes_in_a_person_is_not_carried_to_later_sessions(dataset) -> None:
    table = "participant_id\tsite\tgroup\tage\tmmse\teducation\nsub-01\tA\tAD\t70\t21\t12\n"
    first, second = dataset(T1.format("M006"), T1.format("M024"), files={"participants.tsv": table})
    assert (first.clinical["age"], second.clinical["age"]) == (70.0, 71.5)
    assert (first.clinical["mmse"], second.clinical["mmse"]) == (21.0, None)
    assert (second.clinical["education"], second.diagnosis) == (12.0, "Dementia")


def test_an_age_of_the_session_is_taken_as_it_is(dataset) -> None:
    table = {"sub-01/sub-01_sessions.tsv": "session_id\tage\nses-M012\t71.2\n"}
    assert dataset(T1.format("M000"), T1.format("M012"), files=table)[1].clinical["age"] == 71.2


def test_a_bad_table_of_a_subject_is_the_problem_of_that_subject_only(dataset) -> None:
    people = PEOPLE + "sub-02\tOslo\tCN\t60\tM\n"
    bad = {"sub-01/sub-01_sessions.tsv": "session_id\tage\nses-M000\t1\t2\t3\n"}
    scans = (T1.format("M000"), "sub-02/anat/sub-02_T1w.nii")
    one, other = dataset(*scans, files={"participants.tsv": people} | bad)
    assert "4 cells, wanted 2" in one.problems[0]
    assert other.problems == ()


def test_two_rows_of_one_subject_or_session_are_a_problem(dataset) -> None:
    twice = {"sub-01/sub-01_sessions.tsv": "session_id\tage\nses-M000\t60\nses-M000\t70\n"}
    files = {"participants.tsv": PEOPLE + "sub-01\tBergen\tAD\t80\tM\n"} | twice
    assert dataset(T1.format("M000"), files=files)[0].problems == (
        "sub-01 has several rows in participants.tsv, wanted one",
        "sub-01_sessions.tsv: ses-M000 has several rows, wanted one",
    )


def test_a_table_with_commas_is_refused(dataset) -> None:
    with pytest.raises(ManifestError, match=r"no column participant_id.*wanted tabs"):
        dataset(T1.format("M000"), files={"participants.tsv": PEOPLE.replace("\t", ",")})


def test_a_date_that_cannot_be_read_is_a_problem(dataset) -> None:
    (visit,) = dataset(T1.format("M000"), files=scans_tsv("M000", "10:20:30", "n/a"))
    assert visit.problems[0].startswith("date of sub-01_ses-M000_T1w.nii.gz '10:20:30', wanted a date")


def test_a_damaged_sidecar_is_a_problem(dataset) -> None:
    (visit,) = dataset(FDG.format("M000"), files={"pet.json": "{"})
    assert visit.problems[0].startswith("pet.json is no readable JSON")


@pytest.mark.parametrize(("tracer", "problems"), [("AV45", 1), ("[18F]FDG", 0), ("n/a (FDG)", 0)])
def test_a_sidecar_of_another_tracer_than_the_files_name_is_a_problem(dataset, tracer, problems) -> None:
    (visit,) = dataset(FDG.format("M000"), files={"pet.json": {"TracerName": tracer}})
    assert len(visit.problems) == problems
    assert all("its JSON says 'AV45'" in problem for problem in visit.problems)


def test_a_pet_that_is_not_taken_is_noted(dataset) -> None:
    other = FDG.format("M000").replace("18FFDG", "18FAV45")
    (visit,) = dataset(other, "sub-01/ses-M000/pet/sub-01_ses-M000_pet.nii")
    assert visit.notes == (
        "sub-01_ses-M000_pet.nii does not say its tracer; name it trc-18FFDG if it is FDG",
        "sub-01_ses-M000_trc-18FAV45_pet.nii.gz is a PET of 18FAV45, wanted FDG",
    )


@pytest.mark.parametrize("part", ["phase", "real", "imag"])
def test_a_phase_image_is_no_mri(dataset, part: str) -> None:
    assert dataset(T1.format("M000").replace("_T1w", f"_part-{part}_T1w"))[0].mri is None


@pytest.mark.parametrize(
    ("fdg", "tracers"),
    [
        (True, "18FFDG|fdg|[18F]FDG|F-18 FDG|18FDG|2-[18F]fluoro-2-deoxy-D-glucose|Fluorodeoxyglucose"),
        (False, "FDGal|18FFDGal|18F||FDOPA|18FFDOPA"),
    ],
)
def test_fdg_however_it_is_spelt(fdg: bool, tracers: str) -> None:
    assert [is_fdg(tracer) for tracer in tracers.split("|")] == [fdg] * len(tracers.split("|"))
