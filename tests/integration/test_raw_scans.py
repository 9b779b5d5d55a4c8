# SPDX-License-Identifier: Apache-2.0
"""Raw scans through the whole of it: killed at work, resumed, compared with the truth, and back again."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.prepare import CENTRES, through
from pasta_model.checkpoint import Checkpoint, new_network, save_checkpoint
from pasta_model.config import settings_from_flat
from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.data.volume import read_volume
from pasta_model.prepare.scans import Scan
from pasta_model.prepare.session import prepare_scans
from pasta_model.prepare.settings import PrepareSettings
from pasta_model.prepare.transforms import AFFINE, RIGID, matrix_of
from pasta_model.workers import process_pool
from simulation.twins.cohort import SiteSettings
from simulation.twins.pose import apply, turned
from simulation.twins.raw import RawCohortSettings, RawTruth, read_truth, write_raw_dataset

pytestmark = [pytest.mark.slow, pytest.mark.integration]

# A process started in the background ignores Ctrl-C, and its children with it: not so this one.
START = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
PASTA = [sys.executable, "-c", f"{START}; from pasta_model.cli import main; main()"]
SMALLEST = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"
COLIN = Path(os.environ.get("PASTA_REAL_T1", "/usr/share/mricron/templates/ch2.nii.gz"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = SiteSettings(name="alder", subjects=2)
    return write_raw_dataset(
        tmp_path_factory.mktemp("raw") / "bids", RawCohortSettings(seed=11, sites=(site,))
    )


@pytest.fixture(scope="module")
def prepared(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pasta prepare` leaves after it was killed in the middle of its work and started again."""
    out = tmp_path_factory.mktemp("prepared") / "out"
    words = [*PASTA, "prepare", str(raw), str(out), "--workers", "2", "--spacing", "3"]
    first = subprocess.Popen(words, start_new_session=True)
    end = time.monotonic() + 300
    while not list(out.glob("sub-*/.partial-*/xfm/*.txt")) and time.monotonic() < end:
        time.sleep(0.2)  # until transforms lie in a folder that is not finished
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert list(out.glob("sub-*/.partial-*")), "killed before it had begun: the test shows nothing"
    assert not list(out.glob("sub-*/ses-*")), "a session is whole or absent"

    subprocess.run(words, check=True)
    assert not list(out.rglob(".partial-*"))
    return out


def test_ctrl_c_stops_at_once_and_says_how_to_go_on(raw, tmp_path):
    out = tmp_path / "out"
    words = [*PASTA, "prepare", str(raw), str(out), "--workers", "2", "--spacing", "3"]
    run = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 300
    while not list(out.glob("sub-*/.partial-*/xfm")) and time.monotonic() < end:
        time.sleep(0.2)

    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    _, said = run.communicate(timeout=60)

    assert run.returncode == 130
    assert "the same command goes on from here" in said
    assert "Traceback" not in said
    assert not list(out.glob("sub-*/ses-*"))


def truths(raw: Path) -> list[RawTruth]:
    return [read_truth(path) for path in sorted((raw / "truth").glob("*.json"))]


def record(prepared: Path, truth: RawTruth) -> tuple[Path, dict]:
    folder = prepared / truth.subject / truth.session
    return folder, json.loads((folder / "prepare.json").read_text())


def test_metaroi_suvr_is_within_three_percent_of_the_truth(raw, prepared):
    errors = []
    for truth in truths(raw):
        _, found = record(prepared, truth)
        mean, true = (np.mean(list(regions.values())) for regions in (found["regions"], truth.regions))
        errors.append(abs(mean / true - 1))
        assert found["uptake"] == pytest.approx(truth.bq_per_suvr, rel=0.05)
    assert np.median(errors) < 0.03


def test_the_pet_lies_on_its_mri_to_a_millimetre(raw, prepared):
    for truth in truths(raw):
        folder, _ = record(prepared, truth)
        places = np.array(list(truth.landmarks.values()))
        found = apply(matrix_of(folder / "xfm" / RIGID), apply(truth.head_to_mri, places))
        assert np.linalg.norm(found - apply(truth.head_to_pet, places), axis=1).max() < 1.0


def test_structures_come_to_lie_on_the_atlas(raw, prepared):
    errors = []
    for truth in truths(raw):
        folder, _ = record(prepared, truth)
        there = apply(truth.head_to_mri, np.array(list(truth.landmarks.values())))
        errors.append(np.linalg.norm(through(folder / "xfm", CENTRES) - there, axis=1))
    assert np.median(errors) < 2.0


def test_the_mask_is_the_brain(raw, prepared):
    for truth in truths(raw):
        folder, found = record(prepared, truth)
        mask = read_volume(next((folder / "anat").glob("*_mask.nii.gz"))).data > 0.5
        twin = read_volume(raw / "truth" / f"{truth.subject}_{truth.session}_mri.nii.gz").data > 0
        assert mask.sum() * 27 == pytest.approx(
            twin.sum() * 1.5**3 / found["figures"]["head_scale"] ** 3, rel=0.12
        )
        assert found["figures"]["pet_overlap"] > 0.95


