# SPDX-License-Identifier: Apache-2.0
"""The rounds of a federation: join, train, average, keep; then measure the last model.

The server averages flat buffers. It builds a network once, for the initial weights and the layout of
the buffers; it never sees a scan, a row of a table or a subject's name.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pasta_model.checkpoint import network_layout, new_network
from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES, Moments
from pasta_model.errors import ExchangeError, FederationError
from pasta_model.exchange.contents import (
    EVALUATE,
    JOIN,
    SITES,
    TRAIN,
    Invitation,
    NodeReport,
    Parcel,
    SiteReport,
    TrainReport,
    TrainTask,
)
from pasta_model.exchange.packing import Buffers, check_buffers, pack, unpack
from server.aggregation import CappedAverage, capped_shares, moving_average
from server.records import Progress, RoundRecord, RunFolder
from server.wire import Post

SETTLE_SECONDS = 0.5
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A site of the federation and the node that serves it."""

    node: int
    report: SiteReport


class Federation:
    """A run, from the first invitation to the last model.

    Parameters
    ----------
    post
        The way to the nodes.
    settings
        Of the run.
    """

    def __init__(self, post: Post, settings: Settings) -> None:
        self.post = post
        self.settings = settings
        self.folder = RunFolder(settings)
        self.layout = network_layout(settings)

    def run(self) -> Progress:
        """Run all rounds that are left.

        Raises
        ------
        FederationError
            When too few sites join, or a round gets too few answers.
        """
        members = self.gather()
        progress = self._begin(members)
        while progress.next_round < self.settings.federation.rounds:
            self._round(members, progress)
        self._finish(members, progress)
        return progress

    def gather(self) -> dict[str, Member]:
        """Wait for enough sites and ask each what it holds.

        Raises
        ------
        FederationError
            When too few are there by `federation.join-deadline`; it says who is.
        """
        wanted = self.settings.federation.min_sites
        nodes = self._await_sites(wanted)
        asked = {name: (node, Invitation(name).parcel()) for name, node in nodes.items()}
        members = {}
        for name, answer in self.post.ask(asked, JOIN):
            if isinstance(answer, str):
                logger.warning("site %s did not join: %s", name, answer)
                continue
            try:
                members[name] = Member(nodes[name], self._welcome(name, SiteReport.of(answer)))
            except ExchangeError as error:
                logger.warning("site %s is left out: %s", name, error)
        if len(members) < wanted:
            raise FederationError(
                f"{len(members)} site(s) joined ({', '.join(sorted(members)) or 'none'}), wanted at least"
                f" {wanted}; see the sites' logs. In a simulation, data.sites must hold prepared sites"
                " ('make demo' makes them); give it as an absolute path"
            )
        return members

    def _welcome(self, name: str, report: SiteReport) -> SiteReport:
        """Check what a site says of itself before it becomes a member."""
        columns = len(SCHEMES[self.settings.data.clinical].columns)
        if report.site != name:
            raise ExchangeError(f"it calls itself {report.site!r}")
        if report.train_subjects == 0:
            raise ExchangeError("it has no subject to train on")
        if any(a.shape != (columns,) for a in vars(report.moments).values()):
            raise ExchangeError(f"its clinical sums do not have {columns} columns; use one scheme")
        logger.info("site %s joins with %d training subjects", name, report.train_subjects)
        return report

    def _await_sites(self, wanted: int) -> dict[str, int]:
        """Wait until enough sites are served and the list of nodes has settled, or the deadline."""
        end = time.monotonic() + self.settings.federation.join_deadline
        nodes, settled, served = self.post.nodes(), 0, dict[str, int]()
        while True:
            if nodes and settled >= self.post.settle_checks:
                served = self._sites(nodes)
                if len(served) >= wanted:
                    return served
                settled = 0
            if time.monotonic() > end:
                return served
            time.sleep(SETTLE_SECONDS)
            before, nodes = nodes, self.post.nodes()
            settled = settled + 1 if nodes == before else 0

    def _find_again(self, members: dict[str, Member]) -> None:
        """Look where the sites are now: a restarted node may have another number."""
        served = self._sites(self.post.nodes())
        for name in members.keys() & served.keys():
            members[name] = replace(members[name], node=served[name])

    def _sites(self, nodes: list[int]) -> dict[str, int]:
        """Which node serves which site; a site served twice is refused."""
        asked = {f"{node:020d}": (node, Parcel({}, {})) for node in nodes}
        served: dict[str, int] = {}
        for name, answer in self.post.ask(asked, SITES):
            if isinstance(answer, str):
                logger.warning("node %s did not answer: %s", name, answer)
                continue
            try:
                sites = NodeReport.of(answer).sites
            except ExchangeError as error:
                logger.warning("node %s is left out: %s", name, error)
                continue
            for site in sites:
                if site in served:
                    raise FederationError(f"site {site!r} is served by two nodes; stop one of them")
                served[site] = asked[name][0]
        return served

    def _begin(self, members: Mapping[str, Member]) -> Progress:
        if self.settings.run.resume and (progress := self.folder.resume()) is not None:
            logger.info("resuming at round %d", progress.next_round)
            return progress
        self.folder.start()
        # Sites share sums, never rows; the pooled mean and spread go back to all of them.
        moments = Moments.pool([m.report.moments for _, m in sorted(members.items())])
        state = new_network(self.settings).state_dict()
        return Progress(0, state, state, moments.standardisation())

    def _round(self, members: dict[str, Member], progress: Progress) -> None:
        """One round: 1. send, 2. add each answer to the average, 3. keep."""
        if progress.history and progress.history[-1].failures:
            self._find_again(members)
        start, number = time.monotonic(), progress.next_round
        sent = pack(progress.state)
        average, failures = CappedAverage(cap=self.settings.federation.weight_cap), {}
        loss, mae, busy = {}, {}, {}
        for name, report in self._answers(members, progress, sent, TRAIN):
            if isinstance(report, str):
                failures[name] = report
                continue
            average.add(name, report.weights, subjects=members[name].report.train_subjects)
            loss[name], mae[name], busy[name] = report.train_loss, report.valid_mae, report.seconds
        self._enough(loss, failures, number)
        shares = average.shares()
        self._compare(progress, mae, shares)
        self._advance(progress, average.result())
        bytes_moved = sum(b.nbytes for b in sent.values()) * (len(members) + len(loss))
        seconds = time.monotonic() - start
        record = RoundRecord(number, loss, mae, shares, failures, busy, seconds, bytes_moved)
        progress.history.append(record)
        self.folder.save_round(progress)
        self.folder.log(record)
        logger.info("round %d of %d done", number + 1, self.settings.federation.rounds)

    def _finish(self, members: Mapping[str, Member], progress: Progress) -> None:
        """Measure the last model, which no round has measured yet, and keep best and last."""
        start, number = time.monotonic(), progress.next_round
        sent, mae, failures = pack(progress.state), {}, {}
        shares = self._shares(members)
        for name, report in self._answers(members, progress, sent, EVALUATE):
            if isinstance(report, str):
                failures[name] = report
            else:
                mae[name] = report.valid_mae
        self._compare(progress, mae, shares)
        bytes_moved = sum(b.nbytes for b in sent.values()) * len(members)
        seconds = time.monotonic() - start
        record = RoundRecord(number, {}, mae, shares, failures, {}, seconds, bytes_moved)
        progress.history.append(record)
        self.folder.log(record)
        self.folder.save_last(progress)
        logger.info("best model: after %d rounds, SUVR error %.4f", progress.best_round, progress.best_mae)

    def _answers(
        self, members: Mapping[str, Member], progress: Progress, sent: Buffers, message_type: str
    ) -> Iterator[tuple[str, TrainReport | str]]:
        """Send the weights to every member; yield each answer, checked, or why there is none."""
        asked = {}
        for name, member in members.items():
            task = TrainTask(name, progress.next_round, progress.standardisation, sent)
            asked[name] = (member.node, task.parcel())
        for name, answer in self.post.ask(asked, message_type):
            report = (
                answer if isinstance(answer, str) else self._checked(answer, name, progress, message_type)
            )
            if isinstance(report, str):
                logger.warning("round %d: nothing from site %s: %s", progress.next_round, name, report)
            yield name, report

    def _checked(self, answer: Parcel, name: str, progress: Progress, message_type: str) -> TrainReport | str:
        """Unpack an answer; a bad one is a reason, not the end of the round."""
        try:
            report = TrainReport.of(answer)
            if (report.site, report.round) != (name, progress.next_round):
                return f"answered for site {report.site!r}, round {report.round}"
            if message_type == TRAIN:
                check_buffers(report.weights, self.layout)
            elif report.weights:
                return "sent weights that nobody asked for"
        except ExchangeError as error:
            return str(error)
        return report

    def _enough(self, answered: Mapping[str, float], failures: Mapping[str, str], number: int) -> None:
        wanted = self.settings.federation.min_sites
        if len(answered) < wanted:
            reasons = "; ".join(f"{name}: {why}" for name, why in failures.items())
            raise FederationError(
                f"round {number}: {len(answered)} usable answer(s), wanted at least {wanted}; {reasons}"
            )

    def _shares(self, members: Mapping[str, Member]) -> dict[str, float]:
        """Return each member's share by its subjects, capped."""
        subjects = {name: member.report.train_subjects for name, member in members.items()}
        return capped_shares(subjects, cap=self.settings.federation.weight_cap)

    def _compare(self, progress: Progress, mae: Mapping[str, float], shares: Mapping[str, float]) -> None:
        """Keep the model that was just measured when it is the best so far."""
        weight = sum(shares[name] for name in mae)
        if not weight:
            return
        mean = sum(shares[name] * value for name, value in mae.items()) / weight
        if mean < progress.best_mae:
            progress.best_mae, progress.best_round = mean, progress.next_round
            self.folder.save_best(progress, progress.state, round_number=progress.next_round)

    def _advance(self, progress: Progress, mean: Buffers) -> None:
        """Make the mean the global model, and follow it with the moving average."""
        # Warm-up: the first rounds' weights are forgotten fast.
        number, steps = progress.next_round, self.settings.training.local_steps
        decay = min(self.settings.training.ema_decay**steps, (1 + number) / (10 + number))
        previous = pack(progress.average) if progress.next_round else mean
        progress.state = unpack(mean, self.layout)
        progress.average = unpack(moving_average(previous, mean, decay=decay), self.layout)
        progress.next_round += 1
