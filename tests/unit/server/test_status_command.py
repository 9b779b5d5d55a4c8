# SPDX-License-Identifier: Apache-2.0
"""`pasta-server status` and `rounds`: what a coordinator reads while a run goes on, and after."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from pasta_model.errors import FederationError
from server.commands.status import headline, rounds, sites_table, status

NOW = 10_000.0
RUNNING = {
    "run": "first",
    "state": "training",
    "round": 3,
    "rounds": 13,
    "round_seconds": [60.0, 60.0, 900.0],
    "waiting_for": [],
    "time": NOW - 65,
    "sites": {
        "alder": {
            "state": "answered",
            "since": NOW - 30,
            "round": 3,
            "subjects": 40,
            "bytes_up": 2.5e6,
            "bytes_down": 1e6,
        },
        "birch": {"state": "asked", "since": NOW - 1700, "round": 3},
        "cedar": {"state": "asked", "since": NOW - 1900, "round": 3},
        "dogwood": {
            "state": "failed",
            "since": NOW - 7300,
            "round": 2,
            "why": "[/x] StoreError (reference ab)",
        },
    },
}


def shown(table) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    lines = [line for line in console.file.getvalue().splitlines() if "│" in line]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_headline_tells_round_time_to_go_and_silence() -> None:
    # ten rounds to go, a minute each: the one that waited 15 minutes says little about the next
    assert headline(RUNNING, now=NOW) == [
        "run first: training, round 3 of 13",
        "about 10 min 00 s to go (1 min 00 s a round)",
        "last change 1 min 05 s ago",
    ]


def test_headline_names_whom_it_waits_for() -> None:
    waiting = {**RUNNING, "state": "waiting for sites", "waiting_for": ["birch", "cedar"]}
    assert "waiting for: birch, cedar" in headline(waiting, now=NOW)


def test_headline_of_a_run_that_is_over_says_why_and_promises_nothing() -> None:
    failed = {**RUNNING, "state": "failed", "why": "round 3: 1 usable answer(s)"}
    assert headline(failed, now=NOW) == [
        "run first: failed, round 3 of 13",
        "round 3: 1 usable answer(s)",
    ]


def test_table_says_who_is_late_how_many_bytes_and_why_one_failed() -> None:
    rows = shown(sites_table(RUNNING, now=NOW))
    assert rows == [
        ["alder", "answered", "30 s", "3", "40", "1.0", "2.5", ""],
        ["birch", "asked", "28 min 20 s", "3", "-", "0.0", "0.0", ""],
        ["cedar", "late", "31 min 40 s", "3", "-", "0.0", "0.0", ""],  # twice the slowest round is 30 minutes
        ["dogwood", "failed", "2 h 01 min", "2", "-", "0.0", "0.0", "[/x] StoreError (reference ab)"],
    ]


def test_command_prints_what_lies_in_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "status.json").write_text(json.dumps(RUNNING))
    status(tmp_path)
    said = capsys.readouterr().out
    assert "run first: training, round 3 of 13" in said
    assert "cedar" in said
    status(tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out) == RUNNING


def test_watching_ends_with_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "status.json").write_text(json.dumps({**RUNNING, "state": "finished"}))
    status(tmp_path, watch=True)
    assert "finished" in capsys.readouterr().out


@pytest.mark.parametrize("command", [status, rounds])
def test_folder_that_is_no_run(tmp_path: Path, command) -> None:
    with pytest.raises(FederationError, match=r"no \w+\.jsonl? here; give the run's output folder"):
        command(tmp_path)


@pytest.mark.parametrize(("command", "name"), [(status, "status.json"), (rounds, "history.jsonl")])
def test_damaged_file(tmp_path: Path, command, name: str) -> None:
    (tmp_path / name).write_text("{half")
    with pytest.raises(FederationError, match=f"{name} is damaged"):
        command(tmp_path)


def test_rounds_show_who_failed_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = {
        "round": 0,
        "loss": {"alder": 1.0, "birch": 2.0},
        "valid_mae": {"alder": 0.2},  # birch keeps it back
        "norms": {"alder": 1.0, "birch": 1.0},
        "failures": {"cedar": "[/x] not connected"},
        "seconds": 12.34,
        "bytes": 3_000_000,
    }
    (tmp_path / "history.jsonl").write_text(json.dumps(record) + "\n")
    rounds(tmp_path)
    said = capsys.readouterr().out
    for word in ("1.5000", "0.2000", "12.3", "3.0", "cedar:", "[/x]", "connected"):
        assert word in said
