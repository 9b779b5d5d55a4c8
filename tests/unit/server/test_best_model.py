# SPDX-License-Identifier: Apache-2.0
"""Which model is best, when sites are missing or the server dies at the wrong moment."""

from pathlib import Path

import numpy as np
import pytest

from pasta_model.checkpoint import load_checkpoint
from pasta_model.data.clinical import SCHEMES, Moments, Standardisation
from pasta_model.exchange.contents import SiteReport
from pasta_model.exchange.vectors import write_vector
from server.members import Member
from server.records import REFERENCE, Progress
from server.rounds import Federation
from tests.support.sites import make_settings, prepared


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """Two members of equal size; nothing has been measured."""
    prepared(tmp_path, "AB")
    made = Federation(None, make_settings(tmp_path, tmp_path / "run"))
    none = np.zeros(len(SCHEMES["demographics"].columns))
    for name in "AB":
        made.members.joined[name] = Member(1, SiteReport(name, 3, 1, Moments(none, none, none)), "")
    return made


@pytest.fixture
def progress(federation: Federation) -> Progress:
    """Three rounds on disk; the weights of each are its number."""
    made = Progress(0, Standardisation((0.0,) * 3, (1.0,) * 3), "")
    for number in range(3):
        about = federation.folder.metadata(made, number)
        with federation.folder.completing(made, number) as work:
            values = [np.full(size, number, np.float32) for size in federation.folder.sizes.values()]
            write_vector(work / REFERENCE, federation.folder.layout, values, metadata=about)
    return made


def measure(federation: Federation, progress: Progress, number: int, **mae: float) -> None:
    progress.next_round = number
    federation._compare(progress, mae)


def test_round_without_the_hardest_patients_is_not_best_for_that(federation, progress) -> None:
    measure(federation, progress, 0, B=0.1)  # A, who has them, was away
    measure(federation, progress, 1, A=0.8, B=0.09)
    assert (progress.best_round, progress.best_mae) == (1, pytest.approx(0.445))
    measure(federation, progress, 2, A=0.7, B=0.12)
    assert progress.best_round == 2
    measure(federation, progress, 3, B=0.13)
    assert progress.best_round == 2


def test_nothing_measured_changes_nothing(federation, progress) -> None:
    measure(federation, progress, 0)
    assert progress.best_round == -1
    federation.folder.publish_best(progress)
    assert not (federation.folder.path / "model.safetensors").exists()


def test_file_and_claim_agree_after_a_kill_between_them(federation, progress) -> None:
    measure(federation, progress, 1, A=0.5, B=0.5)
    federation.folder.publish_best(progress)
    measure(federation, progress, 2, A=0.4, B=0.4)  # killed here: the claim is on disk, the file is not
    federation.folder.publish_best(progress)
    kept = load_checkpoint(federation.folder.path / "model.safetensors")
    assert kept.round == progress.best_round == 2
    assert {float(value.unique()) for value in kept.state.values()} == {2.0}


def test_last_model_is_written_last(federation, progress, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds it takes the run for finished: the history and the moving average must be there."""
    progress.next_round = 2
    folder = federation.folder
    real = type(folder).publish

    def killed(self, told, source, target, *, number):
        if target == "last.safetensors":
            raise KeyboardInterrupt
        if source != REFERENCE:
            return  # this run has no moving average
        real(self, told, source, target, number=number)

    (folder.path / "history.jsonl").unlink()
    monkeypatch.setattr(type(folder), "publish", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.finish(progress)
    assert (folder.path / "history.jsonl").is_file()
    assert not (folder.path / "last.safetensors").exists()
