# SPDX-License-Identifier: Apache-2.0
"""A hospital without fault, a model, and a way to type command lines about them."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pasta_model.checkpoint import Checkpoint, new_network, save_checkpoint
from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES, Standardisation
from tests.support.commands import MAINS, Outcome, everything
from tests.support.hospital import Hospital


@pytest.fixture
def hospital(tmp_path: Path, write_scan: Callable[..., Path]) -> Hospital:
    """Two subjects without fault."""
    made = Hospital(tmp_path / "hospital", write_scan)
    made.folder.mkdir()
    made.admit("sub-01")
    made.admit("sub-02", diagnosis="Dementia", sex="M")
    return made


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    path = tmp_path / "splits.tsv"
    path.write_text("participant_id\tsplit\nsub-01\ttrain\nsub-02\tvalid\n")
    return path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command line in this process, in a terminal wide enough for long paths."""
    monkeypatch.setenv("COLUMNS", "1000")

    def run(*words: str | Path) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        with pytest.raises(SystemExit) as stop:
            MAINS[str(words[0])]()
        streams = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), streams.out, streams.err)

    return run


@pytest.fixture
def model(tmp_path: Path, make_settings: Callable[..., Settings]) -> Path:
    """An untrained model that samples in one step."""
    settings = make_settings(sampling__steps=1, sampling__hop=15)
    columns = len(SCHEMES[settings.data.clinical].columns)
    standardisation = Standardisation((0.0,) * columns, (1.0,) * columns)
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, Checkpoint(new_network(settings).state_dict(), settings, standardisation, 7))
    return path


@pytest.fixture
def refused(tmp_path: Path, call: Callable[..., Outcome]) -> Callable[..., str]:
    """Expect a command to be refused and to leave the disk as it was; return what it said, once."""

    def run(*words: str | Path) -> str:
        before = everything(tmp_path)
        outcome = call(*words)
        assert outcome.status == 2, outcome
        assert everything(tmp_path) == before
        assert outcome.err.startswith("error: "), outcome.err
        assert outcome.err.count("error: ") == 1
        assert "Traceback" not in outcome.err + outcome.out
        return outcome.err

    return run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with something that is not ours."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    return folder
