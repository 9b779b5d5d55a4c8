# SPDX-License-Identifier: Apache-2.0
"""Several processes for work on many subjects: one thread each; they end with the parent."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from threading import Thread

from pasta_model.errors import MemoryShortageError

WATCH_SECONDS = 0.5


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes; drop what is left to do when one fails or on Ctrl-C.

    Raises
    ------
    MemoryShortageError
        When a process is killed: by the system, as memory runs out.
    """
    with _single_threaded():
        pool = ProcessPoolExecutor(
            max_workers=workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)
        )
        try:
            yield pool
        except BrokenProcessPool as error:
            raise MemoryShortageError(
                f"one of {workers} worker processes was killed, most likely as memory ran out; use fewer"
                " --workers, or a smaller batch, and run the same command again"
            ) from error
        except BaseException:  # Ctrl-C: what is half done is not waited for
            for child in active_children():
                child.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Let child processes use one thread each: two libraries' pools would fight for the cores."""
    names = (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    )
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin(parent: int) -> None:
    """Leave Ctrl-C to the parent, which ends the processes, and never outlive it.

    A parent that is killed ends nobody: a process that worked on would write where the next run writes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with, args=(parent,), daemon=True, name="parent").start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)
