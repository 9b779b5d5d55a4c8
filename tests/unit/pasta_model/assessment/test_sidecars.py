# SPDX-License-Identifier: Apache-2.0
"""What lies beside synthetic PETs is used: spreads become coverage, flags a table by site."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pasta_model.assessment import page
from pasta_model.assessment.page import Assessed, assessment_page
from pasta_model.assessment.sidecars import beside_pets
from pasta_model.data.manifest import Session
from pasta_model.data.volume import Volume, read_volume, write_volume
from pasta_model.derivatives import spread_path, synthetic_path
from pasta_model.evaluation.comparison import EvaluationResult, evaluate
from pasta_model.evaluation.unseen import measured
from pasta_model.report.html import blocks_of
from pasta_model.report.page import Table, Viewer


@pytest.fixture
def sessions(make_session: Callable[..., Session]) -> list[Session]:
    return [make_session(f"sub-0{n}", split="test", site="AB"[n > 3]) for n in range(1, 6)]


@pytest.fixture
def folders(tmp_path: Path, sessions: list[Session]) -> dict[str, Path]:
    """Four samples of each, 10 % too low and with a spread of 10 %; sub-02 and sub-04 are flagged."""
    folder = tmp_path / "ours"
    for number, session in enumerate(sessions, start=1):
        real, path = read_volume(session.pet, unit="SUVR"), synthetic_path(folder, session)
        path.parent.mkdir(parents=True)
        write_volume(path, Volume(real.data * 0.9, real.affine, "SUVR"))
        write_volume(spread_path(path), Volume(real.data * 0.1, real.affine, "SUVR"))
        reasons = [] if number % 2 else ["its contrast is low"]
        about = {"Method": "diffusion", "Sampling": {"samples": 4}}
        about["Familiarity"] = {"unlike": bool(reasons), "reasons": reasons}
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(about))
    return {"ours": folder}


@pytest.fixture
def result(sessions: list[Session], folders: dict[str, Path]) -> EvaluationResult:
    return evaluate(sessions, folders)


def test_spreads_become_coverage(
    result: EvaluationResult, sessions: list[Session], folders: dict[str, Path]
) -> None:
    told = beside_pets(result, sessions, folders)
    covered = {row.level: row.coverage.value for row in told.coverage}
    assert (covered[0.5], covered[0.8]) == (0, 1)  # t_3(0.75) sqrt(1.25) is 0.855 of the error
    (row,) = told.spread
    assert (row.method, row.subjects) == ("ours", 5)
    assert row.spread.value == pytest.approx(row.error.value, rel=1e-3)
    assert told.spreads == {("ours", session.name) for session in sessions}
    assert told.left_out == ()


def test_flags_are_counted_by_site(
    result: EvaluationResult, sessions: list[Session], folders: dict[str, Path]
) -> None:
    rows = beside_pets(result, sessions, folders).unlike
    assert [(r.site, r.scans, r.flagged, r.reason, r.persons) for r in rows] == [
        ("A", 3, 1, "its contrast is low", 3), ("B", 2, 1, "its contrast is low", 2)
    ]  # fmt: skip


def test_a_spread_that_cannot_be_used_costs_itself_only(
    result: EvaluationResult, sessions: list[Session], folders: dict[str, Path]
) -> None:
    path = synthetic_path(folders["ours"], sessions[0])
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text("{}")
    told = beside_pets(result, sessions, folders)
    assert told.spread[0].subjects == 4
    assert ("ours", sessions[0].name) not in told.spreads
    assert told.left_out[0].startswith("ours: 1 sessions have no usable spread: ")
    assert sum(row.scans for row in told.unlike) == 4


def test_few_people_are_not_told_of(
    result: EvaluationResult, sessions: list[Session], folders: dict[str, Path]
) -> None:
    told = beside_pets(result, sessions, folders, smallest=6)
    assert (told.coverage, told.spread) == ((), ())
    assert told.left_out == ("ours, uncertainty: fewer than 6 subjects, too few to tell.",)


def test_pets_of_other_programs_have_nothing_beside_them(sessions: list[Session], tmp_path: Path) -> None:
    for session in sessions:
        (tmp_path / "theirs").mkdir(exist_ok=True)
        write_volume(tmp_path / "theirs" / f"{session.name}.nii.gz", read_volume(session.pet))
    folders = {"theirs": tmp_path / "theirs"}
    told = beside_pets(evaluate(sessions, folders), sessions, folders)
    assert (told.coverage, told.spread, told.unlike, told.left_out) == ((), (), (), ())
    assert not told.spreads


@pytest.mark.slow
def test_the_spread_is_measured_in_the_brain_of_the_scores(
    tmp_path: Path, sessions: list[Session], folders: dict[str, Path]
) -> None:
    for session in sessions:  # half of the brain, where the spread is 50 times as large
        path = synthetic_path(folders["ours"], session)
        real, spread = read_volume(session.pet), read_volume(spread_path(path))
        half = np.zeros_like(real.data)
        half[: len(half) // 2] = real.data[: len(half) // 2] > 0
        (tmp_path / "masks").mkdir(exist_ok=True)
        write_volume(tmp_path / "masks" / f"{session.name}.nii.gz", Volume(half, real.affine))
        write_volume(spread_path(path), replace(spread, data=spread.data * (1 + 49 * half)))
    result = evaluate(sessions, folders, mask=tmp_path / "masks")
    told = beside_pets(result, sessions, folders)
    assert all(row.coverage.value == pytest.approx(1.0) for row in told.coverage), "all of this half"
    whole = beside_pets(replace(result, masks={}), sessions, folders)
    assert not all(row.coverage.value == pytest.approx(1.0) for row in whole.coverage)


def test_the_page_has_the_layer_and_the_tables(
    result: EvaluationResult,
    sessions: list[Session],
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page, "CASES", 1)
    told = beside_pets(result, sessions, folders, smallest=3)
    made = assessment_page(
        Assessed(result, measured(sessions), "ours", told=told, smallest=3),
        command="", seed=0, digests={}, settings={},
    )  # fmt: skip
    (viewer,) = (block for block in blocks_of(made) if isinstance(block, Viewer))
    assert "uncertainty" in {layer.key for layer in viewer.layers}
    tables = {block.title: block for block in blocks_of(made) if isinstance(block, Table)}
    assert {"Coverage of the intervals", "Error against spread", "Flagged MRIs"} <= set(tables)
    shown = [[cell.text for cell in row[:4]] for row in tables["Flagged MRIs"].rows[0].rows]
    assert shown == [["A", "not shown", "not shown", "not shown"], ["B", "fewer than 3", *["not shown"] * 2]]
