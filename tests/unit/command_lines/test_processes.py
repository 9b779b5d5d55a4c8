# SPDX-License-Identifier: Apache-2.0
"""Mistakes in a process of its own: exit status 2, and all of it told at once."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TYPOS = """
[training]
learning-rat = 0.1
batch-size = "four"

[federation]
rounds = 0
"""


@pytest.fixture
def typos(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "settings.toml"
    path.write_text(TYPOS)
    yield path
    assert path.read_text() == TYPOS


def start(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / str(words[0])), *map(str, words[1:])]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_typos_in_the_settings_of_the_demo_are_told_at_once(typos: Path, tmp_path: Path) -> None:
    said = start("pasta-sim", "demo", "--output", tmp_path / "demo", "--config", typos)
    assert said.returncode == 2, said
    assert said.stdout == ""
    assert said.stderr.splitlines() == [
        f"error: {typos}: the settings cannot be used: 3 problem(s)",
        "  - training.batch-size: found 'four', wanted a valid integer",
        "  - training.learning-rat: no such setting; did you mean 'training.learning-rate'?",
        "  - federation.rounds: found 0, wanted greater than 0",
    ]
    assert [path.name for path in tmp_path.iterdir()] == [typos.name]


def test_mistake_ends_a_process_with_status_2_and_one_line(tmp_path: Path) -> None:
    path = tmp_path / "nothing.tsv"
    said = start("pasta", "validate", path)
    assert said.returncode == 2
    assert said.stdout == ""
    wanted = f"error: {path}: cannot be read (No such file or directory); check the path\n"
    assert said.stderr == wanted
