# SPDX-License-Identifier: Apache-2.0
"""`pasta evaluate`, as it is typed: four files or none, and one message for a mistake."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pasta_model.checkpoint import file_digest
from pasta_model.data.manifest import Session, write_manifest, write_splits
from pasta_model.data.volume import read_volume, write_volume
from pasta_model.evaluation.tables import read_scores
from tests.support.commands import Outcome, everything

Pasta = Callable[..., Outcome]


@pytest.fixture
def manifest(tmp_path: Path, make_session: Callable[..., Session]) -> Path:
    sessions = [
        make_session(
            f"sub-0{n}", site="AB"[n % 2], split="test", clinical={"age": 60 + 8.0 * n, "sex": n % 2}
        )
        for n in (1, 2, 3)
    ]
    for method, shift in (("theirs", 0.1), ("unet", 0.2)):
        for session in sessions:
            real = read_volume(session.pet)
            path = tmp_path / method / f"{session.name}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            write_volume(path, replace(real, data=real.data + np.float32(shift)))
    write_manifest(tmp_path / "participants.tsv", sessions)
    return tmp_path / "participants.tsv"


@pytest.fixture
def words(manifest: Path, tmp_path: Path, out: Path) -> list[object]:
    folders = [f"our own={tmp_path / 'theirs'}", tmp_path / "unet"]
    return ["evaluate", manifest, *folders, "--output", out, "--workers", 1, "--no-report"]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_several_methods_at_once(words: list[object], out: Path, tmp_path: Path, pasta: Pasta) -> None:
    said = pasta(*words)
    assert (said.status, said.err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == [
        "evaluation.json", "groups.tsv", "regions.tsv", "scores.tsv"
    ]  # fmt: skip
    scores = read_scores(out / "scores.tsv")
    assert [(s.subject, s.method) for s in scores] == [
        (f"sub-0{n}", method) for n in (1, 2, 3) for method in ("our own", "unet")
    ]
    groups = {(r["kind"], r["group"], r["method"], r["metric"]): r for r in _rows(out / "groups.tsv")}
    whole = groups["all", "all sites", "unet", "mae"]
    assert float(whole["value"]) == pytest.approx(0.2, abs=1e-6)
    assert float(whole["low"]) <= float(whole["value"]) <= float(whole["high"])
    assert ("age", "65-74", "unet", "mae") in groups
    assert {r["region"] for r in _rows(out / "regions.tsv")} >= {"angular_left", "metaroi"}
    about = json.loads((out / "evaluation.json").read_text())
    assert about["Methods"] == {"our own": str(tmp_path / "theirs"), "unet": str(tmp_path / "unet")}
    assert {entry["sha256"] for entry in about["Inputs"]} == {
        file_digest(path) for folder in ("theirs", "unet") for path in (tmp_path / folder).iterdir()
    }
    assert about["Settings"] == {"mask": None, "partial": False, "seed": 0, "smallest": 0}
    assert about["Manifest"]["sha256"] == file_digest(tmp_path / "participants.tsv")
    assert about["HeldOut"] == {"basis": "splits", "left_out": [], "splits": None}
    assert "numpy" in about["Versions"]


def test_prints_the_headline_with_intervals(words: list[object], pasta: Pasta) -> None:
    said = pasta(*words).out
    assert re.search(r"all sites\s+3\s+our own\s+0\.1000\*", said)
    assert re.search(r"0\.1000 to .*\n\s+0\.1000 ", said)
    assert "95% interval" in said


def test_the_same_words_give_the_same_files_and_another_seed_others(
    words: list[object], out: Path, pasta: Pasta
) -> None:
    pasta(*words)
    before = everything(out)
    (out / "report.html").write_text("of an earlier evaluation")
    pasta(*words)
    assert everything(out) == before
    pasta(*words, "--seed", 5)
    assert everything(out)["scores.tsv"] == before["scores.tsv"]
    assert everything(out)["groups.tsv"] != before["groups.tsv"]


def test_small_groups_are_hidden_in_the_tables_and_on_the_screen(
    words: list[object], out: Path, pasta: Pasta
) -> None:
    said = pasta(*words, "--smallest", 3)
    shown = {row["group"] for row in _rows(out / "groups.tsv") if row["value"] != "n/a"}
    assert shown == {"all sites", "CN"}
    counts = {row["group"]: row["subjects"] for row in _rows(out / "groups.tsv")}
    assert (counts["A"], counts["B"], counts["CN"]) == ("fewer than 3", "fewer than 3", "3")
    assert re.search(r"A\s+fewer than 3\s+our own", said.out)
    assert "n/a, not available: fewer than 3 subjects, too few to tell" in said.out
    assert len(read_scores(out / "scores.tsv")) == 6


def test_missing_pets_are_left_out_where_asked(
    words: list[object], tmp_path: Path, out: Path, pasta: Pasta, pasta_refuses: Callable[..., str]
) -> None:
    (tmp_path / "unet" / "sub-02_bl.nii.gz").unlink()
    assert "sub-02_bl: unet: no synthetic PET among 2 NIfTI files here" in pasta_refuses(*words)
    said = pasta(*words, "--partial")
    assert said.status == 0
    assert "unet: 1 sessions without a PET left out" in said.out
    assert json.loads((out / "evaluation.json").read_text())["LeftOut"] == {"unet": ["sub-02_bl"]}


def test_who_trained_is_not_measured(
    words: list[object], tmp_path: Path, out: Path, manifest: Path, pasta: Pasta
) -> None:
    manifest.write_text(manifest.read_text().replace("\ttest", "\tn/a"))
    table = tmp_path / "splits.tsv"
    write_splits(table, {"sub-01": "test", "sub-02": "train", "sub-03": "test"})
    (tmp_path / "unet" / "sub-02_bl.nii.gz").unlink()  # who trained needs no PET
    said = pasta(*words, "--splits", table)
    assert said.status == 0, said.err
    assert {s.subject for s in read_scores(out / "scores.tsv")} == {"sub-01", "sub-03"}
    assert "1 sessions of persons in train or valid were left out" in said.out
    assert json.loads((out / "evaluation.json").read_text())["HeldOut"] == {
        "basis": "splits",
        "left_out": ["sub-02_bl"],
        "splits": {"path": str(table), "sha256": file_digest(table)},
    }


def test_what_nothing_says_is_not_called_held_out(
    words: list[object], out: Path, manifest: Path, pasta: Pasta
) -> None:
    manifest.write_text(manifest.read_text().replace("\ttest", "\tn/a"))
    for more, basis, wanted in (
        ([], "not checked", "Whether a method was trained on these subjects was not checked."),
        (["--all-unseen"], "word of the user", "is the user's word (--all-unseen)."),
    ):
        said = pasta(*words, *more)
        assert wanted in said.out
        assert "eld out" not in said.out
        assert json.loads((out / "evaluation.json").read_text())["HeldOut"]["basis"] == basis


def test_nobody_held_out_is_one_message(
    words: list[object], manifest: Path, pasta_refuses: Callable[..., str]
) -> None:
    manifest.write_text(manifest.read_text().replace("\ttest", "\ttrain"))
    assert "all 3 sessions are of persons in train or valid" in pasta_refuses(*words)


def test_a_table_for_an_output_is_refused_before_any_work(
    words: list[object], tmp_path: Path, pasta_refuses: Callable[..., str]
) -> None:
    words[words.index("--output") + 1] = tmp_path / "scores.tsv"
    said = pasta_refuses(*words)
    assert f"{tmp_path / 'scores.tsv'}: is the name of a table, wanted a folder" in said
    assert f"write --output {tmp_path / 'scores'}" in said


def test_a_folder_of_other_files_is_never_replaced(
    words: list[object], out: Path, pasta_refuses: Callable[..., str]
) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    assert f"{out}: holds other files (thesis.tex); choose a new folder" in pasta_refuses(*words)


def test_nothing_is_written_when_a_pair_does_not_match(
    words: list[object], tmp_path: Path, pasta_refuses: Callable[..., str]
) -> None:
    for name in ("sub-01", "sub-03"):
        path = tmp_path / "unet" / f"{name}_bl.nii.gz"
        moved = read_volume(path)
        affine = moved.affine.copy()
        affine[0, 3] += 1.5
        write_volume(path, replace(moved, affine=affine))
    said = pasta_refuses(*words)
    assert "2 problem(s)" in said
    assert said.count("lie on different grids") == 2


def test_a_folder_that_is_not_there_and_two_of_one_name(
    words: list[object], tmp_path: Path, pasta_refuses: Callable[..., str]
) -> None:
    assert f"lost: {tmp_path / 'lost'} is not a folder" in pasta_refuses(*words, tmp_path / "lost")
    assert "two folders are called 'unet'" in pasta_refuses(*words, tmp_path / "unet")


def test_pets_of_one_value_or_of_another_scale_are_refused(
    words: list[object], tmp_path: Path, pasta_refuses: Callable[..., str]
) -> None:
    for path in (tmp_path / "unet").iterdir():
        pet = read_volume(path)
        write_volume(path, replace(pet, data=np.full_like(pet.data, 1.2)))
    said = pasta_refuses(*words)
    assert "3 problem(s)" in said
    assert said.count("the PET is constant in the brain") == 3
    for path in (tmp_path / "theirs").iterdir():
        pet = read_volume(path)
        write_volume(path, replace(pet, data=pet.data / pet.data.max()))
    assert "our own: no voxel of any PET is above 1" in pasta_refuses(*words)


def test_what_cannot_be_computed_is_not_available(
    words: list[object], tmp_path: Path, out: Path, pasta: Pasta
) -> None:
    for path in (tmp_path / "unet").iterdir():  # alike in everybody, and flat but for one place
        pet = read_volume(path)
        flat = np.ones_like(pet.data)
        flat[30, 30, 30] = 1.5
        write_volume(path, replace(pet, data=flat))
    assert pasta(*words).status == 0
    regions = {(r["method"], r["statistic"]): r for r in _rows(out / "regions.tsv")}
    assert regions["unet", "correlation"]["value"] == "n/a"
    assert regions["unet", "correlation"]["why"].startswith("no spread")
    text = "".join(path.read_text() for path in out.iterdir())
    assert not re.search(r"\b(nan|inf|NaN|Infinity)\b", text)
