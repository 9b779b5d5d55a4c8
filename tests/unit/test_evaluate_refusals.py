# SPDX-License-Identifier: Apache-2.0
"""`pasta evaluate` of PETs that are none, or not in SUVR: one message for all sessions, nothing written."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pasta_model.data.manifest import Session, write_manifest
from pasta_model.data.volume import read_volume, write_volume
from tests.support.commands import Outcome

Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture
def sessions(make_session: Callable[..., Session]) -> list[Session]:
    return [
        make_session(f"sub-0{n}", split="test", clinical={"age": 60.0 + 8 * n, "sex": n % 2})
        for n in (1, 2, 3)
    ]


@pytest.fixture
def words(sessions: list[Session], tmp_path: Path, out: Path) -> list[object]:
    for session in sessions:
        (tmp_path / "unet").mkdir(exist_ok=True)
        change(session.pet, lambda data: data + np.float32(0.1), to=tmp_path / "unet" / f"{session.name}.nii")
    write_manifest(tmp_path / "participants.tsv", sessions)
    table = tmp_path / "participants.tsv"
    return ["evaluate", table, tmp_path / "unet", "--output", out, "--workers", 1, "--no-report"]


def change(path: Path, how: Change, *, to: Path | None = None) -> None:
    pet = read_volume(path)
    write_volume(to or path, replace(pet, data=how(pet.data)))


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (lambda data: 8000 * data, "wanted 0.1 to 20: it is not in SUVR; divide it by its mean"),
        (lambda data: 0 * data, "the PET is constant in the brain (0 in all 48,"),
        (np.ones_like, "the PET is constant in the brain (1 in all 48,"),
    ],
)
@pytest.mark.parametrize("which", ["real PET", "synthetic"])
def test_of_another_unit_or_empty(
    how: Change, why: str, which: str, words, sessions, tmp_path, pasta_refuses
) -> None:
    for session in sessions[:2]:
        change(session.pet if which == "real PET" else tmp_path / "unet" / f"{session.name}.nii", how)
    said = pasta_refuses(*words)
    assert "sessions that cannot be compared: 2 problem(s)" in said
    assert f"sub-01_bl: {which}: " in said
    assert f"sub-02_bl: {which}: " in said
    assert said.count(why) == 2


def test_one_pet_for_everybody_is_scored_and_its_correlation_is_not(
    words, sessions: list[Session], tmp_path: Path, out: Path, pasta: Callable[..., Outcome]
) -> None:
    """What may be constant: a method, over persons."""
    for session in sessions:
        change(sessions[0].pet, lambda data: data, to=tmp_path / "unet" / f"{session.name}.nii")
    assert pasta(*words).status == 0
    with (out / "regions.tsv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["statistic"] == "correlation"]
    assert {row["value"] for row in rows} == {"n/a"}
    assert all(row["why"].startswith("no spread") for row in rows)
