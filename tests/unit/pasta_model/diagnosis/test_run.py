# SPDX-License-Identifier: Apache-2.0
"""A whole run on small cohorts: out of fold, the same folds for all, resumable, without leaks."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pasta_model.data.grid import template
from pasta_model.data.volume import Volume, read_volume, write_volume
from pasta_model.diagnosis import run
from pasta_model.diagnosis.cases import Case
from pasta_model.diagnosis.results import DiagnosisResult, Prediction
from pasta_model.diagnosis.run import diagnose
from pasta_model.diagnosis.settings import DiagnosisSettings
from pasta_model.errors import ConfigError, SplitError, VolumeError

TWO, THREE = "CN / Dementia", "CN / MCI / Dementia"
REGIONS = DiagnosisSettings(tasks=(TWO,), readers=("regions",), folds=2, resamples=20)
BOTH = REGIONS.model_copy(update={"readers": ("network", "regions"), "steps": 2, "width": 4, "batch_size": 2})


def read(
    cases: list[Case], *inputs: str, settings: DiagnosisSettings = REGIONS, **more: object
) -> DiagnosisResult:
    return diagnose(cases, inputs or ("real PET",), seen=(), settings=settings, **more)


def change_scan(case: Case, kind: str = "real PET") -> None:
    volume = read_volume(case.pets[kind])
    write_volume(case.pets[kind], Volume(volume.data * np.float32(3), volume.affine))


def by_session(predictions: tuple[Prediction, ...]) -> dict[tuple[str, str], Prediction]:
    return {(p.person, p.session): p for p in predictions}


@pytest.mark.parametrize("reader", ["regions", pytest.param("network", marks=pytest.mark.slow)])
def test_one_prediction_a_session_and_the_same_folds_for_all(cases: list[Case], reader: str) -> None:
    settings = BOTH.model_copy(update={"readers": (reader,)})
    result = read(cases, "MRI", "MRI + clinical", "half", "real PET", settings=settings)
    wanted = {(c.person, c.session) for c in cases}
    rows = {(row.trained_on, row.applied_to): row for row in result.rows}
    pairs = [("MRI",) * 2, ("MRI + clinical",) * 2, ("half",) * 2, ("real PET",) * 2, ("real PET", "half")]
    assert list(rows) == pairs
    folds = set()
    for pair, row in rows.items():
        own = [p for p in result.predictions if (p.trained_on, p.applied_to) == pair]
        assert len(own) == len(wanted)
        assert {(p.person, p.session) for p in own} == wanted
        assert all(sum(p.probabilities) == pytest.approx(1) for p in own)
        folds.add(tuple(sorted((p.person, p.session, p.fold) for p in own)))
        assert row.subjects == 8
    assert len(folds) == 1
    assert len({p.fold for p in result.predictions if p.person == "p7"}) == 1
    if reader == "regions":
        assert rows["real PET", "real PET"].auc.value == 1


def test_held_out_scans_and_labels_teach_nothing(cases: list[Case]) -> None:
    before = by_session(read(cases).predictions)
    person = cases[0].person
    fold = before[person, "bl"].fold
    change_scan(cases[0])
    after = by_session(read(cases).predictions)
    for who, prediction in after.items():
        same = prediction.probabilities == before[who].probabilities
        assert same == (prediction.fold == fold and who[0] != person)


def test_network_learns_nothing_from_held_out_scans(cases: list[Case]) -> None:
    settings = BOTH.model_copy(update={"readers": ("network",)})
    before = by_session(read(cases, settings=settings).predictions)
    change_scan(cases[0])
    after = by_session(read(cases, settings=settings).predictions)
    fold = before[cases[0].person, "bl"].fold
    for who, prediction in after.items():
        same = prediction.probabilities == before[who].probabilities
        assert same == (prediction.fold == fold and who[0] != cases[0].person)


def test_reader_of_real_pets_is_the_one_trained_without_the_person(cases: list[Case]) -> None:
    twin = [replace(c, pets={**c.pets, "copy": c.pets["real PET"]}) for c in cases]
    result = read(twin, "real PET", "copy")
    real, copied = (
        [p.probabilities for p in result.predictions if (p.trained_on, p.applied_to) == ("real PET", applied)]
        for applied in ("real PET", "copy")
    )
    assert real == copied


def test_resumed_run_makes_nothing_again(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, steps = tmp_path / "out", []
    first = read(cases, "real PET", "half", output=out, progress=lambda *step: steps.append(step))
    assert steps[-1] == (2 + 4, 6)  # kinds of scans, folds
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {path.name for path in out.iterdir()} == {".lock", "diagnosis.tsv", "folds", "predictions.tsv"}

    def never(*words: object) -> None:
        pytest.fail("nothing is left to do")

    with monkeypatch.context() as patch:
        patch.setattr(run, "run_job", never)
        patch.setattr(run, "gather", never)
        assert read(cases, "real PET", "half", output=out) == first
    assert files == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_what_has_changed_is_made_again(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made = tmp_path / "out", []
    real = run.run_job
    monkeypatch.setattr(run, "run_job", lambda job: made.append(job) or real(job))

    def again(*inputs: str, settings: DiagnosisSettings = REGIONS, seed: int = 0) -> int:
        made.clear()
        read(cases, *inputs, output=out, settings=settings, seed=seed)
        return len(made)

    assert again("MRI", "half") == 4
    assert again("MRI", "half") == 0
    assert again("MRI", "half", settings=REGIONS.model_copy(update={"resamples": 5})) == 0
    change_scan(cases[0], "half")
    assert again("MRI", "half") == 2, "those of the scan only"
    next((out / "folds").iterdir()).write_text('{"digest": "half of a fi')
    assert again("MRI", "half") == 1
    cases[1] = replace(cases[1], clinical={"age": 20.0})
    assert again("MRI", "half") == 4
    assert again("MRI", "half", seed=1) == 4
    assert again("MRI", "half", seed=1, settings=REGIONS.model_copy(update={"penalty": 9.0})) == 4


def test_kept_files_explain_themselves(cases: list[Case], tmp_path: Path) -> None:
    read(cases, output=tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out" / "folds").iterdir())
    assert [name.split("_")[1] for name in names] == ["fold-0.json", "fold-1.json"]
    assert names[0].startswith("CN-Dementia-regions-real-PET-")
    content = json.loads((tmp_path / "out" / "folds" / names[0]).read_text())
    assert content["predictions"][0]["trained_on"] == "real PET"
    header, first, *rows = (tmp_path / "out" / "predictions.tsv").read_text().splitlines()
    assert header.split("\t")[-3:] == ["probability_CN", "probability_Dementia", "probability_MCI"]
    assert first.endswith("\tn/a")
    assert len(rows) == len(cases) - 1
    table = (tmp_path / "out" / "diagnosis.tsv").read_text().splitlines()
    assert dict(zip(table[0].split("\t"), table[1].split("\t"), strict=True))["auc"] == "1.0"


def test_two_of_three_diagnoses_are_not_available(cases: list[Case], tmp_path: Path) -> None:
    settings = REGIONS.model_copy(update={"tasks": (TWO, THREE)})
    result = read(cases, "real PET", "half", settings=settings, output=tmp_path / "out")
    assert [(row.task, row.auc.text()) for row in result.rows[3:]] == [(THREE, "not available")] * 3
    assert {row.auc.why for row in result.rows[3:]} == {"only CN and Dementia are there"}
    assert "only CN and Dementia are there" in (tmp_path / "out" / "diagnosis.tsv").read_text()
    assert "nan" not in (tmp_path / "out" / "diagnosis.tsv").read_text()


def test_three_diagnoses(make_case: Callable[..., Case]) -> None:
    cases = [make_case(f"{name}{n}", name) for name in ("CN", "MCI", "Dementia") for n in range(4)]
    result = read(cases, settings=REGIONS.model_copy(update={"tasks": (THREE, TWO)}))
    assert [(row.task, row.subjects) for row in result.rows] == [(THREE, 12), (TWO, 8)]
    assert result.rows[0].auc.value > 0.9
    assert {len(p.probabilities) for p in result.predictions if p.task == THREE} == {3}


def test_persons_that_a_generator_has_seen(cases: list[Case]) -> None:
    with pytest.raises(SplitError, match="trained on p2, p3"):
        diagnose(cases, ["real PET"], seen={"p3", "p2", "x"}, settings=REGIONS)


def test_scans_that_cannot_be_read_are_all_named(cases: list[Case], tmp_path: Path) -> None:
    cases[0].mri.write_bytes(b"not a scan")
    elsewhere = np.diag([3.0, 3, 3, 1])
    write_volume(cases[1].pets["real PET"], Volume(np.ones(template(3.0).head.shape, np.float32), elsewhere))
    with pytest.raises(VolumeError) as caught:
        read(cases, "MRI", "real PET", output=tmp_path / "out")
    assert "2 problem(s)" in str(caught.value)
    assert "p0 bl: MRI:" in str(caught.value)
    assert "p1 bl: real PET:" in str(caught.value)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".lock"], "nothing half done is left"


def test_scans_of_two_spacings(cases: list[Case]) -> None:
    fine = template(1.5).head
    write_volume(cases[1].pets["real PET"], Volume(np.ones(fine.shape, np.float32), fine.affine))
    with pytest.raises(VolumeError, match=r"p1 bl: real PET: .*lies on the grid MNI152 1.5 mm"):
        read(cases)


def test_inputs_of_two_spacings(make_case: Callable[..., Case]) -> None:
    cases = [make_case(f"{name}{n}", name) for name in ("CN", "Dementia") for n in range(2)]
    fine = template(1.5).head
    for case in cases:
        write_volume(case.pets["real PET"], Volume(np.ones(fine.shape, np.float32), fine.affine))
    with pytest.raises(VolumeError, match=r"found MRI 3.0 mm, real PET 1.5 mm; wanted one spacing"):
        read(cases, "MRI", "real PET")


def test_device_and_folder_are_checked_first(cases: list[Case], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mps"):
        read(cases, settings=REGIONS.model_copy(update={"device": "mps"}))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        read(cases, output=tmp_path / "file")


@pytest.mark.slow
def test_several_processes_give_the_same(cases: list[Case], tmp_path: Path) -> None:
    alone = read(cases, "MRI", "real PET", settings=BOTH, output=tmp_path / "one")
    together = read(cases, "MRI", "real PET", settings=BOTH, output=tmp_path / "two", workers=2)
    assert alone == together