def test_a_page_a_subject_and_the_prepared_site_are_there(prepared):
    assert len(list((prepared / "qc").glob("*.html"))) == 3
    with (prepared / "sessions.tsv").open() as file:
        assert [row["outcome"] for row in csv.DictReader(file, delimiter="\t")] == ["taken", "taken"]
    assert (prepared / "sites" / "alder" / "index.json").is_file()


def test_a_pet_of_another_head_is_reported_and_not_trained_on(raw, tmp_path):
    scans = {kind: sorted(raw.rglob(f"sub-*_{kind}.nii.gz")) for kind in ("T1w", "pet")}
    mri, pet = scans["T1w"][0], tmp_path / "pet.nii.gz"
    other = nib.load(scans["pet"][1])
    longer = other.affine.copy()
    longer[:3, 1] *= 1.06  # of another person, whose head is longer
    nib.Nifti1Image(np.asarray(other.dataobj), longer).to_filename(pet)
    table = tmp_path / "table.csv"
    table.write_text(f"RID,VISCODE,SITE,DX,MRI,PET\n1,bl,3,CN,{mri},{pet}\n")

    said = subprocess.run(
        [*PASTA, "prepare", str(table), str(tmp_path / "out"), "--workers", "1", "--spacing", "3"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert said.returncode == 2, said.stdout
    assert "does not fit the MRI" in said.stderr
    assert "Traceback" not in said.stderr
    assert not (tmp_path / "out" / "sites").exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of 3 mm: what it makes is noise, but where it lies can be checked."""
    settings = settings_from_flat(
        {"network.shape": SMALLEST, "sampling.steps": 1, "sampling.hop": 4, "data.spacing": 3.0}
    )
    state = new_network(settings).state_dict()
    columns = len(SCHEMES[settings.data.clinical].columns)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_checkpoint(path, Checkpoint(state, settings, Standardisation((0.0,) * columns, (1.0,) * columns), 1))
    return path


def test_a_synthetic_pet_comes_back_into_the_patients_space(raw, prepared, model, tmp_path):
    mri = sorted(raw.rglob("sub-*_T1w.nii.gz"))[1]
    name = mri.name.removesuffix("_T1w.nii.gz")
    words = [*PASTA, "synthesize", "--model", str(model), "--mri", str(mri), str(tmp_path / "out")]

    subprocess.run([*words, "--clinical", "age=71"], check=True)

    native = tmp_path / "out" / f"{name}_space-T1w_trc-18FFDG_desc-synthetic_pet.nii.gz"
    image, scan = nib.load(native), nib.load(mri)
    assert image.shape == scan.shape
    assert np.allclose(image.affine, scan.affine, atol=1e-4)
    assert image.header.get_sform(coded=True)[1] == 1  # scanner
    assert b"SYNTHETIC" in bytes(image.header["descrip"])
    about = json.loads(native.with_name(native.name.replace(".nii.gz", ".json")).read_text())
    assert about["Synthetic"] is True
    assert "SYNTHETIC" in about["Description"]
    whole = json.loads(
        native.with_name(native.name.replace("T1w_trc", "MNI152_trc").replace(".nii.gz", ".json")).read_text()
    )
    assert whole["Preparation"]["registration"] == "affine"
    assert native.name in whole["Outputs"]
    assert len(list((tmp_path / "out").glob("*Spread*.nii.gz"))) == 2  # uncertainty, in both spaces
    with next((tmp_path / "out").glob("*_metaroi.tsv")).open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 6
    assert float(rows[0]["spread"]) >= 0


@pytest.mark.skipif(not COLIN.is_file(), reason="no real T1 here: make real-scan fetches one")
def test_a_real_head_comes_out_alike_in_any_pose(tmp_path):
    poses = [np.eye(4), np.eye(4)]
    poses[1][:3, :3] = np.asarray(turned((9, -7, 10)))[:3, :3]
    poses[1][:3, 3] = (0, 20, -15)
    folders = [tmp_path / "as-it-is", tmp_path / "turned"]
    with process_pool(2) as pool:
        figures = list(pool.map(prepare_real, poses, folders))

    for figure in figures:
        assert figure["template_likeness"] > 0.8
        assert figure["mask_overlap"] > 0.93
    there = [
        apply(np.linalg.inv(p) @ matrix_of(f / AFFINE), CENTRES) for p, f in zip(poses, folders, strict=True)
    ]
    assert np.linalg.norm(there[0] - there[1], axis=1).max() < 2.0


def prepare_real(pose: np.ndarray, folder: Path) -> dict[str, float]:
    folder.mkdir()
    head = read_volume(COLIN)
    moved = Scan(replace(head, affine=pose @ head.affine))
    return prepare_scans(moved, None, folder, settings=PrepareSettings(spacing=3.0)).figures
