# SPDX-License-Identifier: Apache-2.0
"""An audit of the mechanism in one run: canaries among the subjects, and guesses about who was there.

A canary (Nasr et al. 2302.07956) is a subject whose whole gradient lies at one coordinate of its own: nobody
can be seen more easily. A coin each says whether it is among the real subjects. The attacker sees what the
mechanism lets go of, adds it up over the steps at each canary's coordinate, and guesses. What the guesses
say about epsilon is `bound`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pasta_model.config import Settings
from pasta_model.errors import PrivacyError
from pasta_model.privacy.accounting import epsilon
from pasta_model.privacy.attacks.bound import lower_bound
from pasta_model.privacy.plan import Plan, largest
from pasta_model.privacy.subjects import Subjects
from pasta_model.privacy.training import Chance, private_steps
from pasta_model.training import Place

Look = Callable[[Sequence[Tensor]], None]  # is shown what every step lets go of
OneRound = Callable[[int, Subjects, Look], object]  # trains the round of this number over these subjects
Claim = Callable[[int], float]  # epsilon of so many steps
SUREST = 4  # a quarter at each end is guessed: fixed before looking; of the middle the scores say little
LENGTH = 10.0  # of a canary's gradient, in clip norms: clipping that is not done shows


@dataclass(frozen=True)
class CanaryAudit:
    """What one run with canaries says.

    Attributes
    ----------
    claimed
        Epsilon that is claimed of the steps: by a ledger, or by the accountant.
    lower_bound
        Epsilon that the guesses show, with `confidence`.
    ceiling
        What they would show if all were right: no audit of so many canaries sees more.
    steps
        How many the run had.
    """

    claimed: float
    lower_bound: float
    ceiling: float
    confidence: float
    delta: float
    canaries: int
    guesses: int
    correct: int
    steps: int

    @property
    def caught(self) -> bool:
        """Whether the claim is refuted."""
        return self.lower_bound > self.claimed

    @property
    def blind(self) -> bool:
        """Whether no leak of any size could have been seen beside this claim."""
        return self.ceiling <= self.claimed


class WithCanaries:
    """Subjects with canaries among them (see `privacy.subjects.Subjects`).

    Parameters
    ----------
    parameters
        In the order of the optimizer.
    coordinates
        (m,) of each canary, counted through all parameters.
    present
        (m,) whether it takes part.
    length
        Of a canary's gradient.
    """

    def __init__(
        self,
        subjects: Subjects,
        parameters: Sequence[nn.Parameter],
        coordinates: NDArray[np.int64],
        *,
        present: NDArray[np.bool_],
        length: float,
    ) -> None:
        self._subjects = subjects
        self._parameters = parameters
        self._length = length
        ends = np.cumsum([p.numel() for p in parameters])
        self._owner = np.searchsorted(ends, coordinates, side="right")
        self._within = coordinates - (ends - [p.numel() for p in parameters])[self._owner]
        self._canaries = {f"canary {i}": i for i in np.flatnonzero(present).tolist()}  # no person has a space
        self.names: Sequence[str] = (*subjects.names, *self._canaries)

    def backward(self, name: str) -> Tensor:
        """Leave a canary's or a subject's gradient."""
        if name not in self._canaries:
            return self._subjects.backward(name)
        canary = self._canaries[name]
        parameter = self._parameters[self._owner[canary]]
        parameter.grad = torch.zeros_like(parameter, requires_grad=False)
        place = np.unravel_index(self._within[canary], parameter.shape)
        parameter.grad[tuple(int(i) for i in place)] = self._length
        return torch.zeros((), device=parameter.device)

    def seen(self, gradients: Sequence[Tensor]) -> NDArray[np.float64]:
        """Read all canaries' coordinates, (m,), off what was let go of."""
        values = np.zeros(len(self._owner))
        for owner in np.unique(self._owner):
            mine = self._owner == owner
            index = torch.from_numpy(self._within[mine]).to(gradients[owner].device)
            values[mine] = gradients[owner].reshape(-1)[index].double().cpu().numpy()
        return values


