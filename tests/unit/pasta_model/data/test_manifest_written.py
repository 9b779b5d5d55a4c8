# SPDX-License-Identifier: Apache-2.0
"""A written manifest reads as the same sessions."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.data.manifest import (
    CLINICAL,
    DIAGNOSES,
    REQUIRED,
    SPLITS,
    Session,
    read_manifest,
    write_manifest,
)

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}", fullmatch=True).filter(lambda name: name != "n/a")


@st.composite
def values(draw: st.DrawFn) -> dict[str, float | None]:
    found = {name: draw(st.none() | st.floats(low, high)) for name, (low, high) in CLINICAL.items()}
    return found | {"sex": draw(st.sampled_from([None, 0.0, 1.0]))}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "scans").mkdir()
    for name in ("m.nii.gz", "p.nii.gz", 'a "quoted", name.nii'):
        (folder / "scans" / name).touch()
    return folder / "scans"


@given(
    st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=6, unique_by="_".join),
    st.sampled_from(DIAGNOSES),
    values(),
    st.sampled_from([None, *SPLITS]),
    st.sampled_from(["", "0012"]),
    st.sampled_from(["", "ADNI2"]),
    st.sampled_from(["participants.tsv", "table.csv", "deep/er/participants.tsv"]),
)
def test_it_comes_back(scans: Path, names, diagnosis, clinical, split, rid, phase, table) -> None:
    pair = scans / "m.nii.gz", scans / 'a "quoted", name.nii'
    sessions = [Session(s, v, "A", diagnosis, *pair, clinical, split, rid, phase) for s, v in names]
    path = scans.parent / "tables" / table
    write_manifest(path, sessions)
    found = [replace(s, mri=s.mri.resolve(), pet=s.pet.resolve()) for s in read_manifest(path)]
    assert found == sessions


def test_what_it_looks_like(scans: Path) -> None:
    clinical = {"age": 71.3, "sex": 1.0, "education": 16.0}
    session = Session("sub-1", "bl", "A", "CN", scans / "m.nii.gz", Path(), clinical)
    write_manifest(
        scans.parent / "participants.tsv", [session, replace(session, session="m12", phase="ADNI2")]
    )
    header, first, second = (scans.parent / "participants.tsv").read_text().splitlines()
    assert header.split("\t") == [*REQUIRED, *CLINICAL, "phase"]
    cells = ["sub-1", "bl", "A", "CN", "scans/m.nii.gz", "n/a", "71.3", "F", "16", *["n/a"] * 4]
    assert first.split("\t") == cells
    assert second.split("\t") == [cells[0], "m12", *cells[2:-1], "ADNI2"]


def test_a_table_in_a_linked_folder_finds_its_scans(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    session = Session("sub-1", "bl", "A", "CN", scans / "m.nii.gz", scans / "p.nii.gz")
    write_manifest(tmp_path / "link" / "participants.tsv", [session])
    assert len(read_manifest(tmp_path / "link" / "participants.tsv")) == 1
    assert len(read_manifest(tmp_path / "far" / "away" / "participants.tsv")) == 1


def test_a_scan_that_is_a_link_stays_one(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "annex.nii").symlink_to(scans / "m.nii.gz")
    session = Session("sub-1", "bl", "A", "CN", tmp_path / "annex.nii", scans / "p.nii.gz")
    write_manifest(tmp_path / "participants.tsv", [session])
    assert read_manifest(tmp_path / "participants.tsv")[0].mri == tmp_path / "annex.nii"
