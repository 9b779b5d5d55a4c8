# SPDX-License-Identifier: Apache-2.0
"""The rounds of a federation: join, train, aggregate, keep; then measure the last model.

The server works on flat buffers. It builds a network once, for the initial weights; it never sees a scan, a
row of a table or a subject's name.
"""

import logging
import time
from collections.abc import Mapping, Sequence

from pasta_model.config import Settings
from pasta_model.errors import FederationError
from pasta_model.exchange.packing import pack
from pasta_model.exchange.vectors import write_vector
from pasta_model.privacy.normals import Normals, secure_normals
from server.aggregation import capped_shares, equal_shares
from server.broadcast import Broadcast
from server.cross import cross_evaluate
from server.invitations import invitations
from server.members import Members
from server.privacy import site_noise
from server.questions import Questions
from server.records import AVERAGE, BEST, MASTER, REFERENCE, Progress, RunFolder
from server.reference import References
from server.spool import Spool
from server.start import standardisation_of, start_of
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
    normals
        Draws the noise where sites are the unit of privacy; tests alone bring their own.

    Raises
    ------
    PrivacyError
        When the run cannot be as private as it says; nobody has been asked for anything.
    """

    def __init__(self, post: Post, settings: Settings, *, normals: Normals = secure_normals) -> None:
        invited = invitations(settings)
        self.settings = settings
        self.noise = site_noise(settings, sites=invited.sites, normals=normals)
        self.folder = RunFolder(settings)
        self.watch = Watch(self.folder.path, settings)
        self.members = Members(post, settings, invited, self.watch)
        self.questions = Questions(post, settings, folder=self.folder, members=self.members, watch=self.watch)
        self.references = References(
            post, settings, folder=self.folder.path, members=self.members, watch=self.watch
        )

    def run(self) -> Progress:
        """Run all rounds that are left.

        Raises
        ------
        FederationError
            When too few sites join, a round gets too few answers for longer than `federation.patience`, or
            no site has privacy budget for the first one.
        """
        try:
            progress = self._resumed() or self._begun()
            self._tell_noise(progress)
            while progress.next_round < self.settings.federation.rounds and self._round(progress):
                pass
            self._finish(progress, why=self._ended_early(progress))
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
        start = start_of(self.settings)  # what cannot be used costs no site anything
        self.folder.set_aside()
        self.members.gather()
        self.folder.start()
        # Sites share sums, never rows; the mean and spread go back to all of them.
        moments = [m.report.moments for _, m in sorted(self.members.training.items())]
        progress = Progress(0, standardisation_of(start, self.settings, moments), "")
        layout, about = self.folder.layout, self.folder.metadata(progress, 0)
        shared = pack({slot.name: start.state[slot.name] for slot in layout.slots})
        self.folder.kept.write(start)
        with self.folder.completing(progress, 0) as work:
            for name in (MASTER, REFERENCE, AVERAGE):
                progress.target = write_vector(work / name, layout, shared.values(), metadata=about)
        self.watch.event("started", sites=sorted(self.members.joined))
        return progress

    def _round(self, progress: Progress) -> bool:
        """One round: 1. send, 2. spool the answers, 3. aggregate, 4. keep. False: no budget is left."""
        number, start = progress.next_round, time.monotonic()
        answers = self._answers(progress)
        if answers is None:
            return False
        spool, tally, attempts = answers
        shares = self._shares(spool.norms)
        self._compare(progress, tally.mae)
        with self.folder.completing(progress, number + 1) as work:
            close_round(self.folder, progress, spool, shares, work, noise=self.noise)
            seconds, spent = time.monotonic() - start, self._spent(progress)
            record = tally.record(number, shares, seconds, spool.norms, epsilon=spent)
            progress.history.append(record)
        self.folder.publish_best(progress)
        self.watch.round(number, seconds, tally.scalars() | {"seconds": seconds, "MB": record.bytes / 1e6})
        self.watch.event("round done", round=number, attempts=attempts, sites=sorted(spool.norms))
        logger.info("round %d of %d done", number + 1, self.settings.federation.rounds)
        return True

    def _answers(self, progress: Progress) -> tuple[Spool, Tally, int] | None:
        """Ask until enough sites have answered: what they sent, and in which attempt.

        Too few answers: again. None when fewer sites than a round needs have privacy budget left: waiting
        for them would not help.
        """
        number, wanted = progress.next_round, self.settings.federation.min_sites
        end, attempt = None, 0
        while self.members.enough_can_train():
            attempt += 1
            spool = Spool.empty(self.folder.answers(number), self.folder.sizes)
            tally = self.questions.train(progress, spool)
            if len(spool.norms) >= wanted:
                return spool, tally, attempt
            if self.members.enough_can_train():
                end = end or time.monotonic() + self.settings.federation.patience
                self._wait(number, tally, len(spool.norms), end, seconds=min(2.0**attempt, LONGEST_WAIT))
        return None

    def _wait(self, number: int, tally: Tally, usable: int, end: float, *, seconds: float) -> None:
        """Wait before a round is repeated, until enough sites are there; give up when patience is over."""
        wanted = self.settings.federation.min_sites
        failed = {name: why for name, why in tally.failures.items() if name not in self.members.spent}
        waited_for = dict.fromkeys(self.members.missing(), "has not joined") | failed
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

    def _ended_early(self, progress: Progress) -> str:
        """Say why the run ends before its last round; empty when it does not."""
        number, names = progress.next_round, ", ".join(sorted(self.members.spent))
        if number == self.settings.federation.rounds:
            return ""
        if number == 0:
            raise FederationError(
                f"nothing was trained: the privacy budgets of {names} are spent, and"
                f" {len(self.members.able)} site(s) can train, wanted at least"
                f" {self.settings.federation.min_sites}; 'pasta-client budget' shows a site what is left"
            )
        why = f"ended after round {number}: the privacy budgets of {names} are spent"
        logger.warning("%s", why)
        self.watch.event("ended early", round=number, spent=sorted(self.members.spent), why=why)
        return why

    def _write_card(self, progress: Progress) -> None:
        from server.card import write_model_card  # draws in what reports need

        subjects = {name: m.report.train_subjects for name, m in self.members.training.items()}
        write_model_card(self.folder.path, self.settings, progress, subjects=subjects)

    def _finish(self, progress: Progress, *, why: str) -> None:
        """Measure the last model, which no round has measured yet, and keep best and last."""
        start, number = time.monotonic(), progress.next_round
        self.watch.stands("measuring the last model", round=number)
        self.members.refresh()
        tally = self.questions.measure(
            progress, progress.target, Broadcast(self.folder, number, progress.target).for_holder
        )
        self._compare(progress, {n: v for n, v in tally.mae.items() if n in self.members.training})
        self.folder.publish_best(progress)
        if progress.best_round < 0:  # nobody tells an error: no model is known to be better than the last
            self.folder.publish(progress, REFERENCE, BEST, number=number)
        references = self.references.gather()
        shares = self._shares(self.members.training)
        seconds, spent = time.monotonic() - start, self._spent(progress)
        progress.history.append(tally.record(number, shares, seconds, epsilon=spent, references=references))
        self.watch.round(number, seconds, tally.scalars())
        if self.settings.federation.cross_evaluation:
            cross_evaluate(
                self.folder, number - 1, lambda t, way: self.questions.measure(progress, t, way).mae
            )
        self.folder.finish(progress)
        self._write_card(progress)
        self.watch.stands("finished", round=number, why=why)
        if progress.best_round < 0:
            logger.info("best model: the last, after %d rounds; no site told an error", number)
        else:
            logger.info(
                "best model: after %d rounds, SUVR error %.4f", progress.best_round, progress.best_mae
            )

    def _tell_noise(self, progress: Progress) -> None:
        """Say how much noise the mean will get, loudly when it will drown."""
        if self.noise is None:
            return
        sites, values = len(self.members.training), sum(self.folder.sizes.values())
        drowns, said = self.noise.forecast(sites=sites, values=values)
        logger.log(logging.WARNING if drowns else logging.INFO, "%s", said)
        self.watch.event("noise", sites=sites, values=values, drowns=drowns, said=said)
        self._spent(progress)

    def _spent(self, progress: Progress) -> float | None:
        """Return epsilon after the rounds that are closed, and show it; None where the server adds no noise.

        A round that was closed, killed and closed again counts once: its first result lay in a folder
        without a name and went with it, so that nobody has ever seen it. Only what is kept is ever sent.
        """
        if self.noise is None:
            return None
        spent = self.noise.spent(progress.next_round)
        self.watch.spent(spent, self.settings.privacy)
        return spent

    def _shares(self, sites: Mapping[str, object]) -> dict[str, float]:
        """Return each site's share: all the same, or by its subjects, capped."""
        if self.settings.aggregation.shares == "equal":
            return equal_shares(sites)
        subjects = {n: self.members.joined[n].report.train_subjects for n in sites}
        return capped_shares(subjects, cap=self.settings.federation.weight_cap)

    def _compare(self, progress: Progress, mae: Mapping[str, float]) -> None:
        """Note the model that was just measured when it is the best so far.

        Two models are compared on the sites that measured both: a round without the hospital of the hardest
        patients is not better for that. Errors with privacy noise are told, not compared: the best of many
        noisy values is the luckiest.
        """
        if self.settings.privacy.unit == "subject" and self.settings.privacy.metrics == "noised":
            return
        both = sorted(mae.keys() & progress.best_values.keys()) if progress.best_values else sorted(mae)
        if not both:
            return
        if not progress.best_values or self._mean(mae, both) < self._mean(progress.best_values, both):
            progress.best_mae, progress.best_round = self._mean(mae, sorted(mae)), progress.next_round
            progress.best_values = dict(sorted(mae.items()))

    def _mean(self, values: Mapping[str, float], sites: Sequence[str]) -> float:
        shares = self._shares(dict.fromkeys(sites))
        return sum(shares[name] * values[name] for name in sites)
