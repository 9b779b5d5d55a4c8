# SPDX-License-Identifier: Apache-2.0
"""What every command line does when memory runs out: one message, exit status 2."""

import os

import pytest
import torch
import typer

from pasta_model.console import run_command
from pasta_model.workers import process_pool


def _app(failure: Exception | None) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def work() -> None:
        if failure:
            raise failure
        with process_pool(2) as pool:
            pool.submit(os._exit, 9).result()  # as one that is killed

    return app


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["tool"])


def _status(failure: Exception | None) -> int:
    app = _app(failure)
    with pytest.raises(SystemExit) as stop:
        run_command(app)
    return int(stop.value.code or 0)


@pytest.mark.parametrize(
    "failure",
    [
        MemoryError("Unable to allocate 7 GiB"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee the manual"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    ],
)
def test_memory_that_runs_out_is_one_message(failure: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert _status(failure) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: memory ran out ({str(failure).splitlines()[0]}); use a smaller batch")
    assert said.count("\n") == 1


def test_a_killed_process_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert _status(None) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: one of 2 worker processes was killed")
    assert "fewer --workers, or a smaller batch" in said
    assert "Traceback" not in said


def test_our_own_mistakes_keep_their_traceback() -> None:
    app = _app(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        run_command(app)
