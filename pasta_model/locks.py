# SPDX-License-Identifier: Apache-2.0
"""One at a time: a lock that the kernel lets go of when its holder ends, however it ends."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pasta_model.errors import BusyError, ConfigError

POLL_S = 0.2


@contextmanager
def only_one(target: Path, *, inside: bool = False, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of `target` meanwhile: a hidden file that stays.

    Parameters
    ----------
    target
        A file or folder that only one process may write; it need not be there yet.
    inside
        Whether the lock lies in the folder, which is made; else beside it, for a folder that is moved.
    wait_s
        Seconds that another holder may still take to end, for one that is ending already.

    Raises
    ------
    BusyError
        When another process holds it.
    ConfigError
        When the lock cannot be written.
    """
    target = target.absolute()
    place = target / ".lock" if inside else target.with_name(f".{target.name}.lock")
    with _opened(place) as handle:
        end = time.monotonic() + wait_s
        while not _taken(handle):
            if time.monotonic() > end:
                raise BusyError(f"{target}: another process is at work here; wait for it, or stop it first")
            time.sleep(POLL_S)
        yield


def _opened(place: Path) -> IO[str]:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        return place.open("w")
    except OSError as error:
        raise ConfigError(
            f"{place}: cannot be written ({error.strerror or error}); choose another place"
        ) from error


def _taken(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
