# SPDX-License-Identifier: Apache-2.0
"""Scores of a study: kept while nothing changes, made again when anything does; means over seeds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pasta_model.data.manifest import Session
from pasta_model.data.volume import read_volume, write_volume
from pasta_model.derivatives import synthetic_path
from pasta_model.errors import VolumeError
from pasta_model.evaluation.tables import read_scores
from simulation.study import scoring
from simulation.study.scoring import ScoreJob, all_scores, between_seeds, over_seeds, score


@pytest.fixture
def make_job(tmp_path: Path, make_session: Callable[..., Session]) -> Callable[..., ScoreJob]:
    """Return a job of two sessions whose synthetic PETs are the real ones and a constant more."""
    sessions = tuple(make_session(f"sub-{n}", split="test") for n in (1, 2))

    def make(seed: int, more: float) -> ScoreJob:
        folder = tmp_path / f"pets-{seed}"
        for session in sessions:
            real = read_volume(session.pet, unit="SUVR")
            write_volume(synthetic_path(folder, session), replace(real, data=real.data + np.float32(more)))
        table = tmp_path / "scores" / f"ours-{seed}.tsv"
        return ScoreJob(
            "ours", seed, folder, sessions, table, {s.subject: f"person of {s.subject}" for s in sessions}
        )

    return make


def test_means_over_seeds_and_the_spread_between_them(make_job: Callable[..., ScoreJob]) -> None:
    jobs = [make_job(1, 0.1), make_job(2, 0.3)]
    for job in jobs:
        score(job)
    assert len(all_scores(jobs)) == 4
    scores = over_seeds(all_scores(jobs))
    assert [s.person for s in scores] == ["person of sub-1", "person of sub-2"]
    assert [s.values["mae"] for s in scores] == pytest.approx([0.2, 0.2], abs=1e-6)
    (row,) = between_seeds(jobs)
    assert row.means["mae"] == pytest.approx((0.1, 0.3), abs=1e-6)
    assert row.spread("mae") == pytest.approx(0.2 / 2**0.5, abs=1e-6)
    (alone,) = between_seeds(jobs[:1])
    assert alone.spread("mae") is None


@pytest.mark.parametrize("change", ["nothing", "pet", "diagnosis", "person", "measures"])
def test_a_table_is_kept_only_while_nothing_changes(
    make_job: Callable[..., ScoreJob], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    job = make_job(1, 0.1)
    score(job)
    if change == "pet":
        job = make_job(1, 0.25)
    if change == "diagnosis":
        job = replace(job, sessions=tuple(replace(s, diagnosis="MCI") for s in job.sessions))
    if change == "person":
        job = replace(job, persons=dict.fromkeys(job.persons, "one and the same"))
    if change == "measures":
        monkeypatch.setattr(scoring, "FORMAT", scoring.FORMAT + 1)
    assert job.done == (change == "nothing")
    score(job)
    assert job.done
    (first, _) = read_scores(job.table)
    assert first.values["mae"] == pytest.approx(0.25 if change == "pet" else 0.1, abs=1e-6)
    assert first.diagnosis == ("MCI" if change == "diagnosis" else "CN")


def test_all_pets_that_cannot_be_compared_are_named_and_no_table_is_left(
    make_job: Callable[..., ScoreJob],
) -> None:
    job = make_job(1, 0.1)
    for session in job.sessions:
        synthetic_path(job.folder, session).write_bytes(b"half a NIfTI")
    with pytest.raises(VolumeError, match=r"(?s)2 problem.*sub-1.*sub-2"):
        score(job)
    assert not job.table.exists()
