# SPDX-License-Identifier: Apache-2.0
"""Every site's last model on every site's data: who profits from whom, and who would do better alone."""

import logging
from collections.abc import Callable, Mapping
from functools import cache

from pasta_model.exchange.steps import Step, walk
from pasta_model.exchange.vectors import digest
from pasta_model.files import write_json
from server.records import RunFolder
from server.spool import Spool

Way = Callable[[str], tuple[str, tuple[Step, ...]]]  # what a site holds -> a base, and the steps from it
Measure = Callable[[str, Way], Mapping[str, float]]  # target, the way to it -> SUVR error by site
logger = logging.getLogger(__name__)


def cross_evaluate(folder: RunFolder, last: int, measure: Measure) -> None:
    """Measure each site's last update on all sites; writes `cross-evaluation.json`.

    A site's model is what it received in the last round plus its update; sites that hold those weights are
    sent the update alone. Personal parts stay where they are: a row is the shared part of a site's model, a
    column is whose data, with that site's own personal parts.

    Parameters
    ----------
    folder
        Of the run.
    last
        The last round that was trained.
    measure
        Has all sites measure the weights that a way leads to.
    """
    spool = Spool.found(folder.answers(last), folder.sizes)
    if not spool.norms:
        logger.warning("the sites' last updates are gone; no cross-evaluation")  # the run had ended before
        return
    received = folder.reference(last)
    base = received.digest()
    matrix: dict[str, dict[str, float]] = {}
    whole = cache(lambda: Step("float32", dict(received.pieces())))
    for site in sorted(spool.norms):
        update = spool.update(site)

        def way(holds: str, update: Step = update) -> tuple[str, tuple[Step, ...]]:
            return (base, (update,)) if holds == base else ("", (whole(), update))

        matrix[site] = dict(measure(digest(walk(received.pieces(), [update], folder.sizes)), way))
    write_json(folder.path / "cross-evaluation.json", matrix)
