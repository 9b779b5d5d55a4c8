# SPDX-License-Identifier: Apache-2.0
"""`pasta familiarity build`, `check`, and `pasta synthesize --familiarity`: from scans to flags."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pasta_model.data.grid import template
from pasta_model.data.volume import read_volume
from pasta_model.familiarity.features import COUNT, FEATURES, NAMES, features_of
from pasta_model.familiarity.model import Familiarity, load_familiarity, save_familiarity
from tests.support.commands import Outcome

HEAD = template(3.0).head
HEADER = "participant_id\tsession_id\tsite\tdiagnosis\tmri\tpet\tsplit\n"


@pytest.fixture
def reference(mri: Path) -> Path:
    """A federation whose persons are all about like the one of `mri`."""
    spread = np.array([10 * feature.least for feature in FEATURES])
    known = Familiarity(NAMES, features_of(read_volume(mri)), np.diag(spread**2), 100, 3.0)
    path = mri.with_name("familiarity.safetensors")
    save_familiarity(path, known)
    return path


@pytest.fixture
def manifest(mri: Path, write_scan: Callable[..., Path]) -> Path:
    """The usual person, and one whose head is cut off."""
    scan = read_volume(mri).data
    cut = np.where(HEAD.coordinates()[..., 2] > 20, 0.0, scan)
    other = write_scan(mri.with_name("sub-02_T1w.nii"), data=cut)
    path = mri.with_name("participants.tsv")
    rows = [f"sub-0{n}\tses-1\tA\tCN\t{p.name}\tn/a\tn/a\n" for n, p in ((1, mri), (2, other))]
    path.write_text(HEADER.replace("\tsplit", "\tage") + "".join(rows))
    return path


def sidecars(folder: Path) -> list[dict]:
    return [json.loads(p.read_text()) for p in sorted(folder.rglob("*desc-synthetic_pet.json"))]


@pytest.fixture
def many(tmp_path: Path, write_scan: Callable[..., Path]) -> Callable[[int], Path]:
    """Write a manifest of so many persons who train, on six scans, and two who validate."""

    def make(count: int) -> Path:
        scans = [write_scan(tmp_path / f"scan{n}.nii", seed=n, gain=100.0 + n) for n in range(6)]
        path, rows = tmp_path / "many.tsv", []
        for number in range(count + 2):
            link = tmp_path / f"sub-{number:03d}_T1w.nii"
            link.hardlink_to(scans[number % 6])
            split = "train" if number < count else "valid"
            rows.append(f"sub-{number:03d}\tses-1\tA\tCN\t{link.name}\tn/a\t{split}\n")
        path.write_text(HEADER + "".join(rows))
        return path

    return make


@pytest.mark.slow
def test_build_keeps_a_mean_and_says_its_false_alarms(pasta, many, tmp_path: Path) -> None:
    out = tmp_path / "f.safetensors"
    said = pasta("familiarity", "build", many(60), "--output", out)
    assert (said.status, said.err) == (0, "")
    assert f"{out}: 60 persons, {COUNT} features" in said.out
    assert "false alarms: 0 of 2 validation persons are flagged; 0.5% are meant to be" in said.out
    known = load_familiarity(out)
    assert (known.persons, known.spacing) == (60, 3.0)
    table = np.array([features_of(read_volume(tmp_path / f"sub-{n:03d}_T1w.nii")) for n in range(6)])
    np.testing.assert_allclose(known.mean, table.mean(axis=0))


def test_build_reads_prepared_sites_and_refuses_few(pasta_refuses, make_store, tmp_path: Path) -> None:
    sites = [make_store(site).path for site in "AB"]
    said = pasta_refuses("familiarity", "build", *sites, "--output", tmp_path / "f.safetensors")
    assert f"found 6 persons, wanted at least {3 * COUNT}" in said


def test_check_says_who_is_unlike_and_why(pasta, manifest: Path, reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "familiarity.tsv"
    said = pasta("familiarity", "check", manifest, "--reference", reference, "--output", out)
    assert (said.status, said.err) == (0, "")
    assert "1 of 2 MRIs are unlike those of 100 training persons" in said.out
    with out.open() as file:
        usual, odd = csv.DictReader(file, delimiter="\t")
    assert (usual["participant_id"], usual["unlike"], usual["reasons"]) == ("sub-01", "no", "n/a")
    assert float(usual["distance"]) == 0
    assert odd["unlike"] == "yes"
    assert float(odd["percentile"]) > 99.5
    assert "sd above the training federation" in odd["reasons"]
    assert odd["reasons"] in said.out


def test_check_takes_a_lone_mri(pasta, mri: Path, reference: Path, tmp_path: Path) -> None:
    said = pasta("familiarity", "check", mri, "--reference", reference, "--output", tmp_path / "f.tsv")
    assert said.status == 0
    assert "0 of 1 MRIs are unlike" in said.out


def test_bad_input_is_one_message(pasta_refuses, mri: Path, reference: Path, tmp_path: Path) -> None:
    def check(*words: object) -> str:
        return pasta_refuses("familiarity", "check", *words, "--output", tmp_path / "f.tsv")

    assert "make one with 'pasta familiarity build'" in check(mri, "--reference", tmp_path / "none")
    assert "no such file" in check(tmp_path / "none.nii", "--reference", reference)
    assert "prepared site (a folder) or a manifest" in pasta_refuses("familiarity", "build", mri)
    assert "no prepared site" in pasta_refuses("familiarity", "build", tmp_path)


# --- At synthesis ---------------------------------------------------------------------------


@pytest.fixture
def synthesize(pasta: Callable[..., Outcome], model: Path) -> Callable[..., Outcome]:
    def run(*words: object) -> Outcome:
        said = pasta("synthesize", "--model", model, "--preview", *words)
        assert (said.status, said.err) == (0, "")
        return said

    return run


def test_sidecars_tell_of_unlike_mris(synthesize, manifest: Path, reference: Path, out: Path) -> None:
    said = synthesize(manifest, out, "--familiarity", reference)
    assert "1 of 2 MRIs are unlike the training federation's" in said.out
    assert "sub-02_ses-1_space-MNI152" in said.out
    usual, odd = (about["Familiarity"] for about in sidecars(out))
    assert usual == {"distance": 0.0, "percentile": 0.0, "unlike": False, "reasons": []}
    assert odd["unlike"] is True
    assert odd["percentile"] > 99.5
    assert odd["reasons"]


def test_what_is_flagged_is_kept_and_another_reference_is_asked_again(
    synthesize, manifest: Path, reference: Path, out: Path
) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}

    synthesize(manifest, out, "--familiarity", reference)
    first = times()
    assert "1 of 2 MRIs" in synthesize(manifest, out, "--familiarity", reference).out
    assert times() == first
    synthesize(manifest, out)
    assert times() == first, "a sidecar may tell more than was asked for"
    known = load_familiarity(reference)
    save_familiarity(reference, Familiarity(NAMES, known.mean + 1e4, known.covariance, 100, 3.0))
    assert "2 of 2 MRIs" in synthesize(manifest, out, "--familiarity", reference).out
    assert all(about["Familiarity"]["unlike"] for about in sidecars(out))


def test_without_a_reference_nothing_is_said(synthesize, manifest: Path, out: Path) -> None:
    assert "unlike" not in synthesize(manifest, out).out
    assert all("Familiarity" not in about for about in sidecars(out))


def test_a_reference_that_is_none_is_refused_first(pasta_refuses, model: Path, mri: Path, out: Path) -> None:
    said = pasta_refuses("synthesize", "--model", model, mri, out, "--familiarity", mri)
    assert "no reference of familiarity" in said
