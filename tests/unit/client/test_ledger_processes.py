# SPDX-License-Identifier: Apache-2.0
"""A privacy ledger when processes are killed, or ask it at once."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client.spending import LedgerLog, Limit
from pasta_model.console import run_command
from pasta_model.errors import BudgetError
from tests.support.accounting import remember
from tests.support.ledgers import (
    DELTA,
    PEOPLE,
    STEP,
    content,
    opened,
    oracle,
    release,
    reserve,
    spent,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def each_history_is_accounted_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A ledger of a run of two rounds."""
    ledger = opened(tmp_path)
    ledger.note_plan("first", PEOPLE, {"noise_multiplier": 1.1})
    for number in range(2):
        release(ledger, f"task-{number}", number=number)
    return tmp_path


class Killed(BaseException):
    """Stands in for kill -9."""


@contextmanager
def killed_while_writing(folder: Path, *, left: int | None) -> Iterator[None]:
    """Kill the block at the first line that it would write, after so many bytes of it; None: after all."""
    before, heads, real = (folder / "ledger.jsonl").read_bytes(), [], LedgerLog._write_head

    def only_announce(self: LedgerLog, head: object) -> None:
        heads.append(head)
        if len(heads) == 2:
            raise Killed
        real(self, head)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LedgerLog, "_write_head", only_announce)
        with pytest.raises(Killed):
            yield
    line = (folder / "ledger.jsonl").read_bytes()[len(before) :]
    (folder / "ledger.jsonl").write_bytes(before + line[: len(line) if left is None else left])


@pytest.mark.parametrize("left", [0, 1, 40, -1, None])
class TestKilledWhileWriting:
    def test_a_reservation(self, folder: Path, left: int | None) -> None:
        before = spent(opened(folder))
        with killed_while_writing(folder, left=left):
            reserve(opened(folder), "9")
        # Whether it is there or not: nothing was trained, and the same task goes on.
        assert spent(opened(folder)) >= before
        release(opened(folder), "9")
        assert spent(opened(folder)) == pytest.approx(oracle(STEP, STEP, STEP), rel=1e-9)
        release(opened(folder), "9")
        assert spent(opened(folder)) == pytest.approx(oracle(STEP, STEP, STEP, STEP), rel=1e-9)
        assert opened(folder).chain.holds
        assert not opened(folder).chain.torn

    def test_that_something_was_released(self, folder: Path, left: int | None) -> None:
        """The answer is kept by now, and leaves when it is asked for again, which is noted then."""
        reserve(opened(folder), "9")
        with killed_while_writing(folder, left=left):
            opened(folder).note_released("9")
        opened(folder).note_released("9")  # it leaves
        release(opened(folder), "8")
        release(opened(folder), "9")
        assert spent(opened(folder)) == pytest.approx(oracle(*[STEP] * 5), rel=1e-9)


HOLDER = """
import sys
from pathlib import Path
from client.ledger import Ledger
folder = Path(sys.argv[1])
ledger = Ledger(folder / "ledger.jsonl", site="alder", witness=folder / "store" / "state" / "ledger.json")
with ledger.alone():
    print("holds it", flush=True)
    sys.stdin.read()
"""


def test_second_process_is_told_once_and_spends_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import typer

    app, ledger, before = typer.Typer(), opened(folder), content(folder)

    @app.command()
    def train() -> None:
        with ledger.alone():
            reserve(ledger, "9")

    words = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holds it\n"
        monkeypatch.setattr(sys, "argv", ["train"])
        with pytest.raises(SystemExit) as stop:
            run_command(app)
        assert stop.value.code == 2
        said = capsys.readouterr()
        assert said.out == ""
        wanted = (
            f"error: {folder / 'ledger.jsonl'}: another run trains on these data now; two at once cannot"
            " both be told what is left. Nothing was spent; wait until it is done"
        )
        assert said.err.splitlines() == [wanted]
        assert content(folder) == before
        holder.kill()  # its lock dies with it
    with ledger.alone():
        reserve(ledger, "9")


def test_what_another_process_wrote_meanwhile_counts(folder: Path) -> None:
    waiting, limit = opened(folder), Limit(1.01 * oracle(STEP, STEP, STEP), DELTA)
    release(opened(folder), "8")
    with waiting.alone(), pytest.raises(BudgetError):
        reserve(waiting, "9", limits=[limit])
