# SPDX-License-Identifier: Apache-2.0
"""A file that only grows: JSON lines, each chained to the one before by SHA-256.

A line ends with the hash of all that stands before it in the line, the hash of the line before included.
The head file beside the log says how many lines there are and the last hash, so a missing end is seen, too.
A line is announced in the head before it is written and settled after: a process that is killed in between
leaves a torn or an unsettled line, and neither looks like a line that somebody took away.

The chain shows a change to whoever has noted the head's hash elsewhere: who can write in the folder can also
write both files anew.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pasta_model.errors import PastaError

Entry = dict[str, Any]
_MARK = b',"hash":"'


@dataclass(frozen=True)
class Head:
    """What the head file says: settled lines, their bytes, the last hash, and that of an announced line."""

    lines: int
    bytes: int
    hash: str
    announced: str = ""


@dataclass(frozen=True)
class Chain:
    """What a look at the whole log found.

    Attributes
    ----------
    broken_line, reason
        The first line that breaks the chain, counted from 1, and why; None and empty when it holds.
    torn
        A process was killed while it wrote the last line; the next one that writes keeps it aside.
    """

    lines: int
    hash: str
    broken_line: int | None = None
    reason: str = ""
    torn: bool = False

    @property
    def holds(self) -> bool:
        """Whether nothing was changed, added or taken away."""
        return self.broken_line is None


class ChainedLog:
    """A chained log; several processes may write to it.

    Parameters
    ----------
    path
        The JSON lines; `.head`, `.lock` and `.torn` are added to its name for the files beside it.
    whose
        What the chain begins with, so that one log cannot be taken for another.
    """

    error: type[PastaError] = PastaError
    unwritable = "nothing is done until it can"
    remedy = "keep it and its head aside to begin another"
    without_head = "put it back, or keep the log aside to begin another"

    def __init__(self, path: Path, *, whose: str) -> None:
        self.path = path
        self.first = hashlib.sha256(whose.encode()).hexdigest()
        self._head, self._lock, self._torn = (
            path.with_name(path.name + end) for end in (".head", ".lock", ".torn")
        )

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line; it is on the disk when this returns.

        Raises
        ------
        PastaError
            When it cannot be written, or what is there is not what was written last.
        """
        try:
            with self._locked(), self.path.open("a+b") as log:
                self.path.chmod(0o600)
                head = self._settled(log, self._read_head())
                self._write(log, head, entry)
        except OSError as error:
            raise self.error(
                f"{self.path}: cannot be written ({error.strerror or error}); {self.unwritable}"
            ) from error

    def entries(self) -> Iterator[Entry]:
        """Yield every line that can be read, oldest first, without a look at the chain."""
        for line in _lines(self.path):
            with suppress(ValueError):
                if isinstance(entry := json.loads(line), dict):
                    yield entry

    def verify(self) -> Chain:
        """Read the whole log and compare it with its chain and its head; nothing is written.

        Raises
        ------
        PastaError
            When it cannot be read.
        """
        try:
            with self._locked():
                return self._verify(self._read_head())
        except OSError as error:
            raise self.error(f"{self.path}: cannot be read ({error.strerror or error})") from error

    def _verify(self, head: Head) -> Chain:
        last, number = self.first, 0
        for number, line in enumerate(_lines(self.path), start=1):
            if not line.endswith(b"\n"):
                if number == head.lines + 1 and head.announced:
                    return self._compared(Chain(number - 1, last, torn=True), head)
                return Chain(number - 1, last, number, "it has no end")
            found, reason = _checked(line, last)
            if reason:
                return Chain(number - 1, last, number, reason)
            last = found
        return self._compared(Chain(number, last), head)

    def _compared(self, chain: Chain, head: Head) -> Chain:
        """Compare a chain that holds in itself with what the head says."""
        settled = (head.lines, head.hash)
        announced = (head.lines + 1, head.announced)
        if (chain.lines, chain.hash) in (settled, announced):
            return chain
        if chain.lines < head.lines:
            return Chain(
                chain.lines, chain.hash, chain.lines + 1, f"it is missing: {head.lines} lines were written"
            )
        number = min(chain.lines, head.lines + 1) or 1
        return Chain(chain.lines, chain.hash, number, "it is not what the log's head says")

    def _settled(self, log: BinaryIO, head: Head) -> Head:
        """Bring log and head together after a killed process; refuse what no killed process leaves."""
        log.seek(head.bytes)
        rest, size = log.read(), log.seek(0, os.SEEK_END)
        if size == head.bytes:
            return head
        if head.announced and _checked(rest, head.hash)[0] == head.announced:
            return Head(head.lines + 1, size, head.announced)
        if not head.announced or size < head.bytes or b"\n" in rest:
            raise self.error(
                f"{self.path}: found {size} bytes where {head.bytes} were written; somebody changed the log."
                f" Look who it was; {self.remedy}"
            )
        with self._torn.open("ab") as aside:
            aside.write(rest + b"\n")
            _flush(aside)
        log.truncate(head.bytes)
        _flush(log)
        note = {"event": "torn", "bytes": len(rest), "content": hashlib.sha256(rest).hexdigest()}
        return self._write(log, Head(head.lines, head.bytes, head.hash), note)

    def _write(self, log: BinaryIO, head: Head, entry: Mapping[str, Any]) -> Head:
        """1. Announce, 2. write, 3. settle."""
        stamped = {"number": head.lines + 1, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        text = json.dumps({**stamped, **entry, "before": head.hash}, ensure_ascii=True, separators=(",", ":"))
        body = text[:-1].encode()
        digest = hashlib.sha256(body).hexdigest()
        line = body + _MARK + digest.encode() + b'"}\n'
        self._write_head(Head(head.lines, head.bytes, head.hash, digest))
        log.seek(0, os.SEEK_END)
        log.write(line)
        _flush(log)
        settled = Head(head.lines + 1, head.bytes + len(line), digest)
        self._write_head(settled)
        return settled

    def _read_head(self) -> Head:
        try:
            return Head(**json.loads(self._head.read_text(encoding="utf-8")))
        except FileNotFoundError:
            if self.path.exists() and self.path.stat().st_size:
                raise self.error(
                    f"{self._head}: is missing, so nobody can say whether the log is whole;"
                    f" {self.without_head}"
                ) from None
            return Head(0, 0, self.first)
        except (ValueError, TypeError) as error:
            raise self.error(f"{self._head}: is damaged; {self.remedy}") from error

    def _write_head(self, head: Head) -> None:
        temporary = self._head.with_name(self._head.name + ".partial")
        with temporary.open("wb") as file:
            temporary.chmod(0o600)
            file.write(json.dumps(asdict(head)).encode() + b"\n")
            _flush(file)
        temporary.replace(self._head)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time read and write."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _lines(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as log:
            yield from log


def _checked(line: bytes, before: str) -> tuple[str, str]:
    """Return the hash of a line, and what is wrong with it."""
    body, mark, _ = line.rpartition(_MARK)
    digest = hashlib.sha256(body).hexdigest()
    if not mark or line != body + _MARK + digest.encode() + b'"}\n':
        return "", "it was changed after it was written"
    if not body.endswith(f'"before":"{before}"'.encode()):
        return "", "it does not follow the line before it"
    return digest, ""


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
