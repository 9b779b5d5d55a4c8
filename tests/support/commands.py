# SPDX-License-Identifier: Apache-2.0
"""A command line, run in this process, and what it left behind."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import client.cli
import pasta_model.cli
import server.cli
import simulation.cli

MAINS = {
    "pasta": pasta_model.cli.main,
    "pasta-client": client.cli.main,
    "pasta-server": server.cli.main,
    "pasta-sim": simulation.cli.main,
}


@dataclass(frozen=True)
class Outcome:
    """Exit status and both streams."""

    status: int
    out: str
    err: str


def run_pasta(
    words: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Outcome:
    """Run `pasta` with these words, in a terminal wide enough for long paths."""
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr(sys, "argv", ["pasta", *map(str, words)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        pasta_model.cli.main()
    streams = capsys.readouterr()
    return Outcome(int(stop.value.code or 0), streams.out, streams.err)


def everything(folder: Path) -> dict[str, bytes]:
    """All that lies in a folder, to see that nothing was written, changed or removed."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"a folder"
        for path in folder.rglob("*")
    }
