# SPDX-License-Identifier: Apache-2.0
"""Outputs that must not be written, and those that may be written again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pasta_model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.support.commands import Outcome, everything
from tests.support.hospital import Hospital


def test_store_never_replaces_a_folder_of_other_files(
    hospital: Hospital, splits: Path, home: Path, refused: Callable[..., str]
) -> None:
    words = ("store", hospital.manifest, home, "--splits", splits, "--spacing", "3")
    assert str(home) in refused("pasta", *words)


def test_store_made_again_replaces_the_older_one(
    hospital: Hospital, splits: Path, tmp_path: Path, call: Callable[..., Outcome]
) -> None:
    store = tmp_path / "store"
    words = ("pasta", "store", hospital.manifest, store, "--splits", splits, "--spacing", "3")
    assert call(*words).status == 0
    before = everything(store)
    hospital.rows[0]["age"] = "71"
    words = ("pasta", "store", hospital.manifest, store, "--splits", splits, "--spacing", "3")
    assert call(*words).status == 0
    after = everything(store)
    assert sorted(after) == sorted(before)
    assert [name for name in after if after[name] != before[name]] == ["index.json"]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("pasta", "store")),
        pytest.param(("pasta", "synthesize")),
        pytest.param(("pasta-sim", "demo")),
        ("pasta-sim", "cohort"),
    ],
    ids=lambda words: words[1],
)
def test_file_is_no_output_folder(
    words: tuple[str, str],
    hospital: Hospital,
    splits: Path,
    model: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pasta_model.console.log_to_console", lambda *, verbose: None)
    file = tmp_path / "file"
    file.write_text("something")
    arguments: dict[str, tuple[str | Path, ...]] = {
        "store": (hospital.manifest, file, "--splits", splits, "--spacing", "3"),
        "synthesize": ("--model", model, hospital.manifest, file),
        "demo": ("--output", file),
        "cohort": (file,),
    }
    assert str(file) in refused(*words, *arguments[words[1]])


def test_names_in_a_table_never_lead_out_of_the_output_folder(
    hospital: Hospital, model: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    hospital.rows[0]["participant_id"] = "../../sub-01"
    refused("pasta", "synthesize", "--model", model, hospital.manifest, tmp_path / "deep" / "out")


def test_pet_that_is_not_finite_is_never_written(
    hospital: Hospital, model: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    held = load_checkpoint(model)
    state = {name: value * np.nan for name, value in held.state.items()}
    save_checkpoint(model, Checkpoint(state, held.settings, held.standardisation, 7))
    refused("pasta", "synthesize", "--model", model, hospital.manifest, tmp_path / "out")


def test_brackets_in_a_path_are_shown_as_they_are(
    hospital: Hospital, tmp_path: Path, call: Callable[..., Outcome]
) -> None:
    output = tmp_path / "[data]" / "splits.tsv"
    assert call("pasta", "split", hospital.manifest, "--output", output).out.startswith(f"{output}: ")