def audit_canaries(
    network: nn.Module,
    subjects: Subjects,
    optimizer: torch.optim.Optimizer,
    *,
    settings: Settings,
    plan: Plan,
    canaries: int,
    rounds: int,
    rng: np.random.Generator,
    one_round: OneRound | None = None,
    claim: Claim | None = None,
    chance: Chance | None = None,
    confidence: float = 0.95,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> CanaryAudit:
    """Run so many rounds of a plan with canaries, and guess which were in.

    Parameters
    ----------
    network, subjects, optimizer
        As in private training; the network is trained and should be thrown away.
    rng
        Of the coins and coordinates.
    one_round
        How a round is made, a site's own way, say; by default by private training and the plan.
    claim
        Asked when all rounds are made, of a site's ledger, say; by default the accountant, of the plan.
    chance
        For tests; by default the mechanism's secret noise and draws.

    Raises
    ------
    PrivacyError
        When the network has fewer coordinates than there are canaries.
    """
    parameters: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]
    coordinates = _coordinates(parameters, canaries, rng)
    present = rng.random(canaries) < 0.5
    length = LENGTH * plan.max_grad_norm
    joined = WithCanaries(subjects, parameters, coordinates, present=present, length=length)
    scores, steps, done = np.zeros(canaries), rounds * settings.training.local_steps, 0

    def look(gradients: Sequence[Tensor]) -> None:
        nonlocal done
        scores[:] += joined.seen(gradients)
        done += 1
        on_step(done, steps)

    one_round = one_round or _planned(network, optimizer, settings=settings, plan=plan, chance=chance)
    for number in range(rounds):
        one_round(number, joined, look)
    claimed = (claim or partial(accounted, plan))(steps)
    return judged(scores, present, claimed=claimed, delta=plan.delta, confidence=confidence, steps=steps)


def accounted(plan: Plan, steps: int) -> float:
    """Return what the accountant says of so many steps of a plan."""
    return epsilon([plan.release(steps)], delta=plan.delta, accountant=plan.accountant)


def _planned(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    settings: Settings,
    plan: Plan,
    chance: Chance | None,
) -> OneRound:
    """Make rounds by private training itself, without a site around it."""

    def one_round(number: int, subjects: Subjects, look: Look) -> None:
        private_steps(
            network,
            subjects,
            optimizer,
            settings=settings,
            place=Place("audit", number),
            plan=plan,
            chance=chance,
            on_release=look,
        )

    return one_round


def judged(
    scores: NDArray[np.float64],
    present: NDArray[np.bool_],
    *,
    claimed: float,
    delta: float,
    confidence: float,
    steps: int,
) -> CanaryAudit:
    """Guess the quarter with the highest scores in and that with the lowest out; abstain from the rest."""
    quarter = len(scores) // SUREST
    order = np.argsort(scores, kind="stable")
    correct = int(present[order[len(order) - quarter :]].sum() + (~present[order[:quarter]]).sum())
    bound = partial(
        lower_bound, canaries=len(scores), guesses=2 * quarter, delta=delta, confidence=confidence
    )
    return CanaryAudit(
        claimed=claimed,
        lower_bound=bound(correct=correct),
        ceiling=bound(correct=2 * quarter),
        confidence=confidence,
        delta=delta,
        canaries=len(scores),
        guesses=2 * quarter,
        correct=correct,
        steps=steps,
    )


def telling_rounds(settings: Settings, plan: Plan, *, canaries: int, confidence: float = 0.95) -> int:
    """Return how many rounds to audit: at most the plan's, at least one.

    The more rounds, the larger the epsilon that is claimed, and beyond the ceiling no leak can be seen: so
    many rounds that half of the ceiling is claimed.
    """
    guesses = 2 * (canaries // SUREST)
    ceiling = lower_bound(
        canaries=canaries, guesses=guesses, correct=guesses, delta=plan.delta, confidence=confidence
    )

    def holds(rounds: int) -> bool:
        return accounted(plan, rounds * settings.training.local_steps) <= ceiling / 2

    return max(1, largest(holds, settings.federation.rounds))


def refuse_too_many(parameters: Iterable[Tensor], canaries: int) -> None:
    """Refuse more canaries than the network has coordinates.

    Raises
    ------
    PrivacyError
        With both numbers.
    """
    total = sum(p.numel() for p in parameters)
    if not SUREST <= canaries <= total:
        raise PrivacyError(
            f"{canaries} canaries for a network of {total} trained values; each needs a value of its own:"
            f" wanted {SUREST} to {total} canaries"
        )


def _coordinates(parameters: Sequence[Tensor], canaries: int, rng: np.random.Generator) -> NDArray[np.int64]:
    refuse_too_many(parameters, canaries)
    total = sum(p.numel() for p in parameters)
    return rng.choice(total, size=canaries, replace=False, shuffle=False).astype(np.int64)
