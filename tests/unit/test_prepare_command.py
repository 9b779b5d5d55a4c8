# SPDX-License-Identifier: Apache-2.0
"""`pasta prepare`: tables, pages and sites of scans that lie in MNI space already, so that it is quick."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from pasta_model.data.grid import template
from pasta_model.data.manifest import read_manifest
from pasta_model.data.metaroi import metaroi_map
from pasta_model.data.store import SiteStore
from pasta_model.data.volume import Volume, read_volume, write_volume
from pasta_model.prepare import folders
from pasta_model.prepare.settings import prepare_settings
from pasta_model.prepare.site import PrepareJob, prepare_site
from pasta_model.prepare.template import template_brain
from simulation.study.partition import by_vendor
from simulation.twins.cohort import CohortSettings, SiteSettings, build_cohort
from tests.support.commands import Outcome

COLUMNS = (b"AGE", b"PTGENDER", b"PTEDUCAT", b"MMSE", b"ADAS13", b"APOE4")
SITES = (SiteSettings(name="alder", subjects=4), SiteSettings(name="birch", subjects=3))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twins") / "cohort"
    build_cohort(CohortSettings(seed=3, sites=SITES), folder)
    return folder


@pytest.fixture
def table(cohort: Path, tmp_path: Path) -> Path:
    """A table of both sites with paths that a test may change."""
    return write(tmp_path / "scans.tsv", scans_of(cohort))


@pytest.fixture(scope="module")
def prepared_once(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    table = write(folder / "scans.tsv", scans_of(cohort))
    prepare_site(PrepareJob((table,), folder / "out", prepare_settings(spacing=3.0)))
    return folder / "out"


@pytest.fixture
def prepared(prepared_once: Path, out: Path) -> Path:
    """A folder as `pasta prepare` left it, for a test to change."""
    shutil.copytree(prepared_once, out)
    return out


def scans_of(cohort: Path) -> list[dict[str, str]]:
    return [
        row | {kind: str(cohort / site / row[kind]) for kind in ("mri", "pet")}
        for site in ("alder", "birch")
        for row in read(cohort / site / "participants.tsv")
    ]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def prepare(pasta: Callable[..., Outcome], out: Path) -> Callable[..., Outcome]:
    return lambda *words: pasta("prepare", *words, out, "--spacing", 3, "--workers", 1)


def outcomes(out: Path) -> dict[str, tuple[str, str]]:
    return {r["participant_id"]: (r["outcome"], r["reason"]) for r in read(out / "sessions.tsv")}


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.name.startswith(".partial")]


def test_a_table_becomes_sites_that_a_client_can_train_on(prepare, table, out):
    said = prepare(table)

    assert said.status == 0, said.err
    assert {p.name for p in (out / "sites").iterdir()} == {"alder", "birch"}
    stores = [SiteStore(out / "sites" / name) for name in ("alder", "birch")]
    assert [len(s.entries) for s in stores] == [4, 3]
    assert all(s.indices("train") and s.indices("test") for s in stores)
    assert (out / "qc" / "index.html").is_file()
    assert len(read(out / "qc.tsv")) == 7
    assert leftovers(out) == []


def test_suvr_and_brain_are_those_of_the_twins(prepared, cohort):
    out = prepared

    row = read(out / "participants.tsv")[0]
    made = read_volume(out / row["pet"])
    true = read_volume(next((cohort / "alder" / row["participant_id"]).rglob("*_pet.nii.gz")))
    brain = read_volume(out / row["mri"]).data > 0
    assert np.abs(made.data - true.data)[brain].max() < 0.02
    assert not made.data[~brain].any()


def test_what_is_there_is_kept_and_what_has_changed_is_made_again(prepare, table, prepared, tmp_path):
    out = prepared
    records = sorted(out.glob("sub-*/*/prepare.json"))
    before = {path: path.stat().st_ino for path in records}
    index = (out / "sites" / "birch" / "index.json").stat().st_ino
    rows = read(table)
    pet = read_volume(Path(rows[0]["pet"]))
    changed = tmp_path / "changed.nii.gz"
    write_volume(changed, Volume(pet.data * 1.5 + 0.01, pet.affine))
    write(table, [rows[0] | {"pet": str(changed)}, *rows[1:]])

    assert prepare(table).status == 0

    after = {path: path.stat().st_ino for path in records}
    again = [path.parent.parent.name for path in records if before[path] != after[path]]
    assert again == [rows[0]["participant_id"]]
    assert (out / "sites" / "birch" / "index.json").stat().st_ino == index  # with the client's state in it


def test_a_person_writes_exclude_and_the_session_stays_out(prepare, table, prepared):
    out = prepared
    rows = read(out / "qc.tsv")
    who = rows[0]["session"].split("_")[0]
    splits = (out / "splits.tsv").read_text()
    write(out / "qc.tsv", [rows[0] | {"exclude": "exclude", "comment": "moved"}, *rows[1:]])

    said = prepare(table)

    assert said.status == 0
    assert outcomes(out)[who] == ("left", "excluded in qc.tsv: moved")
    assert who not in {r["participant_id"] for r in read(out / "participants.tsv")}
    assert who not in {e.subject for e in SiteStore(out / "sites" / "alder").entries}
    assert read(out / "qc.tsv")[0]["comment"] == "moved"  # and is not lost
    assert (out / "splits.tsv").read_text() == splits  # nobody else moves


def test_another_word_than_exclude_is_refused(prepare, table, prepared):
    out = prepared
    rows = read(out / "qc.tsv")
    write(out / "qc.tsv", [rows[0] | {"exclude": "bad"}, *rows[1:]])

    said = prepare(table)

    assert said.status == 2
    assert "'exclude' or nothing" in said.err


def test_bad_sessions_are_named_together_and_the_rest_goes_on(prepare, table, out, tmp_path):
    rows = read(table)
    good = read_volume(Path(rows[0]["mri"]))
    whole = Path(rows[0]["mri"]).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    four = nib.Nifti1Image(np.stack([good.data] * 2, axis=-1), good.affine)
    nib.save(four, tmp_path / "four.nii.gz")
    holed = good.data.copy()
    holed[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(holed, good.affine), tmp_path / "nan.nii.gz")
    bad = ("cut", "four", "nan")
    rows = [r | {"mri": str(tmp_path / f"{b}.nii.gz")} for r, b in zip(rows, bad, strict=False)] + rows[3:]
    rows[3] = rows[3] | {"diagnosis": "Alzheimr"}
    rows[4] = rows[4] | {"pet": ""}
    rows.append(rows[5])  # a duplicate
    write(table, rows)

    said = prepare(table)

    assert said.status == 2
    for word in ("truncated", "4 dimensions", "NaN", "did you mean Dementia", "no FDG-PET", "found 2 times"):
        assert word in said.err, word
    assert "Traceback" not in said.err
    assert said.err.count("error:") == 1
    assert {o for o, _ in outcomes(out).values()} == {"taken", "refused"}
    assert len(read(out / "participants.tsv")) == 1
    assert not list(out.glob(f"{rows[0]['participant_id']}*"))
    assert leftovers(out) == []


def test_unpaired_subjects_can_be_allowed(prepare, table, out):
    rows = read(table)
    write(table, [rows[0] | {"pet": ""}, *rows[1:]])

    said = prepare(table, "--allow-unpaired")

    assert said.status == 0
    assert outcomes(out)[rows[0]["participant_id"]][0] == "left"


def test_two_names_of_one_rid_are_on_one_side(prepare, table, out):
    rows = read(table)
    write(
        table, [r | {"rid": str(n // 2) if r["site"] == "alder" else str(90 + n)} for n, r in enumerate(rows)]
    )

    said = prepare(table, "--test", 0.34)

    assert said.status == 2  # one RID, two names: the table must say who is who
    assert "one person, one name" in said.err


def test_given_splits_are_kept(prepare, table, out, tmp_path):
    names = [r["participant_id"] for r in read(table)]
    given = tmp_path / "given.tsv"
    given.write_text("participant_id\tsplit\n" + "".join(f"{n}\ttest\n" for n in names[:2]))

    assert prepare(table, "--splits", given).status == 0

    made = {r["participant_id"]: r["split"] for r in read(out / "splits.tsv")}
    assert [made[n] for n in names[:2]] == ["test", "test"]
    assert "train" in made.values()


def test_small_sites_are_pooled_for_a_simulation(prepare, table, out):
    assert prepare(table, "--smallest", 4).status == 0

    assert {p.name for p in (out / "sites").iterdir()} == {"alder", "pooled"}


def test_a_users_own_metaroi_is_what_the_site_trains_with(prepare, table, out, tmp_path):
    grid = template(3.0)
    own = np.zeros(grid.head.shape, np.float32)
    own[20:30, 20:30, 20:30] = 1.0
    write_volume(tmp_path / "own.nii.gz", Volume(own, grid.head.affine))

    assert prepare(table, "--metaroi", tmp_path / "own.nii.gz").status == 0

    found = SiteStore(out / "sites" / "alder").metaroi
    assert found.sum() == pytest.approx(1000, rel=0.01)
    assert not np.allclose(found, grid.to_network(metaroi_map(grid.head)))


def test_what_a_killed_run_left_is_removed(prepare, table, out):
    partial = out / "sub-A0001" / ".partial-x"
    partial.mkdir(parents=True)
    (partial / "half.nii.gz").write_bytes(b"half")

    assert prepare(table).status == 0

    assert leftovers(out) == []


def test_the_log_can_be_read_by_a_machine(prepared):
    lines = [json.loads(line) for line in (prepared / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 7
    for line in lines:
        assert {"time", "session", "steps", "settings", "versions", "inputs"} <= line.keys()
        assert line["versions"]["antspyx"]
        assert [s["step"] for s in line["steps"]][-1] == "SUVR"


def test_a_study_by_vendor_finds_the_scanner_beside_the_prepared_scans(cohort, prepared):
    raw = [s for site in ("alder", "birch") for s in read_manifest(cohort / site / "participants.tsv")]
    assert by_vendor(read_manifest(prepared / "participants.tsv")) == by_vendor(raw)
    assert len(set(by_vendor(raw).values())) == 2


def test_a_full_disk_is_a_message_and_nothing_half_written_stays(table, out, monkeypatch):
    from pasta_model.prepare.matching import match
    from pasta_model.prepare.settings import PrepareSettings
    from pasta_model.prepare.sources import read_source

    (pair, *_), _ = match(read_source([table]))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "write_json", full)
    record = folders.prepare_one(pair, out, PrepareSettings(spacing=3.0))

    assert "No space left" in record["error"]
    assert "free the disk" in record["error"]
    assert not any(path.is_file() for path in out.rglob("*"))


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--registration", "rigid"), "registration"),
        (("--reference", "thalamus"), "reference"),
        (("--valid", 0.6, "--test", 0.5), "split fractions"),
        (("--partition", "phase"), "phase"),
    ],
)
def test_settings_that_cannot_be_are_refused(prepare, table, out, words, wanted):
    said = prepare(table, *words)

    assert said.status == 2
    assert wanted in said.err
    assert not list(out.glob("sub-*"))  # known before any work is done
    assert "Traceback" not in said.err


def test_an_input_that_is_none_of_the_three_is_refused(pasta_refuses, tmp_path, out):
    (tmp_path / "empty").mkdir()
    assert "no folder sub-*" in pasta_refuses("prepare", tmp_path / "empty", out)
    assert "no such file" in pasta_refuses("prepare", tmp_path / "nowhere", out)


def test_published_hdf5_becomes_a_site(pasta, cohort, tmp_path, out):
    grid = template(1.5)
    rng = np.random.default_rng(0)
    brain = np.zeros(grid.head.shape, np.float32)
    brain[:] = template_brain(grid.head).t1
    for split, rid in (("train", 1), ("valid", 2), ("test", 3)):
        with h5py.File(tmp_path / f"pasta_{split}.h5", "w") as file:
            group = file.create_group(f"{rid:04d}_bl")
            group["MRI/T1/data"] = brain
            group["PET/FDG/data"] = brain * (1 + 0.02 * rng.standard_normal(brain.shape)).astype(np.float32)
            group["tabular"] = np.array([70.0, 1.0, 16.0, 29.0, np.nan, 0.0])
            group.attrs.update({"DX": "CN", "RID": rid, "VISCODE": "bl"})
            file["stats/tabular/columns"] = np.array(
                [b"AGE", b"PTGENDER", b"PTEDUCAT", b"MMSE", b"ADAS13", b"APOE4"]
            )

    files = [tmp_path / f"pasta_{split}.h5" for split in ("train", "valid", "test")]
    said = pasta("prepare", *files, out, "--site", "adni", "--workers", 2)

    assert said.status == 0, said.err
    entries = SiteStore(out / "sites" / "adni").entries
    assert {e.subject: e.split for e in entries} == {
        "sub-ADNI0001": "train", "sub-ADNI0002": "valid", "sub-ADNI0003": "test",
    }  # fmt: skip
    assert entries[0].clinical["adas13"] is None
    shutil.rmtree(out)


def test_a_registered_scan_with_a_flipped_axis_is_refused(prepare, table, out, tmp_path):
    rows = read(table)
    mri = read_volume(Path(rows[0]["mri"]))
    write_volume(tmp_path / "flipped.nii.gz", Volume(mri.data[:, ::-1, ::-1].copy(), mri.affine))
    write(table, [rows[0] | {"mri": str(tmp_path / "flipped.nii.gz")}, *rows[1:]])

    said = prepare(table)

    assert said.status == 2
    assert "does not lie on the MNI152 template" in said.err
    assert outcomes(out)[rows[0]["participant_id"]][0] == "refused"
