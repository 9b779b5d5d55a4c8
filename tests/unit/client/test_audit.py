# SPDX-License-Identifier: Apache-2.0
"""The log of exchanges: what is done to it later is noticed; a killed process is not mistaken for that."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.audit import AuditLog
from pasta_model.errors import AuditError

LINES = 6


def a_log(folder: Path, *, lines: int = LINES, name: str = "audit.jsonl") -> AuditLog:
    log = AuditLog(folder / name, site="alder", consortium="north-sea")
    for number in range(lines):
        log.append({"event": "sent", "round": number, "site": "Ålder"})
    return log


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return a_log(tmp_path)


def lines_of(log: AuditLog) -> list[bytes]:
    return log.path.read_bytes().splitlines(keepends=True)


def head_of(log: AuditLog) -> Path:
    return log.path.with_name("audit.jsonl.head")


def rewritten(line: bytes, **changes: object) -> bytes:
    """A line as somebody would write it who knows how the hash of a line is made."""
    import hashlib

    entry = json.loads(line)
    del entry["hash"]
    before = entry.pop("before")
    body = json.dumps({**entry, **changes, "before": before}, separators=(",", ":"))[:-1].encode()
    return body + b',"hash":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def test_a_log_that_nobody_touched_holds(log: AuditLog) -> None:
    chain = log.verify()
    assert chain.holds
    assert chain.lines == LINES
    assert chain.hash == json.loads(lines_of(log)[-1])["hash"]
    assert [entry["round"] for entry in log.entries()] == list(range(LINES))
    assert [entry["number"] for entry in log.entries()] == list(range(1, LINES + 1))


def test_only_the_owner_reads_it(log: AuditLog) -> None:
    assert log.path.stat().st_mode & 0o077 == 0


def test_a_log_of_nothing_holds(tmp_path: Path) -> None:
    assert AuditLog(tmp_path / "audit.jsonl", site="a", consortium="b").verify().lines == 0


def test_a_log_of_another_site_does_not_hold(log: AuditLog) -> None:
    chain = AuditLog(log.path, site="birch", consortium="north-sea").verify()
    assert chain.broken_line == 1


positions = st.integers(0, LINES - 1)


@st.composite
def tamperings(draw: st.DrawFn) -> Callable[[list[bytes]], list[bytes]]:
    """Edit a byte, edit with a fresh hash, delete, swap, insert or repeat a line, cut the end."""
    at, other = draw(positions), draw(positions)
    place, byte = draw(st.integers(0, 150)), draw(st.integers(0, 255))
    kind = draw(st.sampled_from(["byte", "rewrite", "delete", "swap", "repeat", "forge", "cut"]))

    def change(lines: list[bytes]) -> list[bytes]:
        changed = list(lines)
        if kind == "byte":
            line = bytearray(changed[at])
            line[place] = byte
            changed[at] = bytes(line)
        elif kind == "rewrite":
            changed[at] = rewritten(changed[at], round=99)
        elif kind == "delete":
            del changed[at]
        elif kind == "swap":
            changed[at], changed[other] = changed[other], changed[at]
        elif kind == "repeat":
            changed.insert(at, changed[other])
        elif kind == "forge":
            changed.insert(at + 1, rewritten(changed[at], before="0" * 64))
        else:
            changed = changed[:at]
        return changed

    return change


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> AuditLog:
    return a_log(tmp_path_factory.mktemp("audit"))


@given(tampering=tamperings())
def test_whatever_is_done_to_a_line_is_noticed(intact: AuditLog, tampering) -> None:
    whole = intact.path.read_bytes()
    try:
        changed = b"".join(tampering(lines_of(intact)))
        intact.path.write_bytes(changed)
        assert intact.verify().holds == (changed == whole)
    finally:
        intact.path.write_bytes(whole)
        assert intact.verify().holds


def test_it_names_the_line(log: AuditLog) -> None:
    lines = lines_of(log)
    log.path.write_bytes(b"".join([*lines[:2], lines[2].replace(b"sent", b"kept"), *lines[3:]]))
    assert log.verify().broken_line == 3
    log.path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    assert log.verify().broken_line == 3
    log.path.write_bytes(b"".join([*lines[:2], rewritten(lines[2], event="kept"), *lines[3:]]))
    assert log.verify().broken_line == 4  # line 3 is whole in itself: 4 no longer follows it
    log.path.write_bytes(b"".join(lines[:-2]))
    assert log.verify().broken_line == LINES - 1
    assert "6 lines were written" in log.verify().reason


def test_a_line_that_follows_but_was_never_announced_is_noticed(log: AuditLog) -> None:
    head = head_of(log).read_bytes()
    log.append({"event": "sent"})
    head_of(log).write_bytes(head)
    assert log.verify().broken_line == LINES + 1
    with pytest.raises(AuditError, match="somebody changed the log"):
        log.append({"event": "sent"})


def test_nothing_is_written_to_a_log_without_its_head(log: AuditLog) -> None:
    head_of(log).unlink()
    with pytest.raises(AuditError, match="is missing"):
        log.append({"event": "sent"})
    with pytest.raises(AuditError, match="is missing"):
        log.verify()


def test_nothing_is_written_to_a_log_that_was_cut(log: AuditLog) -> None:
    log.path.write_bytes(b"".join(lines_of(log)[:-1]))
    with pytest.raises(AuditError, match="somebody changed the log"):
        log.append({"event": "sent"})


class Killed(BaseException):
    """Stands in for kill -9."""


@pytest.mark.parametrize("written", [0, 1, 40, -1, None])
def test_a_process_killed_while_it_writes_is_not_a_broken_chain(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch, written: int | None
) -> None:
    whole = log.path.read_bytes()
    heads: list[object] = []
    settle = AuditLog._write_head

    def only_announce(self: AuditLog, head: object) -> None:
        heads.append(head)
        if len(heads) == 2:  # announced; written; killed before it was settled
            raise Killed
        settle(self, head)

    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, "_write_head", only_announce)
        with pytest.raises(Killed):
            log.append({"event": "sent", "round": LINES})
    line = log.path.read_bytes()[len(whole) :]
    torn = line[: len(line) if written is None else written]
    log.path.write_bytes(whole + torn)
    chain = log.verify()
    assert chain.holds
    assert chain.torn == (torn not in (b"", line))
    log.append({"event": "received"})
    chain = log.verify()
    assert chain.holds
    assert not chain.torn
    events = [entry["event"] for entry in log.entries()][LINES:]
    aside = log.path.with_name("audit.jsonl.torn")
    if written is None:
        assert events == ["sent", "received"]
    elif written == 0:
        assert events == ["received"]
    else:
        assert events == ["torn", "received"]
        assert aside.read_bytes() == torn + b"\n"


def test_half_a_line_that_nobody_announced_is_not_a_killed_process(log: AuditLog) -> None:
    with log.path.open("ab") as file:
        file.write(b'{"number":7')
    assert log.verify().broken_line == LINES + 1
    with pytest.raises(AuditError):
        log.append({"event": "sent"})


def _write_many(path: Path) -> None:
    log = AuditLog(path, site="alder", consortium="north-sea")
    for _ in range(20):
        log.append({"event": "sent"})


def test_two_processes_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(path,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    chain = AuditLog(path, site="alder", consortium="north-sea").verify()
    assert chain.holds
    assert chain.lines == 40


def test_a_log_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(AuditError, match="cannot be written"):
        a_log(tmp_path, lines=1)
