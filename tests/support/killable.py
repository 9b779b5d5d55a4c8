# SPDX-License-Identifier: Apache-2.0
"""A federation in a process of its own, to be killed at any moment and begun again.

The processes are forked from a server that has imported everything already, so that a kill meets the
federation and not the imports.
"""

import multiprocessing
import time
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from random import Random

from pasta_model.config import Scalar

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [__name__, "server.rounds", "simulation.direct", "torch.utils.tensorboard", "torch.optim.adamw"]
)
MOST_ATTEMPTS = 500


def federate(flat: Mapping[str, Scalar]) -> None:
    """Run a federation of the sites under `data.sites` to its end, or on to it."""
    import torch

    import client.site
    from pasta_model.config import settings_from_flat
    from server.rounds import Federation
    from simulation.direct import DirectPost

    torch.set_num_threads(1)
    client.site.MIN_VALUES = 1  # the sites are small
    settings = settings_from_flat(flat)
    Federation(DirectPost(settings, {"partition-id": 0, "num-partitions": 1}), settings).run()


def started(flat: Mapping[str, Scalar]) -> ForkServerProcess:
    """Start such a process."""
    process = CONTEXT.Process(target=federate, args=(dict(flat),))
    process.start()
    return process


def undisturbed(flat: Mapping[str, Scalar]) -> float:
    """Run to the end; return how many seconds that took."""
    start = time.monotonic()
    process = started(flat)
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - start


def harassed(flat: Mapping[str, Scalar], *, random: Random, longest_s: float) -> int:
    """Run to the end, killed with SIGKILL after random times again and again; return how often.

    A process that ends by itself before its time must have completed: a crash is a failure.
    """
    for kills in range(MOST_ATTEMPTS):
        process = started(flat)
        process.join(random.uniform(0, longest_s))
        process.kill()
        process.join()
        if process.exitcode == 0:
            return kills
        assert process.exitcode == -9, f"after {kills} kills it ended with exit status {process.exitcode}"
    raise AssertionError(f"{MOST_ATTEMPTS} kills, and no end")
