# SPDX-License-Identifier: Apache-2.0
"""What the sites are asked, to train and to measure, and which of their answers can be used."""

import logging
import statistics
from collections.abc import Mapping

from pasta_model.config import Settings
from pasta_model.errors import BudgetError, ExchangeError, StaleWeightsError
from pasta_model.exchange.contents import EVALUATE, TRAIN, Parcel, TrainReport, TrainTask
from server.broadcast import Broadcast
from server.cross import Way
from server.members import Member, Members
from server.records import Progress, RunFolder
from server.spool import Spool
from server.tally import Tally
from server.watch import Watch
from server.wire import Post

SPENT = "its privacy budget is spent"
logger = logging.getLogger(__name__)


class Questions:
    """Asks the sites of a run.

    Parameters
    ----------
    post
        The way to the nodes.
    settings, folder, members, watch
        Of the run.
    """

    def __init__(
        self, post: Post, settings: Settings, *, folder: RunFolder, members: Members, watch: Watch
    ) -> None:
        self.post = post
        self.settings = settings
        self.folder = folder
        self.members = members
        self.watch = watch

    def train(self, progress: Progress, spool: Spool) -> Tally:
        """Ask every site that is there, and has budget left, to train; spool what can be used."""
        tally, number = Tally(failures=dict.fromkeys(self.members.spent, SPENT)), progress.next_round
        present = self.members.present()
        for name in self.members.able.keys() - present.keys():
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
        for name, why in self._far_out(progress, spool).items():
            spool.drop(name)
            self._reject(name, number, why, tally)
        return tally

    def measure(self, progress: Progress, target: str, way: Way) -> Tally:
        """Have all sites, the held-out ones too, measure weights; `way` leads there from what they hold."""
        number, nodes, joined = progress.next_round, self.post.nodes(), self.members.joined
        asked = {name: member.holds for name, member in joined.items() if member.node in nodes}
        tally = Tally(failures=dict.fromkeys(joined.keys() - asked.keys(), "not connected"))
        while asked:
            tasks, stale, kept = {}, {}, self.folder.kept.offer()
            for name, holds in asked.items():
                base, steps = way(holds)
                task = TrainTask(name, number, progress.standardisation, base, target, steps, *kept(holds))
                tasks[name] = (joined[name].node, task.parcel())
                tally.down[name] = tally.down.get(name, 0) + task.nbytes
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

    def _ask(
        self,
        asked: Mapping[str, Member],
        progress: Progress,
        broadcast: Broadcast,
        spool: Spool,
        tally: Tally,
    ) -> list[str]:
        """Send the task to sites and take in their answers; return those whose weights are stale."""
        tasks, stale, kept = {}, [], self.folder.kept.offer()
        for name, member in asked.items():
            base, steps = broadcast.for_holder(member.holds)
            told = progress.next_round, progress.standardisation, base, progress.target, steps
            task = TrainTask(name, *told, *kept(member.holds))
            tasks[name] = (member.node, task.parcel())
            tally.down[name] = tally.down.get(name, 0) + task.nbytes
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
        if self._is_spent(why):
            self.members.spent.add(name)
            tally.fail(name, SPENT)
            logger.warning("round %d: site %s trains no more: %s", number, name, SPENT)
            self.watch.site(name, "budget spent", round=number, why=why)
            return
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

    def _far_out(self, progress: Progress, spool: Spool) -> Mapping[str, str]:
        """Say of which sites the update is too long, and why.

        Where the server protects whole sites, none is: clipping bounds what a long one does, and a yardstick
        of everybody's norms would let one site's data decide whether another's update counts.
        """
        if self.settings.privacy.unit == "site":
            return {}
        return spool.far_out(self.settings.aggregation.norm_factor, usual=_usual(progress))

    def _is_spent(self, why: str) -> bool:
        return self.settings.privacy.unit == "subject" and BudgetError.__name__ in why


def _usual(progress: Progress) -> float:
    """Return how long updates were in the last round."""
    norms = progress.history[-1].norms.values() if progress.history else ()
    return statistics.median_low(norms) if norms else 0.0


def _is_stale(why: str) -> bool:
    return StaleWeightsError.__name__ in why
