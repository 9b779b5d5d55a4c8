# SPDX-License-Identifier: Apache-2.0
"""`pasta diagnose`: from a manifest and folders of synthetic PETs to tables; mistakes are one message."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pasta_model.data.manifest import Session, write_manifest, write_splits
from pasta_model.derivatives import synthetic_path
from tests.support.commands import everything

QUICK = ("--folds", 2, "--reader", "regions", "--task", "CN / Dementia")


@pytest.fixture
def sessions(make_session: Callable[..., Session]) -> list[Session]:
    """Two persons of either diagnosis are held out, one of either trained."""
    return [
        make_session(f"sub-{name}{n}", diagnosis=name, split="train" if n == 2 else "test")
        for name in ("CN", "Dementia")
        for n in range(3)
    ]


@pytest.fixture
def manifest(tmp_path: Path, sessions: list[Session]) -> Path:
    write_manifest(tmp_path / "participants.tsv", sessions)
    return tmp_path / "participants.tsv"


@pytest.fixture
def folder(tmp_path: Path, sessions: list[Session]) -> Path:
    """Synthetic PETs that are copies of the real ones, of the held-out persons only."""
    for session in sessions:
        if session.split == "test":
            target = synthetic_path(tmp_path / "unet", session)
            target.parent.mkdir(parents=True)
            target.write_bytes(gzip.compress(session.pet.read_bytes(), compresslevel=1))
    return tmp_path / "unet"


def test_manifest_and_a_method(pasta, manifest: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = pasta("diagnose", manifest, f"U-Net={folder}", "--output", out, *QUICK)
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[-1] == (
        f"{out}: 4 sessions read; 2 left out, as methods were trained or chosen on them"
    )
    header, *rows = [line.split("\t") for line in (out / "diagnosis.tsv").read_text().splitlines()]
    assert header[:5] == ["task", "reader", "trained_on", "applied_to", "subjects"]
    assert [tuple(row[2:5]) for row in rows] == [
        ("MRI", "MRI", "4"),
        ("MRI + clinical", "MRI + clinical", "4"),
        ("U-Net", "U-Net", "4"),
        ("real PET", "real PET", "4"),
        ("real PET", "U-Net", "4"),
    ]
    scores = {tuple(row[2:4]): row[5:] for row in rows}
    assert scores["U-Net", "U-Net"] == scores["real PET", "real PET"], "copies tell the same"
    assert "real PET" in said.out
    before = everything(out)
    assert pasta("diagnose", manifest, f"U-Net={folder}", "--output", out, *QUICK).status == 0
    assert everything(out) == before


def test_real_scans_alone_need_no_splits(pasta, manifest: Path, tmp_path: Path) -> None:
    said = pasta("diagnose", manifest, "--output", tmp_path / "out", *QUICK)
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[-1] == f"{tmp_path / 'out'}: 6 sessions read"


def test_methods_need_to_know_who_was_seen(
    pasta, sessions: list[Session], folder: Path, tmp_path: Path
) -> None:
    kept = [replace(s, split=None) for s in sessions if s.split == "test"]
    write_manifest(tmp_path / "plain.tsv", kept)
    words = ("diagnose", tmp_path / "plain.tsv", f"U-Net={folder}", "--output", tmp_path / "out", *QUICK)
    said = pasta(*words)
    assert said.status == 2
    assert "nothing says whom the methods were trained on" in said.err
    write_splits(tmp_path / "splits.tsv", dict.fromkeys((s.subject for s in kept), "test"))
    assert pasta(*words, "--splits", tmp_path / "splits.tsv").status == 0
    assert pasta(*words, "--all-unseen").status == 0
    assert "the user says" in json.loads((tmp_path / "out" / "diagnosis.json").read_text())["unseen"]


def test_mistakes_are_one_message(pasta_refuses, manifest: Path, folder: Path, tmp_path: Path) -> None:
    out = ("--output", tmp_path / "out")
    methods = ("unet", f"real PET={folder}", f"MRI + clinical={folder}", f"a={folder}", f"a={folder}", "b=no")
    said = pasta_refuses("diagnose", manifest, *methods, *out)
    for words in (
        "5 problem(s)",
        "'unet', wanted NAME=FOLDER",
        "'real PET' is the name of another input",
        "'MRI + clinical' is the name of another input",
        "'a': given twice",
        "b: no folder no",
    ):
        assert words in said
    said = pasta_refuses("diagnose", manifest, *out, "--task", "AD", "--clinical", "iq")
    assert "2 problem(s)" in said
    for session in ("CN0", "CN1"):
        next(folder.rglob(f"*{session}*.nii.gz")).unlink()
    said = pasta_refuses("diagnose", manifest, f"a={folder}", *out, *QUICK)
    assert "2 problem(s)" in said
    assert "sub-CN0 bl: no a at" in said
    said = pasta_refuses("diagnose", manifest, *out, "--folds", 9)
    assert "3 persons with CN for 9 folds" in said
