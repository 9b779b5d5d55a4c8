# SPDX-License-Identifier: Apache-2.0
"""A process that writes the log, killed for real at random moments: the chain holds every time."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from client.audit import AuditLog

pytestmark = [pytest.mark.integration, pytest.mark.slow]

KILLS = 15
ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from pathlib import Path
from client.audit import AuditLog
log = AuditLog(Path(sys.argv[1]), site="alder", consortium="north-sea")
while True:
    log.append({"event": "sent", "values": ["x" * 3000]})
    print("written", flush=True)
"""


def test_the_chain_holds_after_every_kill(tmp_path: Path) -> None:
    path, moments, seen = tmp_path / "audit.jsonl", random.Random(5), 0
    log = AuditLog(path, site="alder", consortium="north-sea")
    for _ in range(KILLS):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "written\n"
            time.sleep(moments.uniform(0, 0.05))
            writer.send_signal(signal.SIGKILL)
            told = 1 + writer.stdout.read().count("written")
        chain = log.verify()
        assert chain.holds, chain
        assert chain.lines >= seen + told, "a line that was written is gone"
        seen = chain.lines
    log.append({"event": "sent"})
    assert log.verify().holds
    assert not log.verify().torn
    numbers = [entry["number"] for entry in log.entries()]
    assert numbers == list(range(1, len(numbers) + 1))
