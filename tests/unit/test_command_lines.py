# SPDX-License-Identifier: Apache-2.0
"""The command lines, as they are typed: what works, and what a mistake is answered with."""

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from safetensors.torch import save_file

import client.cli
import pasta_model.cli
import server.cli
import simulation.cli
from pasta_model.checkpoint import Checkpoint, load_checkpoint, new_network, save_checkpoint
from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.data.grid import template
from pasta_model.evaluation.tables import read_scores
from simulation.baselines import train_alone

HEAD = template(3.0).head
MAINS = {
    "pasta": pasta_model.cli.main,
    "pasta-client": client.cli.main,
    "pasta-server": server.cli.main,
    "pasta-sim": simulation.cli.main,
}


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


@dataclass
class Hospital:
    """A folder with scans and their table; a test spoils one or the other."""

    folder: Path
    write_scan: Callable[..., Path]
    rows: list[dict[str, str]] = field(default_factory=list)

    def admit(self, subject: str, **changes: str) -> dict[str, str]:
        row = {
            "participant_id": subject,
            "session_id": "ses-1",
            "site": "alder",
            "diagnosis": "CN",
            "age": "70.5",
            "sex": "F",
            "education": "16",
            "mmse": "n/a",
            "mri": f"{subject}/T1w.nii.gz",
            "pet": f"{subject}/pet.nii",
        } | changes
        self.rows.append(row)
        for kind, gain in (("mri", 300.0), ("pet", 1.0)):
            if row[kind] != "n/a":
                self.write_scan(self.folder / row[kind], seed=len(self.rows), gain=gain)
        return row

    def scan(self, number: int, kind: str) -> Path:
        return self.folder / self.rows[number][kind]

    @property
    def manifest(self) -> Path:
        """The table, written as the rows are now."""
        path = self.folder / "participants.tsv"
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [columns, *([row.get(name, "") for name in columns] for row in self.rows)]
        path.write_text("".join("\t".join(line) + "\n" for line in lines))
        return path


@pytest.fixture
def hospital(tmp_path: Path, write_scan: Callable[..., Path]) -> Hospital:
    """Two subjects without fault."""
    made = Hospital(tmp_path / "hospital", write_scan)
    made.folder.mkdir()
    made.admit("sub-01")
    made.admit("sub-02", diagnosis="Dementia", sex="M")
    return made


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    path = tmp_path / "splits.tsv"
    path.write_text("participant_id\tsplit\nsub-01\ttrain\nsub-02\tvalid\n")
    return path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command line in this process, in a terminal wide enough for long paths."""
    monkeypatch.setenv("COLUMNS", "1000")

    def run(*words: str | Path) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        with pytest.raises(SystemExit) as stop:
            MAINS[str(words[0])]()
        streams = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), streams.out, streams.err)

    return run


@pytest.fixture
def model(tmp_path: Path, make_settings: Callable[..., Settings]) -> Path:
    """An untrained model that samples in one step."""
    settings = make_settings(sampling__steps=1, sampling__hop=15)
    columns = len(SCHEMES[settings.data.clinical].columns)
    standardisation = Standardisation((0.0,) * columns, (1.0,) * columns)
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, Checkpoint(new_network(settings).state_dict(), settings, standardisation, 7))
    return path


def everything(folder: Path) -> dict[str, bytes]:
    """All that lies in a folder, to see that nothing was written, changed or removed."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"a folder"
        for path in folder.rglob("*")
    }


@pytest.fixture
def refused(tmp_path: Path, call: Callable[..., Outcome]) -> Callable[..., str]:
    """Expect a command to be refused and to leave the disk as it was; return what it said, once."""

    def run(*words: str | Path) -> str:
        before = everything(tmp_path)
        outcome = call(*words)
        assert outcome.status == 2, outcome
        assert everything(tmp_path) == before
        assert outcome.err.startswith("error: "), outcome.err
        assert outcome.err.count("error: ") == 1
        assert "Traceback" not in outcome.err + outcome.out
        return outcome.err

    return run


