# SPDX-License-Identifier: Apache-2.0
"""Processes that we start, and what they start in turn: find a port, stop them all."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

GRACE_S = 5.0
_LAST_WAIT_S = 10.0
_POLL_S = 0.2


def free_port() -> int:
    """Return a TCP port of this machine that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def descendants(pid: int) -> list[int]:
    """Return the processes that `pid` started, and theirs, children before grandchildren."""
    children = defaultdict(list)
    for child, parent in running().items():
        children[parent].append(child)
    found = [pid]
    for known in found:  # grows while it is walked
        found += children[known]
    return found[1:]


def stop_tree(process: subprocess.Popen[bytes], *, grace_s: float = GRACE_S) -> None:
    """Ask `process` to end and wait for its whole tree; kill what is left after `grace_s` seconds."""
    stop_trees([process], grace_s=grace_s)


def stop_trees(processes: Sequence[subprocess.Popen[bytes]], *, grace_s: float = GRACE_S) -> None:
    """Do the same to several at once."""
    trees = {pid for process in processes for pid in (process.pid, *descendants(process.pid))}
    for process in processes:
        if process.poll() is None:
            process.terminate()
    _wait_or_kill(trees, grace_s)
    for process in processes:
        process.wait()


def stop_stranger(pid: int, *, grace_s: float = GRACE_S) -> None:
    """Do the same to a process that somebody else started."""
    tree = {pid, *descendants(pid)}
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    _wait_or_kill(tree, grace_s)


def _wait_or_kill(tree: set[int], grace_s: float) -> None:
    deadline = time.monotonic() + grace_s
    while left := tree & running().keys():
        if time.monotonic() > deadline + _LAST_WAIT_S:
            break  # the kernel holds it: not even SIGKILL ends it now
        if time.monotonic() > deadline:
            _kill(left)
        time.sleep(_POLL_S)


def _kill(pids: set[int]) -> None:
    """Kill processes that did not end when they were asked to."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def running() -> dict[int, int]:
    """Return each process that runs on this machine with its parent; zombies are left out."""
    if Path("/proc/self/stat").exists():  # Linux, where `ps` need not be installed
        rows = list(_linux_rows())
    else:
        command = ["ps", "-A", "-o", "pid=,ppid=,stat="]
        listing = subprocess.run(command, capture_output=True, text=True, check=True)
        rows = [line.split()[:3] for line in listing.stdout.splitlines()]
    return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith(("Z", "X"))}


def command_lines() -> dict[int, str]:
    """Return the command line of each process that runs on this machine."""
    if Path("/proc/self/cmdline").exists():
        return dict(_linux_commands())
    listing = subprocess.run(["ps", "-A", "-o", "pid=,args="], capture_output=True, text=True, check=True)
    rows = (line.split(maxsplit=1) for line in listing.stdout.splitlines())
    return {int(row[0]): row[1] for row in rows if len(row) > 1}


def _linux_commands() -> Iterator[tuple[int, str]]:
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            yield int(cmdline.parent.name), cmdline.read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _linux_rows() -> Iterator[list[str]]:
    """Yield process, parent and state from the kernel's own table."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            # "pid (name) state parent ...", and a name may hold spaces and brackets
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            yield [stat.parent.name, parent, state]


@contextmanager
def terminate_as_exit() -> Iterator[None]:
    """Turn SIGTERM into `SystemExit` meanwhile, so that every `finally` of the caller runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
