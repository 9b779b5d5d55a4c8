# SPDX-License-Identifier: Apache-2.0
"""Scenery of the integration tests: a cohort small enough for seconds, and who is still running."""

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from simulation.twins.cohort import CohortSettings, SiteSettings

MARK = "PASTA_TEST"
THIRDS = (0.34, 0.33, 0.33)
COHORT = CohortSettings(
    seed=5,
    sites=tuple(SiteSettings(name=name, subjects=6, mix=THIRDS) for name in ("alder", "birch", "cedar")),
)


@pytest.fixture
def left_behind(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Mark the environment of all that is started from here on; return what of it does not end.

    Children inherit the mark whoever adopts them, so a process that lost its parent is found too.
    """
    mark = f"{MARK}={uuid.uuid4().hex}"
    monkeypatch.setenv(*mark.split("="))

    def marked() -> list[str]:
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if environ.parent.name != str(os.getpid()) and mark.encode() in environ.read_bytes():
                    command = (environ.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found.append(f"{environ.parent.name} {command}")
            except OSError:  # it has ended meanwhile
                continue
        return found

    def look(deadline_s: float = 30.0) -> list[str]:
        assert Path("/proc/self/environ").exists(), "only Linux shows the environment of a process"
        end = time.monotonic() + deadline_s
        while (found := marked()) and time.monotonic() < end:
            time.sleep(0.2)
        return found

    return look
