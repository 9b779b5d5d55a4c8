# SPDX-License-Identifier: Apache-2.0
"""`pasta evaluate` with norms, a diagnosis table and a report: what it adds, and what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pasta_model.assessment.run import Extras
from pasta_model.data.manifest import Session, write_manifest
from pasta_model.data.tables import read_table
from pasta_model.data.volume import read_volume, write_volume
from pasta_model.diagnosis.files import write_predictions, write_rows
from pasta_model.diagnosis.results import DiagnosisRow, Prediction
from pasta_model.errors import Problems
from pasta_model.evaluation.estimates import Estimate
from pasta_model.metrics.similarity import brain_mask
from pasta_model.norms.model import Norms
from pasta_model.norms.people import people_of_sessions
from pasta_model.norms.sums import NormSums
from tests.support.commands import Outcome

Pasta = Callable[..., Outcome]
LOW = np.s_[20:36, 20:44, 20:36]  # a box well inside the head


@pytest.fixture
def norms(tmp_path: Path, make_session: Callable[..., Session]) -> Path:
    """Norms of twelve normal people of other ages."""
    people = [make_session(f"sub-n{n:02d}", clinical={"age": 60.0 + 2 * n}) for n in range(12)]
    sums = NormSums.of(people_of_sessions(people), spacing=3.0)
    Norms.of(sums, sites=("A",)).save(tmp_path / "norms.safetensors")
    return tmp_path / "norms.safetensors"


@pytest.fixture
def words(tmp_path: Path, out: Path, make_session: Callable[..., Session]) -> list[object]:
    """Two people; `same` is the real PET, `low` has a hole that the real one has not."""
    sessions = [make_session(f"sub-0{n}", split="test", clinical={"age": 66.0 + n}) for n in (1, 2)]
    for session in sessions:
        real = read_volume(session.pet)
        hole = real.data.copy()
        hole[LOW] *= 0.2
        for method, data in (("same", real.data), ("low", hole)):
            path = tmp_path / method / f"{session.name}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            write_volume(path, replace(real, data=data))
    write_manifest(tmp_path / "participants.tsv", sessions)
    folders = [f"same={tmp_path / 'same'}", f"low={tmp_path / 'low'}"]
    return ["evaluate", tmp_path / "participants.tsv", *folders, "--output", out, "--workers", 1]


def rows(path: Path) -> list[dict[str, str]]:
    problems = Problems("table")
    _, found = read_table(path, problems)
    problems.raise_if_any(ValueError)
    return list(found.values())


def test_a_hole_is_invented_and_the_same_pet_invents_nothing(
    words: list[object], norms: Path, out: Path, pasta: Pasta
) -> None:
    said = pasta(*words, "--norms", norms, "--no-report")
    assert (said.status, said.err) == (0, "")
    found = [r for r in rows(out / "overlaps.tsv") if r["threshold"] == "-2.0"]
    assert {(r["person"], r["method"]) for r in found} == {
        (f"sub-0{n}", method) for n in (1, 2) for method in ("same", "low")
    }
    for row in found:
        real, made, shared = (float(row[f"{name}_ml"]) for name in ("real", "synthetic", "shared"))
        if row["method"] == "same":
            assert real == made == shared
            assert row["lost_ml"] == row["invented_ml"] == "0.0"
        else:
            assert made - shared > 10.0, "the hole is in the grey matter's neighbourhood, several ml of it"
            assert float(row["invented_ml"]) == made - shared
    assert not (out / "report.html").exists()


def test_one_brain_for_scores_and_z_maps(
    tmp_path: Path, words: list[object], norms: Path, out: Path, pasta: Pasta
) -> None:
    words += ["--norms", norms, "--no-report"]
    assert pasta(*words).status == 0
    before = (out / "overlaps.tsv").read_text()
    (tmp_path / "masks").mkdir()
    for n in (1, 2):  # the same brains, but no MRI tells them any more
        mri = tmp_path / "scans" / f"sub-0{n}_T1w.nii"
        scan = read_volume(mri)
        inside = brain_mask(scan.data).astype(np.float32)
        write_volume(tmp_path / "masks" / f"sub-0{n}_bl.nii.gz", replace(scan, data=inside))
        write_volume(mri, replace(scan, data=scan.data + np.float32(50)))
    said = pasta(*words, "--mask", tmp_path / "masks")
    assert (said.status, said.err) == (0, "")
    assert (out / "overlaps.tsv").read_text() == before


@pytest.mark.slow
def test_the_report_has_all_that_was_given(
    words: list[object], norms: Path, out: Path, tmp_path: Path, pasta: Pasta
) -> None:
    reader = DiagnosisRow(
        "CN / Dementia", "regions", "real PET", "low", 41, Estimate(0.61, 0.5, 0.7), Estimate(0.6, 0.4, 0.7),
        Estimate(0.7315, 0.6, 0.8),
    )  # fmt: skip
    (tmp_path / "readers").mkdir()
    write_rows(tmp_path / "readers" / "diagnosis.tsv", [reader])
    said = pasta(*words, "--norms", norms, "--diagnosis", tmp_path / "readers", "--method", "low")
    assert (said.status, said.err) == (0, "")
    page = (out / "report.html").read_text(encoding="utf-8")
    for word in ("Result on held-out subjects", "Held out by the splits of the manifest."):
        assert word in page
    for word in ("Abnormality maps", "0.732", "norms of 12 cognitively normal persons", "low", "sub-01"):
        assert word in page
    assert "not a medical device" in page
    assert "digital twin" not in page, "nothing says that these are twins"
    assert len(page) < 25_000_000


def test_a_session_without_an_age_has_no_z_map_and_the_others_have(
    tmp_path: Path, words: list[object], norms: Path, out: Path, pasta: Pasta
) -> None:
    table = (tmp_path / "participants.tsv").read_text().replace("67", "n/a", 1)
    (tmp_path / "participants.tsv").write_text(table)
    assert pasta(*words, "--norms", norms, "--no-report").status == 0
    assert {r["person"] for r in rows(out / "overlaps.tsv")} == {"sub-02"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--method", "other"], "--method 'other'; wanted one of same, low"),
        (["--norms", "lost.safetensors"], "make norms with 'pasta norms build'"),
        (["--diagnosis", "lost"], "run 'pasta diagnose' first"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_work(
    words: list[object], more: list[str], said: str, pasta_refuses: Callable[..., str]
) -> None:
    assert said in " ".join(pasta_refuses(*words, *more).split())


def test_predictions_are_read_where_they_lie_beside_the_table(tmp_path: Path) -> None:
    asked = {"method": None, "norms": None, "diagnosis": tmp_path}
    write_rows(tmp_path / "diagnosis.tsv", [])
    assert Extras.read({"m": tmp_path}, **asked).predictions == []
    one = Prediction("CN / Dementia", "network", "MRI", "MRI", 0, "p", "bl", "A", "CN", (0.25, 0.75))
    write_predictions(tmp_path / "predictions.tsv", [one])
    assert Extras.read({"m": tmp_path}, **asked).predictions == [one]


def test_readers_of_few_persons_are_not_told() -> None:
    seen = [
        Prediction("CN / Dementia", "network", "MRI", "MRI", 0, f"p{n}", "bl", "A", name, (0.25, 0.75))
        for name, size in (("CN", 6), ("Dementia", 4))
        for n in range(size)
    ]
    extras = Extras("m", None, [], seen)
    assert not extras.tells_of_few(0)
    assert not extras.tells_of_few(4)
    assert extras.tells_of_few(5), "the whole less the six would tell the four"
