# SPDX-License-Identifier: Apache-2.0
"""What a site asks its privacy ledger, before it trains and before it tells an error.

Where `privacy.unit` is not `subject` all of it is let through and nothing is written. Those who train and
those who validate are different people, each with an account.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path

import torch

from client.ledger import Ledger
from client.memory import run_name, task_key
from client.people import everybody, names, open_ledger
from client.policy import Policy
from client.spending import Limit
from pasta_model.config import Settings
from pasta_model.data.slabs import SlabLoader
from pasta_model.data.store import SiteStore
from pasta_model.diffusion.cycle import Translator
from pasta_model.errors import BudgetError, PrivacyError, Problems
from pasta_model.exchange.contents import TrainTask
from pasta_model.privacy.accounting import Release
from pasta_model.privacy.metrics import noised_validation_mae
from pasta_model.privacy.plan import Plan, delta_problem, error_plan, largest, plan_for
from pasta_model.privacy.subjects import SlabSubjects
from pasta_model.privacy.training import private_steps
from pasta_model.seeding import numpy_generator, torch_generator
from pasta_model.training import Place, train_steps
from pasta_model.validation import validation_mae

TRAINING, VALIDATION = "training", "validation error"
logger = logging.getLogger(__name__)


class Privacy:
    """What one run may learn of a site's subjects.

    Parameters
    ----------
    store, settings, policy
        The site's data, the run's settings, and what the site allows.
    path
        Of the ledger.
    """

    def __init__(self, store: SiteStore, settings: Settings, policy: Policy | None, path: Path) -> None:
        self.store = store
        self.settings = settings
        self.policy = policy
        self.path = path
        self.run = run_name(settings)
        self.on = settings.privacy.unit == "subject"
        self._held: Ledger | None = None  # while a round is made

    @property
    def metrics(self) -> str:
        """How losses, errors and times leave."""
        return self.settings.privacy.metrics if self.on else "open"

    def limits(self, ledger: Ledger) -> list[Limit]:
        """Return what the run promises, and what the site's policy allows over all runs."""
        p = self.settings.privacy
        own = [Limit(p.epsilon, p.delta, self.run, accountant=p.accountant)]
        return own if self.policy is None else [*own, self._lifetime(ledger, self.policy)]

    def _lifetime(self, ledger: Ledger, policy: Policy) -> Limit:
        return Limit(policy.max_epsilon, policy.max_delta, accountant=ledger.careful(self.run))

    def refuse_unaffordable(self) -> None:
        """Refuse a run that this site cannot hold to its end, before anything is spent.

        Raises
        ------
        PrivacyError
            When it is impossible here, or its rounds, or its errors, cost more than is left.
        """
        trains = self.store.site not in self.settings.federation.held_out_sites
        if not self.on or not (trains or self.tells_errors):
            return
        self._refuse_large_delta()
        ledger = open_ledger(self.path, self.store)
        if trains and self.run not in ledger.plans:
            plan = plan_for(self.settings, subjects=len(self.store.persons("train")))
            self._refuse_rounds(ledger, plan)
        if self.tells_errors and (errors := error_plan(self.settings, trains=trains)):
            left = max(0, errors.errors - ledger.steps(self.run, VALIDATION))
            self._refuse_too_much(ledger, errors.release, left, "noised error", split="valid")

    @contextmanager
    def round(self, task: TrainTask) -> Iterator[Plan | None]:
        """Yield the plan of a round that is paid for; the block calls `release` before it keeps anything.

        Raises
        ------
        BudgetError
            When the round would spend more than is left; nothing was.
        PrivacyError
            When the ledger cannot be used, or another run trains now.
        """
        if not self.on:
            yield None
            return
        self._refuse_large_delta()
        with self._alone() as ledger:
            plan = self._planned(ledger)
            release = plan.release(self.settings.training.local_steps)
            self._reserve(ledger, self._identity(task), release, task, TRAINING, split="train")
            yield plan

    def refuse_unpaid(self, task: TrainTask) -> None:
        """Refuse to give an answer again that the ledger does not know.

        Raises
        ------
        PrivacyError
            When the ledger cannot be used, or has no release of this round.
        """
        if self.on and not open_ledger(self.path, self.store).released(self.run, task.round, TRAINING):
            raise PrivacyError(
                f"{self.path}: no release of round {task.round} of run {self.run}; it stays here"
            )

    def release(self, task: TrainTask) -> None:
        """Note a round as released, when all of it lies ready and nothing of it can be seen yet.

        What is kept of a round feeds the next one (AdamW's moments, personal parts), whether its answer
        leaves or not. A kill after this line and before the round is kept costs a round: the safe side.
        """
        if self.on:
            with self._alone() as ledger:
                ledger.note_released(self._identity(task))

    def train(
        self,
        translator: Translator,
        loader: SlabLoader,
        optimizer: torch.optim.Optimizer,
        *,
        place: Place,
        plan: Plan | None,
    ) -> float:
        """Train a round, by the plan where there is one, and return the mean loss."""
        if plan is None:
            return train_steps(translator, loader, optimizer, settings=self.settings, place=place)
        seed, where = self.settings.run.seed, (place.site, place.round)
        subjects = SlabSubjects(
            translator,
            loader,
            settings=self.settings,
            generator=torch_generator(seed, "train", *where, device=self.settings.training.device),
            rng=numpy_generator(seed, "slabs", *where),
        )
        return private_steps(
            translator.network, subjects, optimizer, settings=self.settings, place=place, plan=plan
        )

    def error(self, translator: Translator, loader: SlabLoader, task: TrainTask) -> float | None:
        """Return the error of the received weights as it may leave, or None."""
        if self.metrics == "open":
            return validation_mae(translator, loader, settings=self.settings)
        if not self.tells_errors:
            return None
        self._refuse_large_delta()
        release = Release(self.settings.privacy.metrics_noise_multiplier, 1.0, 1)
        identity = self._identity(task, VALIDATION)
        with self._alone() as ledger:
            try:
                self._reserve(ledger, identity, release, task, VALIDATION, split="valid")
            except BudgetError as error:
                logger.warning("round %d: no validation error leaves: %s", task.round, error)
                return None
            ledger.note_released(identity)  # from here on it may be in an answer
        return noised_validation_mae(translator, loader, settings=self.settings)

    @contextmanager
    def _alone(self) -> Iterator[Ledger]:
        """Hold the ledger; a round that is being made holds it already."""
        if self._held is not None:
            yield self._held
            return
        ledger = open_ledger(self.path, self.store)
        with ledger.alone():
            ledger.open_for(everybody(self.store))
            self._held = ledger
            try:
                yield ledger
            finally:
                self._held = None

    @property
    def tells_errors(self) -> bool:
        """Whether noised errors leave: somebody validates, and the policy would not keep them back."""
        validating = len(self.store.persons("valid"))
        return (
            self.metrics == "noised"
            and validating > 0
            and (self.policy is None or self.policy.may_leave("valid-mae", subjects=validating))
        )

    def _refuse_large_delta(self) -> None:
        deltas = {"privacy.delta": self.settings.privacy.delta}
        if self.policy is not None:
            deltas["max-delta in the site's policy"] = self.policy.max_delta
        refuse_large_delta(self.store, deltas)

    def _planned(self, ledger: Ledger) -> Plan:
        """Return the plan that the ledger has of this run, or make it and write it down."""
        trained = names(self.store, "train")
        known = ledger.plans.get(self.run)
        if known is None:
            plan = plan_for(self.settings, subjects=len(self.store.persons("train")))
            self._refuse_rounds(ledger, plan)
            ledger.note_plan(self.run, trained, asdict(plan))
            return plan
        if known["cohort"] != ledger.cohort_of(trained):
            raise PrivacyError(
                f"site {self.store.site}: the training subjects changed since run {self.run} began, and its"
                " noise was computed for those; begin a new run (run.name)"
            )
        return Plan(**{field.name: known[field.name] for field in fields(Plan)})

    def _refuse_rounds(self, ledger: Ledger, plan: Plan) -> None:
        local, rounds = self.settings.training.local_steps, self.settings.federation.rounds
        self._refuse_too_much(ledger, lambda n: plan.release(n * local), rounds, "round", split="train")

    def _refuse_too_much(
        self, ledger: Ledger, release: Callable[[int], Release], wanted: int, what: str, *, split: str
    ) -> None:
        """Refuse so many releases that the policy's budget of these people does not hold."""
        if self.policy is None or not wanted:
            return
        limit, persons = self._lifetime(ledger, self.policy), names(self.store, split)

        def cost(number: int) -> float:
            return ledger.spent(persons, limit, more=[release(number)] if number else [])

        if (whole := cost(wanted)) > limit.epsilon:
            fitting = largest(lambda n: cost(n) <= limit.epsilon, wanted)
            whom = "" if split == "train" else " of those who validate"
            raise BudgetError(
                f"site {self.store.site}: {wanted} {what}s of this run would bring epsilon{whom} from"
                f" {cost(0):.2f} to {whole:.2f}, the policy allows {limit.epsilon:g} over all runs (unit"
                f" subject, delta {limit.delta:g}); {fitting} {what}(s) would fit. Nothing was"
                " spent"
            )

    def _reserve(
        self, ledger: Ledger, identity: str, release: Release, task: TrainTask, mechanism: str, *, split: str
    ) -> None:
        ledger.reserve(
            identity,
            release,
            run=self.run,
            number=task.round,
            mechanism=mechanism,
            persons=names(self.store, split),
            limits=self.limits(ledger),
        )

    def _identity(self, task: TrainTask, mechanism: str = TRAINING) -> str:
        return f"{self.run}/{task.round}/{mechanism}/{task_key(task)[:16]}"


def refuse_large_delta(store: SiteStore, deltas: Mapping[str, float]) -> None:
    """Refuse deltas, by name, that would let one of a store's people be published.

    Raises
    ------
    PrivacyError
        With a line for each that is 1 / subjects or more, of those who train or those who validate, whichever
        are more.
    """
    most = max(len(store.persons(split)) for split in ("train", "valid"))
    problems = Problems(f"site {store.site}: this is not private here, and nothing was spent")
    for name, delta in deltas.items():
        if problem := delta_problem(name, delta, subjects=most):
            problems.add(problem)
    problems.raise_if_any(PrivacyError)
