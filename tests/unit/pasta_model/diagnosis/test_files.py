# SPDX-License-Identifier: Apache-2.0
"""The table of rows comes back as it went."""

from pathlib import Path

import pytest

from pasta_model.diagnosis.files import read_predictions, read_rows, write_predictions, write_rows
from pasta_model.diagnosis.results import DiagnosisRow, Prediction
from pasta_model.diagnosis.scores import unavailable_row
from pasta_model.errors import ManifestError
from pasta_model.evaluation.estimates import Estimate

ROWS = [
    DiagnosisRow(
        "CN / Dementia", "network", "MRI", "MRI", 9, *(Estimate(v, v / 3, 1.0) for v in (0.5, 0.7, 0.9))
    ),
    unavailable_row(
        ("CN / MCI / Dementia", "regions", "a", "a"), subjects=4, why="only CN and MCI are there"
    ),
]


def test_rows_come_back(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.tsv", ROWS)
    assert read_rows(tmp_path / "rows.tsv") == ROWS


def test_predictions_come_back(tmp_path: Path) -> None:
    path = tmp_path / "predictions.tsv"
    found = [
        Prediction("CN / Dementia", "network", "MRI", "MRI", 2, "rid:1", "bl", "A", "CN", (0.25, 0.75)),
        Prediction("CN / MCI / Dementia", "regions", "a", "b", 0, "p", "", "B", "MCI", (0.1, 0.2, 0.7)),
    ]
    write_predictions(path, found)
    assert read_predictions(path) == found
    path.write_text(path.read_text().replace("0.25", "2.5").replace("\tMCI\t", "\tLMCI\t"))
    with pytest.raises(ManifestError, match="2 problem") as caught:
        read_predictions(path)
    assert "line 2: found probabilities (2.5, 0.75)" in str(caught.value)
    path.write_text("a\tb\n1\t2\n")
    with pytest.raises(ManifestError, match="found columns"):
        read_predictions(path)


def test_bad_rows_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    write_rows(path, ROWS)
    path.write_text(path.read_text().replace("\t9\t0.5", "\tnine\t0.5").replace("not available", "nan", 1))
    with pytest.raises(ManifestError, match="2 problem") as caught:
        read_rows(path)
    assert "line 2: invalid literal" in str(caught.value)
    assert "line 3: found nan" in str(caught.value)
    path.write_text("a\tb\n1\t2\n")
    with pytest.raises(ManifestError, match="found columns"):
        read_rows(path)
    with pytest.raises(ManifestError, match="run 'pasta diagnose' first"):
        read_rows(tmp_path / "nowhere.tsv")
