# SPDX-License-Identifier: Apache-2.0
"""What every command line does when memory runs out, and at Ctrl-C: one message, and its exit status."""

import os
from collections.abc import Iterator

import click
import pytest
import torch
import typer

import client.cli
import pasta_model.cli
import server.cli
import simulation.cli
from pasta_model.console import resumable, run_command
from pasta_model.errors import ConfigError
from pasta_model.workers import process_pool


def _app(failure: BaseException | None) -> typer.Typer:
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


GO_ON = {
    "pasta": {"prepare", "synthesize", "diagnose"},
    "pasta-client": {"start"},
    "pasta-server": {"add-site", "renew-site", "renew-server", "revoke-site", "superlink", "run"},
    "pasta-sim": {"demo", "study"},
}
BEGIN_ANEW = {
    "pasta": {"plan", "validate", "split", "store", "info", "import-checkpoint", "evaluate"}
    | {f"attack {name}" for name in ("canaries", "membership", "memorisation", "inversion")}
    | {"familiarity build", "familiarity check", "norms build", "norms map"},
    "pasta-client": {"check", "approve", "audit", "budget", "combine", "show"},
    "pasta-server": {"provision", "status", "rounds"},
    "pasta-sim": {"cohort"},
}


class TestStopped:
    @staticmethod
    def _said(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> str:
        with pytest.raises(SystemExit) as stop:
            run_command(app)
        assert stop.value.code == 130
        return capsys.readouterr().err.strip()

    @pytest.mark.parametrize("failure", [KeyboardInterrupt(), click.Abort()])
    def test_a_command_that_keeps_nothing_says_so(self, failure, capsys) -> None:
        assert self._said(_app(failure), capsys) == "stopped; nothing was written"

    @pytest.mark.parametrize("failure", [KeyboardInterrupt(), click.Abort()])
    def test_a_resumable_one_says_how_to_go_on(self, failure, capsys) -> None:
        app = typer.Typer()

        @app.command()
        @resumable
        def work(often: int = 1) -> None:
            assert often == 1, "options are passed on"
            raise failure

        assert self._said(app, capsys) == "stopped; the same command goes on from here"

    def test_mistakes_of_a_resumable_one_are_told_as_ever(self, capsys) -> None:
        app = typer.Typer()

        @app.command()
        @resumable
        def work() -> None:
            raise ConfigError("no such folder")

        with pytest.raises(SystemExit) as stop:
            run_command(app)
        assert stop.value.code == 2
        assert capsys.readouterr().err == "error: no such folder\n"

    @pytest.mark.parametrize("name", GO_ON)
    def test_every_command_line_tells_which_go_on(self, name: str) -> None:
        """A new command belongs in one of the two lists: does it write all at its end, or bit by bit?"""
        line = {"pasta": pasta_model.cli, "pasta-client": client.cli, "pasta-server": server.cli}
        app = line.get(name, simulation.cli).app
        found = dict(_commands(app))
        assert {command for command, goes_on in found.items() if goes_on} == GO_ON[name]
        assert {command for command, goes_on in found.items() if not goes_on} == BEGIN_ANEW[name]


def _commands(app: typer.Typer, before: str = "") -> Iterator[tuple[str, bool]]:
    """Yield each command, with whether it is declared resumable."""
    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        yield before + name, hasattr(command.callback, "__wrapped__")
    for group in app.registered_groups:
        yield from _commands(group.typer_instance, f"{group.name} ")
