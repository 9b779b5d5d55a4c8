# SPDX-License-Identifier: Apache-2.0
"""What a site has to be sent so that it has the global weights: nothing, a few steps, or all of them."""

from pasta_model.exchange.steps import Step
from server.records import RunFolder


class Broadcast:
    """The global weights of a round, for sites that hold different things.

    Parameters
    ----------
    folder
        Of the run; it keeps the last steps.
    number
        Rounds that are completed.
    target
        SHA-256 of the global weights as the sites know them.
    """

    def __init__(self, folder: RunFolder, number: int, target: str) -> None:
        self.target = target
        self._folder = folder
        self._number = number
        self._made: dict[str, tuple[str, tuple[Step, ...]]] = {target: (target, ())}

    def for_holder(self, holds: str) -> tuple[str, tuple[Step, ...]]:
        """Return the base and the steps from it for a site that holds these weights.

        The same base gives the same arrays, so that the transport converts and keeps them once.
        """
        if self._number == 0 and holds and self._folder.from_seed:
            return self._made[self.target]  # every site makes them itself
        if holds not in self._made:
            self._made[holds] = self._chain(holds) or self._whole()
        return self._made[holds]

    def _chain(self, holds: str) -> tuple[str, tuple[Step, ...]] | None:
        """Go back from the global weights, step by step, to those that the site holds."""
        steps: list[Step] = []
        base, size = self.target, 4 * sum(self._folder.sizes.values())
        for number in range(self._number, 0, -1):
            found = self._folder.step(number)
            if found is None or found.target != base:
                return None
            steps.insert(0, found.step)
            base = found.base
            if sum(step.nbytes for step in steps) > size:
                return None
            if base == holds:
                return base, tuple(steps)
        return None

    def _whole(self) -> tuple[str, tuple[Step, ...]]:
        if "" not in self._made:
            weights = self._folder.reference(self._number)
            self._made[""] = "", (Step("float32", dict(weights.pieces())),)
        return self._made[""]
