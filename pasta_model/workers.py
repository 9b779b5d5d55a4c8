# SPDX-License-Identifier: Apache-2.0
"""Several processes for work on many subjects: one thread each, Ctrl-C heard by the parent alone."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes; drop what is left to do when one fails or on Ctrl-C."""
    with _single_threaded():
        pool = ProcessPoolExecutor(
            max_workers=workers, mp_context=get_context("spawn"), initializer=_ignore_interrupt
        )
        try:
            yield pool
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


def _ignore_interrupt() -> None:
    """Leave Ctrl-C to the parent, which ends the processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