# --- What works -----------------------------------------------------------------------------


def test_a_site_from_its_table_to_its_scores(
    hospital: Hospital, tmp_path: Path, call: Callable[..., Outcome], make_settings: Callable[..., Settings]
) -> None:
    for number in (3, 4, 5):
        hospital.admit(f"sub-0{number}")
    manifest, splits, store = hospital.manifest, tmp_path / "splits.tsv", tmp_path / "sites" / "alder"

    said = call("pasta", "validate", manifest)
    assert said == Outcome(0, f"{manifest}: 5 sessions of 5 subjects (4 CN, 1 Dementia), no problem\n", "")

    said = call("pasta", "split", manifest, "--output", splits, "--valid", 0.2, "--test", 0.2)
    assert said == Outcome(0, f"{splits}: 3 train, 1 valid, 1 test\n", "")

    said = call("pasta", "store", manifest, store, "--splits", splits, "--spacing", 3)
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[-1] == f"{store}: site alder, 5 sessions"

    said = call("pasta-client", "show", store, "--clinical", "demographics")
    assert (said.status, said.err) == (0, "")
    assert "site alder: 3 subjects train, 1 validate" in said.out
    assert re.search(r"age\W+3\.0\W+211\.5\W+14,910\.8\b", said.out)  # three people of 70.5 years

    settings = make_settings(sampling__steps=1, sampling__hop=15, training__local_steps=1)
    run = tmp_path / "run"
    train_alone(store, settings, run)
    said = call("pasta-server", "rounds", run)
    assert (said.status, said.err) == (0, "")
    first, second, last = (json.loads(line) for line in (run / "history.jsonl").read_text().splitlines())
    assert re.search(rf"0\W+1\W+{first['loss']['alder']:.4f}\W+{first['valid_mae']['alder']:.4f}", said.out)
    assert re.search(rf"2\W+1\W+-\W+{last['valid_mae']['alder']:.4f}", said.out)
    assert second["round"] == 1

    said = call("pasta", "info", "--model", run / "last.safetensors")
    assert (said.status, said.err) == (0, "")
    arm = sum(p.numel() for p in new_network(settings).pet_arm.parameters())
    assert re.search(rf"PET arm\W+{arm / 1e6:.3f} M", said.out)
    assert re.search(r"rounds trained\W+2\b", said.out)
    assert re.search(r"training\.learning-rate\W+0\.001\b", said.out)

    synthetic, evaluation = tmp_path / "synthetic", tmp_path / "evaluation"
    words = ("pasta", "synthesize", "--model", run / "last.safetensors", manifest, synthetic)
    said = call(*words)
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[-1] == f"{synthetic}: 5 synthetic PETs"
    made = sorted(synthetic.rglob("*.nii.gz"))
    times = [path.stat().st_mtime_ns for path in made]
    assert call(*words).status == 0
    assert [path.stat().st_mtime_ns for path in made] == times, "what is done is not done again"

    said = call("pasta", "evaluate", manifest, synthetic, "--output", evaluation, "--workers", 1)
    assert (said.status, said.err) == (0, "")
    rows = read_scores(evaluation / "scores.tsv")
    assert [row.subject for row in rows] == [f"sub-0{number}" for number in (1, 2, 3, 4, 5)]
    mean = sum(row.values["mae"] for row in rows) / 5
    assert re.search(rf"alder\s+5\s+synthetic\s+{mean:.4f}", said.out)


