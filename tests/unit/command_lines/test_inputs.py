# SPDX-License-Identifier: Apache-2.0
"""Models, stores, runs and settings that cannot be used: what each command answers."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file

from pasta_model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pasta_model.config import Settings
from tests.support.hospital import Hospital, cut


def foreign(path: Path, **metadata: str) -> None:
    ours = {"format": "pasta-dual-arm-1"} if metadata else {}
    save_file(load_checkpoint(path).state, path, metadata=ours | metadata)


MODELS = {
    "missing": (Path.unlink, "no such file; train first, or check the path"),
    "empty": (lambda path: path.write_bytes(b""), "not a readable safetensors file"),
    "truncated": (cut, "not a readable safetensors file"),
    "text": (lambda path: path.write_text("weights"), "not a readable safetensors file"),
    "of others": (foreign, "format None, wanted 'pasta-dual-arm-1'"),
    "damaged metadata": (lambda path: foreign(path, about="{"), ""),
}


@pytest.mark.parametrize("fault", MODELS)
def test_model_that_cannot_be_used_is_refused(
    fault: str, model: Path, hospital: Hospital, tmp_path: Path, refused: Callable[..., str]
) -> None:
    spoil, wanted = MODELS[fault]
    spoil(model)
    for words in (
        ("info", "--model", model),
        ("synthesize", "--model", model, hospital.manifest, tmp_path / "out"),
    ):
        assert f"{model}: {wanted}" in refused("pasta", *words)


def test_weights_of_another_size_are_refused(
    model: Path,
    hospital: Hospital,
    tmp_path: Path,
    make_settings: Callable[..., Settings],
    refused: Callable[..., str],
) -> None:
    held = load_checkpoint(model)
    save_checkpoint(
        model, Checkpoint(held.state, make_settings(network__size="small"), held.standardisation, 7)
    )
    said = refused("pasta", "synthesize", "--model", model, hospital.manifest, tmp_path / "out")
    assert "the weights do not fit the network of PASTA small" in said


def test_unknown_size_is_refused(refused: Callable[..., str]) -> None:
    said = refused("pasta", "info", "--size", "huge")
    assert "network.size: found 'huge', wanted 'tiny', 'small' or 'base'" in said


@pytest.mark.parametrize("content", [None, "{", '{"format": 0}'], ids=["missing", "damaged", "older"])
def test_store_that_cannot_be_used_is_refused(
    content: str | None, tmp_path: Path, refused: Callable[..., str]
) -> None:
    if content is not None:
        (tmp_path / "index.json").write_text(content)
    said = refused("pasta-client", "show", tmp_path)
    assert re.search(rf"{tmp_path}: .*(prepare the site again|make one with 'pasta store')", said)


def test_folder_that_is_no_run_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    said = refused("pasta-server", "rounds", tmp_path)
    assert f"{tmp_path}: no history.jsonl here; give the run's output folder" in said


def test_fractions_that_leave_nothing_to_train_on_are_refused(
    hospital: Hospital, tmp_path: Path, refused: Callable[..., str]
) -> None:
    words = ("split", hospital.manifest, "--output", tmp_path / "new.tsv", "--valid", 0.5, "--test", 0.5)
    assert "leave nothing to train on" in refused("pasta", *words)


@pytest.mark.parametrize("command", ["demo", "cohort"])
def test_simulation_refuses_a_folder_of_other_files(
    command: str, home: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pasta_model.console.log_to_console", lambda *, verbose: None)
    option = {"demo": ["--output"], "cohort": []}[command]
    said = refused("pasta-sim", command, *option, home)
    assert re.search(rf"{home}.*choose (an empty or new folder|another directory)", said)
