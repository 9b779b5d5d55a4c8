# SPDX-License-Identifier: Apache-2.0
"""Scenery of the integration tests: who is still running."""

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

MARK = "PASTA_TEST"


@pytest.fixture
def left_behind(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Mark the environment of all that is started from here on; return what of it does not end.

    Children inherit the mark whoever adopts them, so a process that lost its parent is found too.
    """
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    return lambda: still_running(mark)


def still_running(mark: str, deadline_s: float = 30.0) -> list[str]:
    """Return the processes with this mark that do not end."""
    assert Path("/proc/self/environ").exists(), "only Linux shows the environment of a process"
    end = time.monotonic() + deadline_s
    while (found := _marked(f"{MARK}={mark}".encode())) and time.monotonic() < end:
        time.sleep(0.2)
    return found


def _marked(mark: bytes) -> list[str]:
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if environ.parent.name != str(os.getpid()) and mark in environ.read_bytes():
                command = (environ.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append(f"{environ.parent.name} {command}")
        except OSError:  # it has ended meanwhile
            continue
    return found
