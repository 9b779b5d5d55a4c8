# SPDX-License-Identifier: Apache-2.0
"""Every site's last model on every site's data: who profits from whom, and who would do better alone."""

from collections.abc import Callable, Mapping

from pasta_model.exchange.steps import Step, walk
from pasta_model.exchange.vectors import digest
from pasta_model.files import write_json
from server.records import RunFolder
from server.spool import Spool

Measure = Callable[[str, str, Step], Mapping[str, float]]  # base, target, step -> SUVR error by site


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
        Has all sites measure the weights that a step leads to.
    """
    spool = Spool.found(folder.answers(last), folder.sizes)
    received = folder.reference(last)
    base = received.digest()
    matrix: dict[str, dict[str, float]] = {}
    for site in sorted(spool.norms):
        update = spool.update(site)
        target = digest(walk(received.pieces(), [update], folder.sizes))
        matrix[site] = dict(measure(base, target, update))
    write_json(folder.path / "cross-evaluation.json", matrix)