def test_synthetic_pets_lie_where_the_mri_lies_and_say_what_they_are(
    hospital: Hospital, tmp_path: Path, model: Path, call: Callable[..., Outcome]
) -> None:
    for row in hospital.rows:  # a session to synthesise may come without a PET
        row["pet"] = "n/a"
    assert call("pasta", "synthesize", "--model", model, hospital.manifest, tmp_path / "out").status == 0
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 2
    for number, row in enumerate(hospital.rows):
        folder = tmp_path / "out" / row["participant_id"] / "ses-1" / "pet"
        (path,) = folder.glob("*desc-synthetic_pet.nii.gz")
        pet, mri = nib.load(path), nib.load(hospital.scan(number, "mri"))
        np.testing.assert_array_equal(pet.affine, mri.affine)
        assert pet.shape == mri.shape
        suvr = np.asarray(pet.dataobj)
        assert np.isfinite(suvr).all()
        assert 0 == suvr.min() < suvr.max() < 20
        sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert sidecar["Synthetic"] is True
        assert sidecar["Units"] == "SUVR"
        assert sidecar["Sampling"]["steps"] == 1


@pytest.mark.parametrize("name", sorted(MAINS))
def test_without_words_a_command_line_shows_what_there_is(name: str, call: Callable[..., Outcome]) -> None:
    said = call(name)
    assert said.status in (0, 2)
    assert "Usage" in said.out + said.err
    assert "Commands" in said.out + said.err


# --- Tables that cannot be used -------------------------------------------------------------


def without_file(hospital: Hospital) -> str:
    hospital.scan(1, "mri").unlink()
    return rf"line 3 \(sub-02\): MRI {hospital.scan(1, 'mri')} does not exist; check the path"


def without_pet(hospital: Hospital) -> str:
    hospital.rows[0]["pet"] = "n/a"
    return r"line 2 \(sub-01\): no PET; give its path or leave the session out"


def with_unknown_column(hospital: Hospital) -> str:
    hospital.rows[0]["diagnose"] = "CN"
    return r"column 'diagnose' is unknown; did you mean 'diagnosis'\?"


def with_impossible_values(hospital: Hospital) -> str:
    hospital.rows[0] |= {"age": "7O", "sex": "2", "diagnosis": "AD"}
    return (
        r"(?s)3 problem.*diagnosis 'AD', wanted one of CN, MCI, Dementia.*age '7O', wanted a number"
        r".*sex '2', wanted F or M"
    )


def with_a_session_twice(hospital: Hospital) -> str:
    hospital.rows.append(dict(hospital.rows[0]))
    return r"sub-01_ses-1: found in 2 rows, wanted one row a session"


TABLES = (
    without_file,
    without_pet,
    with_unknown_column,
    with_impossible_values,
    with_a_session_twice,
)


CASES = [
    (command, spoil)
    for command in ("validate", "split", "store", "evaluate", "synthesize")
    for spoil in TABLES
    if (command, spoil) != ("synthesize", without_pet)  # a session to synthesise needs no PET
]


@pytest.mark.parametrize(("command", "spoil"), CASES, ids=lambda part: getattr(part, "__name__", part))
def test_table_that_cannot_be_used_is_refused_by_every_command(
    command: str,
    spoil: Callable[[Hospital], str],
    hospital: Hospital,
    splits: Path,
    model: Path,
    tmp_path: Path,
    refused: Callable[..., str],
) -> None:
    wanted = spoil(hospital)
    manifest, output = hospital.manifest, tmp_path / "output"
    words: dict[str, tuple[str | Path, ...]] = {
        "validate": (manifest,),
        "split": (manifest, "--output", output),
        "store": (manifest, output, "--splits", splits, "--spacing", "3"),
        "evaluate": (manifest, tmp_path, "--output", output),
        "synthesize": ("--model", model, manifest, output),
    }
    said = refused("pasta", command, *words[command])
    assert str(manifest) in said
    assert re.search(wanted, said), said


