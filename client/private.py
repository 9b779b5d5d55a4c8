# SPDX-License-Identifier: Apache-2.0
"""What a site asks its privacy ledger, before it trains and before it tells an error.

Where `privacy.unit` is not `subject` all of it is let through and nothing is written.
"""

from collections.abc import Iterator
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
from pasta_model.errors import BudgetError, PrivacyError
from pasta_model.exchange.contents import TrainTask
from pasta_model.privacy.accounting import Release
from pasta_model.privacy.metrics import noised_validation_mae
from pasta_model.privacy.plan import Plan, largest, plan_for
from pasta_model.privacy.subjects import SlabSubjects
from pasta_model.privacy.training import private_steps
from pasta_model.seeding import numpy_generator, torch_generator
from pasta_model.training import Place, train_steps
from pasta_model.validation import validation_mae

TRAINING, VALIDATION = "training", "validation error"


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
            When it is impossible here, or its rounds cost more than is left.
        """
        if not self.on or self.store.site in self.settings.federation.held_out_sites:
            return
        ledger = open_ledger(self.path, self.store)
        if self.run not in ledger.plans:
            self._refuse_too_much(ledger, plan_for(self.settings, subjects=len(self.store.persons("train"))))

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
        if self.metrics == "withheld" or not self._error_may_leave():
            return None
        release = Release(self.settings.privacy.metrics_noise_multiplier, 1.0, 1)
        identity = self._identity(task, VALIDATION)
        with self._alone() as ledger:
            try:
                self._reserve(ledger, identity, release, task, VALIDATION, split="valid")
            except BudgetError:
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

    def _error_may_leave(self) -> bool:
        """Whether anybody validates, and the policy would not keep the error back: that would be a waste."""
        validating = len(self.store.persons("valid"))
        return validating > 0 and (
            self.policy is None or self.policy.may_leave("valid-mae", subjects=validating)
        )

    def _planned(self, ledger: Ledger) -> Plan:
        """Return the plan that the ledger has of this run, or make it and write it down."""
        trained = names(self.store, "train")
        known = ledger.plans.get(self.run)
        if known is None:
            plan = plan_for(self.settings, subjects=len(self.store.persons("train")))
            self._refuse_too_much(ledger, plan)
            ledger.note_plan(self.run, trained, asdict(plan))
            return plan
        if known["cohort"] != ledger.cohort_of(trained):
            raise PrivacyError(
                f"site {self.store.site}: the training subjects changed since run {self.run} began, and its"
                " noise was computed for those; begin a new run (run.name)"
            )
        return Plan(**{field.name: known[field.name] for field in fields(Plan)})

    def _refuse_too_much(self, ledger: Ledger, plan: Plan) -> None:
        if self.policy is None:
            return
        limit = self._lifetime(ledger, self.policy)
        trained, local = names(self.store, "train"), self.settings.training.local_steps

        def cost(rounds: int) -> float:
            more = [plan.release(rounds * local)] if rounds else []
            return ledger.spent(trained, limit, more=more)

        rounds = self.settings.federation.rounds
        if (whole := cost(rounds)) > limit.epsilon:
            fitting = largest(lambda n: cost(n) <= limit.epsilon, rounds)
            raise BudgetError(
                f"site {self.store.site}: {rounds} rounds of this run would bring epsilon from {cost(0):.2f}"
                f" to {whole:.2f}, the policy allows {limit.epsilon:g} over all runs (unit subject, delta"
                f" {limit.delta:g}); {fitting} round(s) would fit. Nothing was spent"
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
