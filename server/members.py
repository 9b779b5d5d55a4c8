# SPDX-License-Identifier: Apache-2.0
"""The members of a federation: invited sites that have joined, and by which node each is reached now."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES
from pasta_model.errors import ExchangeError, FederationError
from pasta_model.exchange.contents import JOIN, SITES, Invitation, NodeReport, Parcel, SiteReport
from server.invitations import Invitations
from server.watch import Watch
from server.wire import Post

SETTLE_SECONDS = 0.5
ASK_AGAIN_SECONDS = 20.0
MOST_VISITS = 30  # of a subject
LARGEST_VALUE = 1000.0  # of a clinical column: years, points of a test, alleles
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A site of the federation.

    Attributes
    ----------
    node
        By which it was last reached.
    report
        What it said of itself.
    holds
        SHA-256 of the shared weights that it has; empty when that is not known.
    """

    node: int
    report: SiteReport
    holds: str


class Members:
    """Who takes part.

    Parameters
    ----------
    post
        The way to the nodes.
    settings
        Of the run.
    invited
        The list; nobody else is ever asked for anything.
    watch
        Is told who comes and who is missing.
    """

    def __init__(self, post: Post, settings: Settings, invited: Invitations, watch: Watch) -> None:
        self.post = post
        self.settings = settings
        self.invited = invited
        self.watch = watch
        self.joined: dict[str, Member] = {}
        # Not kept on disk: after a restart a site is asked once more, and its own ledger knows the answer.
        self.spent: set[str] = set()  # have no privacy budget left to train with
        self._asked: dict[str, float] = {}  # when a site that did not join may be asked again
        self._served: dict[int, tuple[str, ...]] = {}  # what a node said that it serves

    @property
    def training(self) -> dict[str, Member]:
        """Those that train."""
        return {n: m for n, m in self.joined.items() if n not in self.settings.federation.held_out_sites}

    @property
    def able(self) -> dict[str, Member]:
        """Those that train and have privacy budget left."""
        return {name: member for name, member in self.training.items() if name not in self.spent}

    def enough_can_train(self) -> bool:
        """Whether as many sites as a round needs have budget left; those that have come since count."""
        wanted = self.settings.federation.min_sites
        if len(self.able) < wanted:
            self.refresh()
        return len(self.able) >= wanted

    def gather(self) -> None:
        """Wait for the invited sites, at least for enough of them, and ask each what it holds.

        Raises
        ------
        FederationError
            When too few are there by `federation.join-deadline`; it says who is and who is not.
        """
        wanted, end = (
            self.settings.federation.min_sites,
            time.monotonic() + self.settings.federation.join_deadline,
        )
        nodes, settled = self.post.nodes(), 0
        while True:
            if nodes and settled >= self.post.settle_checks:
                self.refresh()
                if self._all_there() or (not self.invited.by_key and len(self.training) >= wanted):
                    break
                settled = 0
            if time.monotonic() > end:
                self.refresh()
                break
            self.watch.stands("waiting for sites", waiting_for=self.missing())
            time.sleep(SETTLE_SECONDS)
            before, nodes = nodes, self.post.nodes()
            settled = settled + 1 if nodes == before else 0
        if len(self.training) < wanted:
            raise FederationError(
                f"{len(self.training)} site(s) joined ({', '.join(sorted(self.joined)) or 'none'}), wanted at"
                f" least {wanted}; not here: {', '.join(self.missing()) or 'none'}; see the sites' logs."
                " Where they refused the code, have them approve it and give the same command again"
            )

    def present(self) -> dict[str, Member]:
        """Return the members that can train and can be reached now."""
        self.refresh()
        nodes = self.post.nodes()
        return {name: member for name, member in self.able.items() if member.node in nodes}

    def refresh(self) -> None:
        """Look where the sites are now, and let those join that have come since."""
        nodes = self.post.nodes()
        served = self._where(nodes)
        for name in self.joined.keys() & served.keys():
            self.joined[name] = replace(self.joined[name], node=served[name])
        now = time.monotonic()
        new = {
            n: node for n, node in served.items() if n not in self.joined and self._asked.get(n, 0.0) < now
        }
        asked = {name: (node, Invitation(name).parcel()) for name, node in new.items()}
        for name, answer in sorted(self.post.ask(asked, JOIN)) if asked else ():
            self._asked[name] = time.monotonic() + ASK_AGAIN_SECONDS
            if isinstance(answer, str):
                logger.warning("site %s did not join: %s", name, answer)
                self.watch.site(name, "refused", why=answer)
                continue
            try:
                report = self._welcome(name, SiteReport.of(answer))
            except ExchangeError as error:
                logger.warning("site %s is left out: %s", name, error)
                self.watch.site(name, "left out", why=str(error))
                continue
            self.joined[name] = Member(new[name], report, report.holds)
            self.watch.site(name, "joined", subjects=report.train_subjects)

    def now_holds(self, name: str, digest: str) -> None:
        """Note which weights a site has."""
        self.joined[name] = replace(self.joined[name], holds=digest)

    def _all_there(self) -> bool:
        return self.invited.by_key and not self.missing()

    def missing(self) -> list[str]:
        """Return the invited sites that have not joined."""
        return sorted(self.invited.sites - self.joined.keys())

    def _welcome(self, name: str, report: SiteReport) -> SiteReport:
        """Check what a site says of itself before it becomes a member."""
        columns = len(SCHEMES[self.settings.data.clinical].columns)
        limit = self.invited.limits[name]
        if report.site != name:
            raise ExchangeError(f"it calls itself {report.site!r}")
        if report.train_subjects == 0 and name not in self.settings.federation.held_out_sites:
            raise ExchangeError("it has no subject to train on")
        if report.train_subjects > limit:
            raise ExchangeError(f"it claims {report.train_subjects:,} training subjects, allowed {limit:,}")
        m = report.moments
        if any(a.shape != (columns,) for a in vars(m).values()):
            raise ExchangeError(f"its clinical sums do not have {columns} columns; use one scheme")
        most = np.maximum(m.count, 0) * LARGEST_VALUE
        if (
            (m.count > report.train_subjects * MOST_VISITS).any()
            or (m.count < 0).any()
            or (m.count != np.round(m.count)).any()
            or (np.abs(m.total) > most).any()
            or (m.squares > most * LARGEST_VALUE).any()
            or (m.squares < 0).any()
            or (m.squares * m.count < m.total**2 * (1 - 1e-9)).any()  # Cauchy and Schwarz
        ):
            raise ExchangeError("its clinical sums are impossible for so many subjects")
        logger.info("site %s joins with %d training subjects", name, report.train_subjects)
        return report

    def _where(self, nodes: Mapping[int, str]) -> dict[str, int]:
        """Which node serves which invited site."""
        if self.invited.by_key:
            owners = {node: self.invited.site_of(key) for node, key in nodes.items()}
            for node in [n for n, owner in owners.items() if owner is None and n not in self._served]:
                self._served[node] = ()
                logger.warning("node %d is not invited; it is asked for nothing", node)
                self.watch.event("stranger", node=node, key=nodes[node])
            return {site: node for node, site in owners.items() if site is not None}
        self._ask_what_they_serve([node for node in nodes if node not in self._served])
        served: dict[str, int] = {}
        for node in sorted(nodes):
            for site in self._served.get(node, ()):
                if site in served:
                    raise FederationError(f"site {site!r} is served by two nodes; stop one of them")
                served[site] = node
        return {site: node for site, node in served.items() if site in self.invited.sites}

    def _ask_what_they_serve(self, nodes: list[int]) -> None:
        asked = {f"{node:020d}": (node, Parcel({}, {})) for node in nodes}
        for name, answer in self.post.ask(asked, SITES) if asked else ():
            if isinstance(answer, str):
                logger.warning("node %s did not answer: %s", name, answer)
                continue
            try:
                self._served[asked[name][0]] = NodeReport.of(answer).sites
            except ExchangeError as error:
                logger.warning("node %s is left out: %s", name, error)