def test_table_with_nothing_below_its_header_is_refused(
    hospital: Hospital, splits: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    manifest = hospital.manifest
    manifest.write_text(manifest.read_text().splitlines()[0] + "\n")
    for words in (["validate", manifest], ["store", manifest, tmp_path / "store", "--splits", splits]):
        said = refused("pasta", *words)
        assert f"{manifest}: the manifest cannot be used" in said
        assert "found no subject; wanted at least one row below the header" in said


def test_table_that_is_not_there_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    said = refused("pasta", "validate", tmp_path / "nothing.tsv")
    assert f"{tmp_path / 'nothing.tsv'}: cannot be read (No such file or directory); check the path" in said


def test_all_bad_rows_of_a_table_are_told_at_once(hospital: Hospital, refused: Callable[..., str]) -> None:
    for number in range(3, 40):
        hospital.rows.append(dict(hospital.rows[0], participant_id=f"sub-{number}", mri="gone.nii"))
    hospital.rows.append(dict(hospital.rows[1], participant_id="sub-40", pet="", age="200"))
    said = refused("pasta", "validate", hospital.manifest)
    assert "39 problem(s)" in said
    assert said.count("gone.nii does not exist") == 37
    assert "line 41 (sub-40): no PET" in said
    assert "line 41 (sub-40): age '200'" in said


def test_subject_in_two_splits_of_the_manifest_is_refused(
    hospital: Hospital, refused: Callable[..., str]
) -> None:
    hospital.rows[0]["split"], hospital.rows[1]["split"] = "train", "test"
    hospital.rows.append(dict(hospital.rows[0], session_id="ses-2", split="test"))
    assert "sub-01: in splits test, train; wanted one" in refused("pasta", "validate", hospital.manifest)


def test_subject_in_two_splits_of_the_table_of_splits_is_refused(
    hospital: Hospital, splits: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    splits.write_text(splits.read_text() + "sub-01\ttest\nsub-02\tlater\n")
    said = refused("pasta", "store", hospital.manifest, tmp_path / "store", "--splits", splits)
    assert f"{splits}: the splits cannot be used: 3 problem(s)" in said
    assert "sub-01: in two splits, train and test; choose one" in said
    assert "sub-02: split 'later', wanted one of train, valid, test" in said


def test_subject_without_a_split_is_refused(
    hospital: Hospital, splits: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    hospital.admit("sub-03")
    hospital.admit("sub-04")
    said = refused("pasta", "store", hospital.manifest, tmp_path / "store", "--splits", splits)
    assert "2 problem(s)" in said
    assert "sub-03: has no split" in said
    assert "sub-04: has no split" in said


def test_subject_at_two_sites_is_refused(
    hospital: Hospital, tmp_path: Path, refused: Callable[..., str]
) -> None:
    other = Hospital(tmp_path / "other", hospital.write_scan)
    other.folder.mkdir()
    other.admit("sub-02", site="birch")
    said = refused("pasta", "split", hospital.manifest, other.manifest, "--output", tmp_path / "new.tsv")
    assert "sub-02: at sites alder, birch; wanted one" in said


@pytest.mark.parametrize("column", ["participant_id", "age"])
def test_blanks_around_the_name_of_a_column_do_not_matter(
    column: str, hospital: Hospital, splits: Path, tmp_path: Path, call: Callable[..., Outcome]
) -> None:
    manifest = hospital.manifest
    manifest.write_text(manifest.read_text().replace(column, f" {column} ", 1))
    store = tmp_path / "store"
    assert call("pasta", "store", manifest, store, "--splits", splits, "--spacing", "3").status == 0
    entries = json.loads((store / "index.json").read_text())["entries"]
    assert [entry["clinical"]["age"] for entry in entries] == [70.5, 70.5]


def test_leak_names_the_table_it_was_found_in(hospital: Hospital, refused: Callable[..., str]) -> None:
    hospital.rows.append(dict(hospital.rows[0], session_id="ses-2", split="test"))
    hospital.rows[0]["split"] = "train"
    assert str(hospital.folder / "participants.tsv") in refused("pasta", "validate", hospital.manifest)


# --- Scans that cannot be used --------------------------------------------------------------


def cut(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


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


# --- Outputs that must not be written -------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with something that is not ours."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    return folder


def test_store_never_replaces_a_folder_of_other_files(
    hospital: Hospital, splits: Path, home: Path, refused: Callable[..., str]
) -> None:
    words = ("store", hospital.manifest, home, "--splits", splits, "--spacing", "3")
    assert str(home) in refused("pasta", *words)


def test_store_made_again_replaces_the_older_one(
    hospital: Hospital, splits: Path, tmp_path: Path, call: Callable[..., Outcome]
) -> None:
    store = tmp_path / "store"
    words = ("pasta", "store", hospital.manifest, store, "--splits", splits, "--spacing", "3")
    assert call(*words).status == 0
    before = everything(store)
    hospital.rows[0]["age"] = "71"
    words = ("pasta", "store", hospital.manifest, store, "--splits", splits, "--spacing", "3")
    assert call(*words).status == 0
    after = everything(store)
    assert sorted(after) == sorted(before)
    assert [name for name in after if after[name] != before[name]] == ["index.json"]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("pasta", "store")),
        pytest.param(("pasta", "synthesize")),
        pytest.param(("pasta-sim", "demo")),
        ("pasta-sim", "cohort"),
    ],
    ids=lambda words: words[1],
)
def test_file_is_no_output_folder(
    words: tuple[str, str],
    hospital: Hospital,
    splits: Path,
    model: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pasta_model.console.log_to_console", lambda *, verbose: None)
    file = tmp_path / "file"
    file.write_text("something")
    arguments: dict[str, tuple[str | Path, ...]] = {
        "store": (hospital.manifest, file, "--splits", splits, "--spacing", "3"),
        "synthesize": ("--model", model, hospital.manifest, file),
        "demo": ("--output", file),
        "cohort": (file,),
    }
    assert str(file) in refused(*words, *arguments[words[1]])


def test_names_in_a_table_never_lead_out_of_the_output_folder(
    hospital: Hospital, model: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    hospital.rows[0]["participant_id"] = "../../sub-01"
    refused("pasta", "synthesize", "--model", model, hospital.manifest, tmp_path / "deep" / "out")


def test_pet_that_is_not_finite_is_never_written(
    hospital: Hospital, model: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    held = load_checkpoint(model)
    state = {name: value * np.nan for name, value in held.state.items()}
    save_checkpoint(model, Checkpoint(state, held.settings, held.standardisation, 7))
    refused("pasta", "synthesize", "--model", model, hospital.manifest, tmp_path / "out")


def test_brackets_in_a_path_are_shown_as_they_are(
    hospital: Hospital, tmp_path: Path, call: Callable[..., Outcome]
) -> None:
    output = tmp_path / "[data]" / "splits.tsv"
    assert call("pasta", "split", hospital.manifest, "--output", output).out.startswith(f"{output}: ")


# --- Models, stores, runs and settings that cannot be used ----------------------------------


def foreign(path: Path, **metadata: str) -> None:
    ours = {"format": "pasta-dual-arm-1"} if metadata else {}
    save_file(load_checkpoint(path).state, path, metadata=ours | metadata)


MODELS = {
    "missing": (Path.unlink, "no such file; train first, or check the path"),
    "empty": (lambda path: path.write_bytes(b""), "not a readable safetensors file"),
    "truncated": (cut, "not a readable safetensors file"),
    "text": (lambda path: path.write_text("weights"), "not a readable safetensors file"),
    "of others": (foreign, "format None, wanted 'pasta-dual-arm-1'"),
    "damaged metadata": (lambda path: foreign(path, about="{"), ""),
}


@pytest.mark.parametrize("fault", MODELS)
def test_model_that_cannot_be_used_is_refused(
    fault: str, model: Path, hospital: Hospital, tmp_path: Path, refused: Callable[..., str]
) -> None:
    spoil, wanted = MODELS[fault]
    spoil(model)
    for words in (
        ("info", "--model", model),
        ("synthesize", "--model", model, hospital.manifest, tmp_path / "out"),
    ):
        assert f"{model}: {wanted}" in refused("pasta", *words)


def test_weights_of_another_size_are_refused(
    model: Path,
    hospital: Hospital,
    tmp_path: Path,
    make_settings: Callable[..., Settings],
    refused: Callable[..., str],
) -> None:
    held = load_checkpoint(model)
    save_checkpoint(
        model, Checkpoint(held.state, make_settings(network__size="small"), held.standardisation, 7)
    )
    said = refused("pasta", "synthesize", "--model", model, hospital.manifest, tmp_path / "out")
    assert "the weights do not fit the network of PASTA small" in said


def test_unknown_size_is_refused(refused: Callable[..., str]) -> None:
    said = refused("pasta", "info", "--size", "huge")
    assert "network.size: found 'huge', wanted 'tiny', 'small' or 'base'" in said


@pytest.mark.parametrize("content", [None, "{", '{"format": 0}'], ids=["missing", "damaged", "older"])
def test_store_that_cannot_be_used_is_refused(
    content: str | None, tmp_path: Path, refused: Callable[..., str]
) -> None:
    if content is not None:
        (tmp_path / "index.json").write_text(content)
    said = refused("pasta-client", "show", tmp_path)
    assert re.search(rf"{tmp_path}: .*(prepare the site again|make one with 'pasta store')", said)


def test_folder_that_is_no_run_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    said = refused("pasta-server", "rounds", tmp_path)
    assert f"{tmp_path}: no history.jsonl here; give the run's output folder" in said


def test_fractions_that_leave_nothing_to_train_on_are_refused(
    hospital: Hospital, tmp_path: Path, refused: Callable[..., str]
) -> None:
    words = ("split", hospital.manifest, "--output", tmp_path / "new.tsv", "--valid", 0.5, "--test", 0.5)
    assert "leave nothing to train on" in refused("pasta", *words)


@pytest.mark.parametrize("command", ["demo", "cohort"])
def test_simulation_refuses_a_folder_of_other_files(
    command: str, home: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pasta_model.console.log_to_console", lambda *, verbose: None)
    option = {"demo": ["--output"], "cohort": []}[command]
    said = refused("pasta-sim", command, *option, home)
    assert re.search(rf"{home}.*choose (an empty or new folder|another directory)", said)


TYPOS = """
[training]
learning-rat = 0.1
batch-size = "four"

[federation]
rounds = 0
"""


@pytest.fixture
def typos(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "settings.toml"
    path.write_text(TYPOS)
    yield path
    assert path.read_text() == TYPOS


# --- The same in a process of its own -------------------------------------------------------


def start(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / str(words[0])), *map(str, words[1:])]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_typos_in_the_settings_of_the_demo_are_told_at_once(typos: Path, tmp_path: Path) -> None:
    said = start("pasta-sim", "demo", "--output", tmp_path / "demo", "--config", typos)
    assert said.returncode == 2, said
    assert said.stdout == ""
    assert said.stderr.splitlines() == [
        f"error: {typos}: the settings cannot be used: 3 problem(s)",
        "  - training.batch-size: found 'four', wanted a valid integer",
        "  - training.learning-rat: no such setting; did you mean 'training.learning-rate'?",
        "  - federation.rounds: found 0, wanted greater than 0",
    ]
    assert [path.name for path in tmp_path.iterdir()] == [typos.name]


def test_mistake_ends_a_process_with_status_2_and_one_line(tmp_path: Path) -> None:
    path = tmp_path / "nothing.tsv"
    said = start("pasta", "validate", path)
    assert said.returncode == 2
    assert said.stdout == ""
    wanted = f"error: {path}: cannot be read (No such file or directory); check the path\n"
    assert said.stderr == wanted
