# SPDX-License-Identifier: Apache-2.0
"""What is normal, and which MRI is familiar, from sums that the training sites send: as in a federation.

The sites are asked with the messages of a run and answer by its rules; a site with too few persons sends
nothing. A study that is run again gets the answers that were given before.
"""

from pathlib import Path

from pasta_model.data.store import SiteStore
from pasta_model.errors import ExchangeError, FederationError
from pasta_model.exchange.contents import REFERENCE, Parcel
from pasta_model.exchange.reference import ReferenceReport, ReferenceTask
from pasta_model.familiarity.model import Familiarity
from pasta_model.familiarity.sums import FeatureSums
from pasta_model.federated_sections import Reference
from pasta_model.norms.model import Norms
from pasta_model.norms.sums import NormSums
from simulation.direct import DirectPost
from simulation.study.cohort import People
from simulation.study.settings import StudySettings


def federated_norms(study: StudySettings, found: People, folder: Path) -> Norms:
    """Return norms of the training sites' cognitively normal training persons.

    Raises
    ------
    FederationError
        When no site sends sums, with the reasons.
    ConfigError
        When all together are too few persons, or of one age.
    """
    told = {name: sums for name, sums in _asked("norms", study, found, folder) if isinstance(sums, NormSums)}
    return Norms.of(NormSums.pool(list(told.values())), sites=tuple(told))


def federated_familiarity(study: StudySettings, found: People, folder: Path) -> Familiarity:
    """Return what the MRIs of the training sites' training persons are like.

    Raises
    ------
    FederationError
        When no site sends sums, or all together are too few persons.
    """
    told = [s for _, s in _asked("familiarity", study, found, folder) if isinstance(s, FeatureSums)]
    spacing = SiteStore(folder / "sites" / found.training[0]).template.head.spacing
    return Familiarity.of(FeatureSums.pool(told), spacing=spacing)


def _asked(
    what: Reference, study: StudySettings, found: People, folder: Path
) -> list[tuple[str, NormSums | FeatureSums]]:
    """Ask every training site; return the sums of those that send them, by site."""
    settings = study.settings_of(
        study.chosen()[study.methods[0]], federation_reference="both", privacy_unit="none",
        run_name="reference", data_sites=str(folder / "sites"),
    )  # fmt: skip
    post = DirectPost(settings, {"partition-id": 0, "num-partitions": 1})
    tasks = {site: (1, ReferenceTask(site, what).parcel()) for site in found.training}
    sums, refused = [], {}
    for site, reply in post.ask(tasks, REFERENCE):
        try:
            sums.append((site, _sums(reply)))
        except ExchangeError as error:
            refused[site] = str(error)
    if not sums:
        raise FederationError(
            f"no site sends sums for {what}: " + "; ".join(f"{s}: {why}" for s, why in refused.items())
        )
    return sums


def _sums(reply: Parcel | str) -> NormSums | FeatureSums:
    if isinstance(reply, str):
        raise ExchangeError(reply)
    return ReferenceReport.of(reply).sums
