# SPDX-License-Identifier: Apache-2.0
"""The plan of a private run at one site: how much noise, at what cost; made before anything is spent."""

from collections.abc import Callable
from dataclasses import dataclass

from pasta_model.config import Settings
from pasta_model.errors import PrivacyError, Problems
from pasta_model.privacy.accounting import Accountant, Release, calibrated, epsilon

MOST_STEPS = 1_000_000  # accountants take minutes for more


@dataclass(frozen=True)
class Plan:
    """What a site does in every step, and in how many.

    Attributes
    ----------
    subjects
        Who train here; each is in a step with probability `sampling_rate`.
    steps
        Of the whole run.
    epsilon
        What all of them cost at `delta`.
    """

    subjects: int
    sampling_rate: float
    noise_multiplier: float
    max_grad_norm: float
    steps: int
    epsilon: float
    delta: float
    accountant: Accountant

    @property
    def expected_subjects(self) -> float:
        """How many subjects are in a step on average: what the noisy sum is divided by."""
        return self.sampling_rate * self.subjects

    def release(self, steps: int) -> Release:
        """Return so many steps of the plan, as the accountants count them."""
        return Release(self.noise_multiplier, self.sampling_rate, steps)


@dataclass(frozen=True)
class ErrorPlan:
    """What the noised validation errors of a run cost those who validate, an account of its own.

    Attributes
    ----------
    errors
        How often one is told: with every update, and of the last model.
    """

    errors: int
    noise_multiplier: float
    epsilon: float
    delta: float

    def release(self, errors: int) -> Release:
        """Return so many errors, as the accountants count them: all who validate are in each."""
        return Release(self.noise_multiplier, 1.0, errors)


def plan_for(settings: Settings, *, subjects: int) -> Plan:
    """Make the plan of a run at a site with so many training subjects.

    Raises
    ------
    PrivacyError
        With a line for everything that is impossible.
    """
    p, steps = settings.privacy, settings.total_steps
    refuse_impossible(settings, subjects=subjects)
    rate = min(1.0, p.subjects_per_step / subjects)
    sigma = p.noise_multiplier or calibrated(
        epsilon=p.epsilon, delta=p.delta, sampling_rate=rate, steps=steps, accountant=p.accountant
    )
    cost = epsilon([Release(sigma, rate, steps)], delta=p.delta, accountant=p.accountant)
    if cost > p.epsilon:
        raise PrivacyError(_too_much(settings, Release(sigma, rate, steps), cost))
    return Plan(subjects, rate, sigma, p.max_grad_norm, steps, cost, p.delta, p.accountant)


def error_plan(settings: Settings, *, trains: bool = True) -> ErrorPlan | None:
    """Make the plan of a run's noised errors at a site; None where none is told.

    Parameters
    ----------
    trains
        A site that is held out tells one error only, of the last model.

    Raises
    ------
    PrivacyError
        When they cost more than the run promises.
    """
    p, number = settings.privacy, settings.federation.rounds + 1 if trains else 1
    if p.unit != "subject" or p.metrics != "noised":
        return None

    def cost(errors: int) -> float:
        one = Release(p.metrics_noise_multiplier, 1.0, errors)
        return epsilon([one], delta=p.delta, accountant=p.accountant)

    made = ErrorPlan(number, p.metrics_noise_multiplier, cost(number), p.delta)
    if made.epsilon > p.epsilon:
        enough = calibrated(
            epsilon=p.epsilon, delta=p.delta, sampling_rate=1.0, steps=number, accountant=p.accountant
        )
        fitting = largest(lambda n: cost(n) <= p.epsilon, number)
        raise PrivacyError(
            f"{number} noised validation error(s) at privacy.metrics-noise-multiplier"
            f" {made.noise_multiplier:g} cost those who validate epsilon {made.epsilon:.2f}, wanted at most"
            f" {p.epsilon:g}; that holds {fitting}. Set it to {enough:g} or more, lower federation.rounds, or"
            " set privacy.metrics = 'withheld'"
        )
    return made


def delta_problem(name: str, delta: float, *, subjects: int) -> str:
    """Say why a delta promises nothing to so many; empty where it does promise something.

    With so large a delta, a mechanism that publishes somebody's scans would keep to it.
    """
    if subjects < 1 or delta < 1 / subjects:
        return ""
    return (
        f"{name} is {delta:g}, wanted less than 1 / subjects = {1 / subjects:.2g}: with more, publishing one"
        f" of {subjects} scans would count as private"
    )


def refuse_impossible(settings: Settings, *, subjects: int) -> None:
    """Refuse what promises nothing, all problems at once.

    Raises
    ------
    PrivacyError
        When nobody trains, or delta is so large that a mechanism which publishes a subject would keep to it.
    """
    problems = Problems("this run cannot be private here")
    if settings.privacy.unit != "subject":
        problems.add(f"privacy.unit is {settings.privacy.unit!r}, wanted 'subject'")
    if subjects < 1:
        problems.add("no subject trains here, wanted at least 1")
    if settings.total_steps > MOST_STEPS:
        problems.add(
            f"found {settings.total_steps:,} steps, wanted at most {MOST_STEPS:,}: lower federation.rounds"
        )
    if problem := delta_problem("privacy.delta", settings.privacy.delta, subjects=subjects):
        problems.add(problem)
    problems.raise_if_any(PrivacyError)


def _too_much(settings: Settings, release: Release, cost: float) -> str:
    p, local = settings.privacy, settings.training.local_steps

    def holds(rounds: int) -> bool:
        part = Release(release.noise_multiplier, release.sampling_rate, rounds * local)
        return epsilon([part], delta=p.delta, accountant=p.accountant) <= p.epsilon

    fitting = largest(holds, settings.federation.rounds)
    return (
        f"{settings.federation.rounds} rounds of {local} steps at noise multiplier"
        f" {release.noise_multiplier:g} cost epsilon {cost:.2f}, wanted at most {p.epsilon:g}; that holds"
        f" {fitting} round(s). Lower federation.rounds, or set privacy.noise-multiplier = 0: then the least"
        " noise that is enough is computed"
    )


def largest(holds: Callable[[int], bool], most: int) -> int:
    """Return the largest number up to `most` for which `holds`, which fails from some number on; or 0."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
