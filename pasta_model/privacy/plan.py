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
    if subjects >= 1 and settings.privacy.delta >= 1 / subjects:
        problems.add(
            f"privacy.delta is {settings.privacy.delta:g}, wanted less than 1 / subjects ="
            f" {1 / subjects:.2g}: with more, publishing one of {subjects} scans would count as private"
        )
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
