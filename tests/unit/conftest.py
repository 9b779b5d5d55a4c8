# SPDX-License-Identifier: Apache-2.0
"""What all unit tests share."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import client.site
from pasta_model.checkpoint import Checkpoint, new_network, save_checkpoint
from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES, Standardisation
from tests.support.commands import Outcome, everything, run_pasta

SMALLEST = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"


@pytest.fixture(autouse=True)
def few_values_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sites of three subjects tell their sums; what holds real ones back has its own test."""
    monkeypatch.setattr(client.site, "MIN_VALUES", 1)


@pytest.fixture
def pasta(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `pasta` with words."""
    return lambda *words: run_pasta(words, monkeypatch, capsys)


@pytest.fixture
def pasta_refuses(tmp_path: Path, pasta: Callable[..., Outcome]) -> Callable[..., str]:
    """Expect words to be refused in one message, and the disk to stay as it was; return the message."""

    def run(*words: object) -> str:
        before = everything(tmp_path)
        said = pasta(*words)
        assert said.status == 2, said
        assert everything(tmp_path) == before
        assert len(re.findall(r"(?im)^error: |─ Error ─", said.err)) == 1, said.err
        assert "Traceback" not in said.err + said.out
        return said.err

    return run


@pytest.fixture
def make_model(tmp_path: Path, make_settings: Callable[..., Settings]) -> Callable[..., Path]:
    """Save the smallest model, with weights that are nowhere zero: all it is told shows in the PET."""

    def make(name: str = "model.safetensors", **changes: bool | float | str) -> Path:
        quick = {"network__shape": SMALLEST, "sampling__steps": 2, "sampling__hop": 4}
        quick |= {"sampling__antithetic": False} | changes
        settings = make_settings(**quick)
        generator = torch.Generator().manual_seed(0)
        state = {
            n: t + 0.05 * torch.randn(t.shape, generator=generator)
            for n, t in new_network(settings).state_dict().items()
        }
        columns = len(SCHEMES[settings.data.clinical].columns)
        usual = Standardisation((70.0, 0.5, 14.0, 25.0, 15.0, 0.5)[:columns], (8.0,) * columns)
        save_checkpoint(tmp_path / name, Checkpoint(state, settings, usual, 7))
        return tmp_path / name

    return make


@pytest.fixture
def model(make_model: Callable[..., Path]) -> Path:
    return make_model()


@pytest.fixture
def mri(tmp_path: Path, write_scan: Callable[..., Path]) -> Path:
    return write_scan(tmp_path / "sub-01_T1w.nii.gz", seed=1, gain=300.0)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"
