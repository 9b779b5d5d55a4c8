# SPDX-License-Identifier: Apache-2.0
"""The rounds of a federation: join, train, aggregate, keep; then measure the last model.

The server works on flat buffers. It builds a network once, for the initial weights; it never sees a scan, a
row of a table or a subject's name.
"""

import logging
import statistics
import time
from collections.abc import Mapping, Sequence

from pasta_model.checkpoint import new_network
from pasta_model.config import Settings
from pasta_model.data.clinical import Moments
from pasta_model.errors import ExchangeError, FederationError, StaleWeightsError
from pasta_model.exchange.contents import EVALUATE, TRAIN, Parcel, TrainReport, TrainTask
from pasta_model.exchange.packing import pack
from pasta_model.exchange.vectors import write_vector
from server.aggregation import capped_shares
from server.broadcast import Broadcast
from server.cross import Way, cross_evaluate
from server.invitations import invitations
from server.members import Member, Members
from server.records import AVERAGE, MASTER, REFERENCE, Progress, RunFolder
from server.spool import Spool
from server.tally import Tally
from server.update import close_round
from server.watch import Watch
from server.wire import Post

WAIT_SECONDS, LONGEST_WAIT = 1.0, 30.0
logger = logging.getLogger(__name__)


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
        self.watch = Watch(self.folder.path, settings)
        self.members = Members(post, settings, invitations(settings), self.watch)

    def run(self) -> Progress:
        """Run all rounds that are left.

        Raises
        ------
        FederationError
            When too few sites join, or a round gets too few answers for longer than `federation.patience`.
        """
        try:
            progress = self._resumed() or self._begun()
            while progress.next_round < self.settings.federation.rounds:
                self._round(progress)
            self._finish(progress)
        except Exception as error:
            self.watch.stands("failed", why=str(error))
            raise
        finally:
            self.watch.close()
        return progress

    def _resumed(self) -> Progress | None:
        progress = self.folder.resume() if self.settings.run.resume else None
        if progress is not None:
            logger.info("resuming at round %d", progress.next_round)
            self.watch.event("resumed", round=progress.next_round)
            self.folder.publish_best(progress)
            self.members.gather()
        return progress

    def _begun(self) -> Progress:
        """Gather the sites and write down where the run starts from."""
        self.folder.set_aside()
        self.members.gather()
        self.folder.start()
        # Sites share sums, never rows; the pooled mean and spread go back to all of them.
        moments = Moments.pool([m.report.moments for _, m in sorted(self.members.training.items())])
        progress = Progress(0, moments.standardisation(), "")
        state = new_network(self.settings).state_dict()
        layout, about = self.folder.layout, self.folder.metadata(progress, 0)
        start = pack({slot.name: state[slot.name] for slot in layout.slots})
        with self.folder.completing(progress, 0) as work:
            for name in (MASTER, REFERENCE, AVERAGE):
                progress.target = write_vector(work / name, layout, start.values(), metadata=about)
        self.watch.event("started", sites=sorted(self.members.joined))
        return progress

    def _round(self, progress: Progress) -> None:
        """One round: 1. send, 2. spool the answers, 3. aggregate, 4. keep. Too few answers: again."""
        number, start = progress.next_round, time.monotonic()
        end, attempt = None, 0
        while True:
            attempt += 1
            spool = Spool.empty(self.folder.answers(number), self.folder.sizes)
            tally = self._attempt(progress, spool)
            if len(spool.norms) >= self.settings.federation.min_sites:
                break
            end = end or time.monotonic() + self.settings.federation.patience
            self._wait(number, tally, len(spool.norms), end, seconds=min(2.0**attempt, LONGEST_WAIT))
        shares = self._shares(spool.norms)
        self._compare(progress, tally.mae)
        with self.folder.completing(progress, number + 1) as work:
            close_round(self.folder, progress, spool, shares, work)
            seconds = time.monotonic() - start
            record = tally.record(number, shares, seconds, spool.norms)
            progress.history.append(record)
        self.folder.publish_best(progress)
        self.watch.round(number, seconds, tally.scalars() | {"seconds": seconds, "MB": record.bytes / 1e6})
        self.watch.event("round done", round=number, attempts=attempt, sites=sorted(spool.norms))
        logger.info("round %d of %d done", number + 1, self.settings.federation.rounds)

    def _attempt(self, progress: Progress, spool: Spool) -> Tally:
        """Ask every site that is there to train; spool what can be used."""
        tally, number = Tally(), progress.next_round
        present = self.members.present()
        for name in self.members.training.keys() - present.keys():
            tally.failures[name] = "not connected"
            self.watch.site(name, "absent")
        self.watch.stands("training", round=number, asked=sorted(present))
        broadcast = Broadcast(self.folder, number, progress.target)
        stale = self._ask(present, progress, broadcast, spool, tally)
        if stale:  # they hold something else than we thought: once more, with all the weights
            for name in stale:
                self.members.now_holds(name, "")
            again = {name: self.members.joined[name] for name in stale}
            self._ask(again, progress, broadcast, spool, tally)
        for name, why in spool.far_out(self.settings.aggregation.norm_factor, usual=_usual(progress)).items():
            spool.drop(name)
            self._reject(name, number, why, tally)
        return tally

    def _ask(
        self,
        asked: Mapping[str, Member],
        progress: Progress,
        broadcast: Broadcast,
        spool: Spool,
        tally: Tally,
    ) -> list[str]:
        """Send the task to sites and take in their answers; return those whose weights are stale."""
        tasks, stale = {}, []
        for name, member in asked.items():
            base, steps = broadcast.for_holder(member.holds)
            task = TrainTask(
                name, progress.next_round, progress.standardisation, base, progress.target, steps
            )
            tasks[name] = (member.node, task.parcel())
            tally.down[name] = tally.down.get(name, 0) + sum(step.nbytes for step in steps)
            self.watch.site(name, "asked", round=progress.next_round)
        for name, answer in self.post.ask(tasks, TRAIN):
            report = self._checked(answer, name, progress.next_round)
            try:
                if isinstance(report, TrainReport):
                    if report.update is None:
                        raise ExchangeError("it sent no update")
                    spool.add(name, report.update)
            except ExchangeError as error:
                report = str(error)
            if isinstance(report, str):
                if asked[name].holds and _is_stale(report):
                    stale.append(name)
                self._reject(name, progress.next_round, report, tally)
                continue
            assert report.update is not None
            tally.note(name, report)
            tally.up[name] = report.update.nbytes
            self.members.now_holds(name, progress.target)
            self.watch.answered(name, report.update.nbytes, tally.down[name])
            self.watch.site(name, "answered", round=progress.next_round)
        return stale

    def _reject(self, name: str, number: int, why: str, tally: Tally) -> None:
        tally.fail(name, why)
        logger.warning("round %d: nothing from site %s: %s", number, name, why)
        self.watch.site(name, "failed", round=number, why=why)

    def _checked(self, answer: Parcel | str, name: str, number: int) -> TrainReport | str:
        """Unpack an answer; a bad one is a reason, not the end of the round."""
        if isinstance(answer, str):
            return answer
        member = self.members.joined[name].report
        try:
            report = TrainReport.of(answer)
        except ExchangeError as error:
            return str(error)
        if (report.site, report.round) != (name, number):
            return f"answered for site {report.site!r}, round {report.round}"
        if report.update is not None and report.update.codec != self.settings.exchange.uplink:
            return f"sent weights as {report.update.codec}, wanted {self.settings.exchange.uplink}"
        if report.update is not None and report.subjects != member.train_subjects:
            return f"claims {report.subjects:,} subjects, joined with {member.train_subjects:,}"
        return report

    def _wait(self, number: int, tally: Tally, usable: int, end: float, *, seconds: float) -> None:
        """Wait before a round is repeated, until enough sites are there; give up when patience is over."""
        wanted = self.settings.federation.min_sites
        waited_for = dict.fromkeys(self.members.missing(), "has not joined") | tally.failures
        reasons = "; ".join(f"{name}: {why}" for name, why in sorted(waited_for.items()))
        logger.warning("round %d came to too few answers and is repeated; %s", number, reasons)
        self.watch.stands("waiting for sites", waiting_for=sorted(waited_for))
        if time.monotonic() > end:
            raise FederationError(
                f"round {number}: {usable} usable answer(s), wanted at least {wanted}; {reasons}"
            )
        time.sleep(min(seconds, max(0.0, end - time.monotonic())))
        while len(self.members.present()) < wanted and time.monotonic() < end:
            time.sleep(WAIT_SECONDS)

    def _finish(self, progress: Progress) -> None:
        """Measure the last model, which no round has measured yet, and keep best and last."""
        start, number = time.monotonic(), progress.next_round
        self.watch.stands("measuring the last model", round=number)
        self.members.refresh()
        tally = self._measure(
            progress, progress.target, Broadcast(self.folder, number, progress.target).for_holder
        )
        self._compare(progress, {n: v for n, v in tally.mae.items() if n in self.members.training})
        self.folder.publish_best(progress)
        shares = self._shares(self.members.training)
        seconds = time.monotonic() - start
        progress.history.append(tally.record(number, shares, seconds))
        self.watch.round(number, seconds, tally.scalars())
        if self.settings.federation.cross_evaluation:
            cross_evaluate(self.folder, number - 1, lambda t, way: self._measure(progress, t, way).mae)
        self.folder.finish(progress)
        self.watch.stands("finished", round=number)
        logger.info("best model: after %d rounds, SUVR error %.4f", progress.best_round, progress.best_mae)

    def _measure(self, progress: Progress, target: str, way: Way) -> Tally:
        """Have all sites, the held-out ones too, measure weights; `way` leads there from what they hold."""
        number, nodes, joined = progress.next_round, self.post.nodes(), self.members.joined
        asked = {name: member.holds for name, member in joined.items() if member.node in nodes}
        tally = Tally(failures=dict.fromkeys(joined.keys() - asked.keys(), "not connected"))
        while asked:
            tasks, stale = {}, {}
            for name, holds in asked.items():
                base, steps = way(holds)
                task = TrainTask(name, number, progress.standardisation, base, target, steps)
                tasks[name] = (joined[name].node, task.parcel())
                tally.down[name] = tally.down.get(name, 0) + sum(step.nbytes for step in steps)
            for name, answer in self.post.ask(tasks, EVALUATE):
                report = self._checked(answer, name, number)
                if isinstance(report, str) or report.update is not None:
                    why = report if isinstance(report, str) else "sent weights that nobody asked for"
                    if asked[name] and _is_stale(why):
                        stale[name] = ""  # it is asked once more, with all the weights
                    self._reject(name, number, why, tally)
                else:
                    tally.note(name, report)
            asked = stale
        return tally

    def _shares(self, sites: Mapping[str, object]) -> dict[str, float]:
        """Return each site's share by its subjects, capped."""
        subjects = {n: self.members.joined[n].report.train_subjects for n in sites}
        return capped_shares(subjects, cap=self.settings.federation.weight_cap)

    def _compare(self, progress: Progress, mae: Mapping[str, float]) -> None:
        """Note the model that was just measured when it is the best so far.

        Two models are compared on the sites that measured both: a round without the hospital of the hardest
        patients is not better for that.
        """
        both = sorted(mae.keys() & progress.best_values.keys()) if progress.best_values else sorted(mae)
        if not both:
            return
        if not progress.best_values or self._mean(mae, both) < self._mean(progress.best_values, both):
            progress.best_mae, progress.best_round = self._mean(mae, sorted(mae)), progress.next_round
            progress.best_values = dict(sorted(mae.items()))

    def _mean(self, values: Mapping[str, float], sites: Sequence[str]) -> float:
        shares = self._shares(dict.fromkeys(sites))
        return sum(shares[name] * values[name] for name in sites)


def _usual(progress: Progress) -> float:
    """Return how long updates were in the last round."""
    norms = progress.history[-1].norms.values() if progress.history else ()
    return statistics.median_low(norms) if norms else 0.0


def _is_stale(why: str) -> bool:
    return StaleWeightsError.__name__ in why
