# SPDX-License-Identifier: Apache-2.0
"""Several methods beside real PETs: one result, or every problem at once."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pasta_model.checkpoint import file_digest
from pasta_model.data.grid import template
from pasta_model.data.manifest import Session
from pasta_model.data.volume import Volume, read_volume, write_volume
from pasta_model.derivatives import synthetic_path
from pasta_model.errors import ConfigError, VolumeError
from pasta_model.evaluation import comparison
from pasta_model.evaluation.comparison import EvaluationResult, evaluate, named_folders
from pasta_model.evaluation.folders import score_session

HEAD = template(3.0).head
Fake = Callable[..., Path]


@pytest.fixture
def sessions(make_session: Callable[..., Session]) -> list[Session]:
    visits = [("ann", "bl", "CN"), ("ann", "m12", "MCI"), ("bob", "bl", "Dementia")]
    return [make_session(subject, session=visit, diagnosis=dx) for subject, visit, dx in visits]


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """Write a synthetic PET of a session as another method does: the real one, shifted."""

    def write(method: str, session: Session, shift: float = 0.1, **changes: object) -> Path:
        real = read_volume(session.pet, unit="SUVR")
        path = tmp_path / method / f"{session.name}_fake.nii.gz"
        path.parent.mkdir(exist_ok=True)
        write_volume(path, replace(real, data=real.data + np.float32(shift), **changes))
        return path

    return write


@pytest.fixture
def folders(tmp_path: Path, sessions: list[Session], fake: Fake) -> dict[str, Path]:
    for number, session in enumerate(sessions, start=1):
        fake("first", session, 0.1 * number)
        fake("other", session, -0.05)
    return {"first": tmp_path / "first", "other": tmp_path / "other"}


def _refused(*args: object, **changes: object) -> str:
    with pytest.raises(VolumeError) as refused:
        evaluate(*args, **changes)
    return str(refused.value)


def test_all_methods_and_sessions(sessions: list[Session], folders: dict[str, Path]) -> None:
    result = evaluate(sessions, folders)
    assert isinstance(result, EvaluationResult)
    assert [(s.subject, s.session, s.method) for s in result.scores] == [
        (s.subject, s.session, method) for s in sessions for method in folders
    ]
    assert [s.values["mae"] for s in result.scores if s.method == "first"] == pytest.approx([0.1, 0.2, 0.3])
    whole = {row.method: row for row in result.groups if row.kind == "all"}
    assert whole["first"].values["mae"].value == pytest.approx(0.2)
    assert whole["first"].subjects == 2
    assert {row.kind for row in result.groups} == {"site", "diagnosis", "sex", "age", "all", "sites"}
    bias = {(row.method, row.region): row.bias.value for row in result.regions}
    assert bias["other", "metaroi"] == pytest.approx(-0.05, abs=1e-5)
    assert result.missing == {}
    assert len(result.files) == 6


@pytest.mark.slow
def test_processes_find_the_same(
    sessions: list[Session], folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "PAIRS_A_PROCESS", 2)
    steps: list[tuple[int, int]] = []
    several = evaluate(sessions, folders, workers=2, progress=lambda done, total: steps.append((done, total)))
    assert several == evaluate(sessions, folders)
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_a_method_that_lacks_sessions_is_refused_all_at_once(
    sessions: list[Session], folders: dict[str, Path]
) -> None:
    (folders["first"] / "ann_m12_fake.nii.gz").unlink()
    (folders["other"] / "bob_bl_fake.nii.gz").unlink()
    said = _refused(sessions, folders)
    assert "2 problem(s)" in said
    assert (
        "ann_m12: first: no file names both ann and m12; of the subject there is ann_bl_fake.nii.gz" in said
    )
    assert "bob_bl: other: no synthetic PET among 2 NIfTI files here" in said
    assert said.count("--partial") == 2
    result = evaluate(sessions, folders, partial=True)
    assert result.missing == {"first": ("ann_m12",), "other": ("bob_bl",)}
    assert len(result.scores) == 4


def test_a_method_that_lacks_all_is_refused_even_so(
    sessions: list[Session], folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    said = _refused(sessions, {**folders, "none": tmp_path / "empty"}, partial=True)
    assert "1 problem(s)" in said
    assert "none: no session has a PET here; no synthetic PET among 0 NIfTI files" in said


def test_small_groups_are_not_told_by_what_a_method_lacks(
    sessions: list[Session], folders: dict[str, Path]
) -> None:
    (folders["first"] / "bob_bl_fake.nii.gz").unlink()
    said = _refused(sessions, folders, partial=True, smallest=2)
    assert "the methods lack different sessions" in said
    alone = {"first": folders["first"]}
    rows = evaluate(sessions, alone, partial=True, smallest=2).groups
    assert {row.values["mae"].why for row in rows} == {"fewer than 2 subjects, too few to tell"}


def test_every_unusable_pair_is_told_at_once(
    sessions: list[Session], folders: dict[str, Path], fake: Fake
) -> None:
    (folders["first"] / "ann_bl_fake.nii.gz").write_bytes(b"not a scan")
    moved = HEAD.affine.copy()
    moved[2, 3] += 3.0
    fake("other", sessions[1], affine=moved)
    sessions[2].mri.unlink()
    said = _refused(sessions, folders)
    assert "3 problem(s)" in said
    assert "ann_bl: first: " in said
    assert "not a readable NIfTI" in said
    assert "ann_m12: other: real and synthetic PET lie on different grids" in said
    assert f"bob_bl: {sessions[2].mri}: no such file" in said


def test_a_pet_that_was_made_from_another_mri_is_refused(
    sessions: list[Session], folders: dict[str, Path], tmp_path: Path, make_session: Callable[..., Session]
) -> None:
    ours = {"ours": tmp_path / "ours"}
    for session, source in zip(sessions, (sessions[0], make_session("eve"), sessions[2]), strict=True):
        path = synthetic_path(ours["ours"], session)
        path.parent.mkdir(parents=True)
        write_volume(path, read_volume(session.pet))
        about = {"MriSha256": file_digest(source.mri), "Preparation": None}
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(about))
    said = _refused(sessions, ours)
    assert "1 problem(s)" in said
    assert "ann_m12: ours: " in said
    assert f"was made from another MRI than {sessions[1].mri}" in said
    damaged = synthetic_path(ours["ours"], sessions[0])
    damaged.with_name(damaged.name.replace(".nii.gz", ".json")).write_text("[]")
    assert "damaged; synthesise the session again" in _refused(sessions[:1], ours)


class TestMask:
    @staticmethod
    def _mask(path: Path, inside: np.ndarray) -> Path:
        path.parent.mkdir(exist_ok=True)
        write_volume(path, Volume(inside.astype(np.float32), HEAD.affine))
        return path

    @pytest.fixture
    def inside(self, sessions: list[Session]) -> np.ndarray:
        return read_volume(sessions[0].mri).data > 0

    def test_given_for_all(
        self, sessions: list[Session], folders: dict[str, Path], inside: np.ndarray, tmp_path: Path
    ) -> None:
        half = inside & (np.arange(HEAD.shape[0])[:, None, None] < 28)
        path = folders["first"] / "ann_bl_fake.nii.gz"
        real = read_volume(sessions[0].pet)
        write_volume(path, replace(real, data=real.data + np.where(half, 0.2, 9.0).astype(np.float32)))
        result = evaluate(sessions, folders, mask=self._mask(tmp_path / "mask.nii", half))
        assert result.scores[0].values["mae"] == pytest.approx(0.2, abs=1e-5)
        assert result.scores[0].values["mae_volume"] > 1

    def test_a_folder_with_one_a_session(
        self, sessions: list[Session], folders: dict[str, Path], inside: np.ndarray, tmp_path: Path
    ) -> None:
        for session in sessions[:2]:
            self._mask(tmp_path / "masks" / f"{session.name}_mask.nii", inside)
        said = _refused(sessions, folders, mask=tmp_path / "masks")
        assert "bob_bl: mask: " in said
        self._mask(tmp_path / "masks" / "bob_bl_mask.nii", inside)
        assert (
            evaluate(sessions, folders, mask=tmp_path / "masks").scores == evaluate(sessions, folders).scores
        )

    def test_that_is_empty_or_misses_the_brain_or_is_elsewhere(
        self, sessions: list[Session], folders: dict[str, Path], inside: np.ndarray, tmp_path: Path
    ) -> None:
        empty = self._mask(tmp_path / "empty.nii", inside & False)
        said = _refused(sessions, folders, mask=empty)
        assert said.count(f"{empty}: the mask is empty; wanted voxels above 0 in the brain") == 3
        outside = self._mask(tmp_path / "outside.nii", ~inside)
        assert "misses the brain: 0% of it is where the MRI is above 0" in _refused(
            sessions[:1], folders, mask=outside
        )
        small = tmp_path / "small.nii"
        write_volume(small, Volume(np.ones((4, 4, 4), np.float32), HEAD.affine))
        assert f"real PET and mask {small} lie on different grids" in _refused(
            sessions[:1], folders, mask=small
        )


def test_folders_must_be_there() -> None:
    with pytest.raises(ConfigError, match="2 problem"):
        evaluate([], {"a": Path("nowhere"), "b": Path("nowhere else")})
    with pytest.raises(ConfigError, match="wanted at least one"):
        evaluate([], {})


@pytest.mark.parametrize(
    ("words", "folders"),
    [
        (["out"], {"synthetic": "out"}),
        (["mine=out"], {"mine": "out"}),
        (["mean PET=a b/c", "runs/unet"], {"mean PET": "a b/c", "unet": "runs/unet"}),
        (["runs/lr=0.1/out"], {"synthetic": "runs/lr=0.1/out"}),
        (["x=runs/lr=0.1"], {"x": "runs/lr=0.1"}),
        (["./=odd"], {"synthetic": "=odd"}),
    ],
)
def test_names_of_folders(words: list[str], folders: dict[str, str]) -> None:
    assert named_folders(words) == {name: Path(path) for name, path in folders.items()}


def test_two_folders_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two folders are called 'out'; name them"):
        named_folders(["a/out", "b/out"])


@pytest.mark.parametrize("word", ["ours=", "=odd", "", " = "])
def test_a_method_has_a_name_and_a_folder(word: str) -> None:
    with pytest.raises(ConfigError, match=f"{word!r}; wanted NAME=FOLDER, or a folder"):
        named_folders([word])


def test_no_method_has_the_name_of_a_real_scan() -> None:
    with pytest.raises(ConfigError, match="3 problem") as refused:
        named_folders(["real PET=a", "mri=b", "runs/MRI", "ours=c"])
    assert "'runs/MRI': the real scans are called 'MRI'; choose another name" in str(refused.value)


def test_a_person_is_one_also_where_only_another_visit_has_the_rid(
    make_session: Callable[..., Session], fake: Fake, tmp_path: Path
) -> None:
    visits = [("one", "bl", "7"), ("one", "m12", ""), ("two", "bl", "7"), ("other", "bl", "")]
    sessions = [replace(make_session(s, session=visit), rid=rid) for s, visit, rid in visits]
    for session in sessions:
        fake("m", session)
    result = evaluate(sessions, {"m": tmp_path / "m"})
    assert [s.person for s in result.scores] == ["rid:7"] * 3 + ["other"]
    assert {row.subjects for row in result.groups if row.kind == "all"} == {2}


def test_one_session_for_other_programs(sessions: list[Session], folders: dict[str, Path]) -> None:
    volume = read_volume(sessions[0].pet, unit="SUVR")
    found = score_session(sessions[0], {"same": volume, "file": folders["other"] / "ann_bl_fake.nii.gz"})
    assert [s.values["mae"] for s in found] == pytest.approx([0.0, 0.05], abs=1e-6)
    assert {s.person for s in found} == {"ann"}
    assert score_session(sessions[0], {"same": volume}, person="rid:1")[0].person == "rid:1"
    with pytest.raises(VolumeError, match=r"ann_bl: lost: (?s:.)*no such file"):
        score_session(sessions[0], {"same": volume, "lost": Path("lost.nii")})
