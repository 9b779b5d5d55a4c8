# SPDX-License-Identifier: Apache-2.0
"""What a server asks a real site, without a server: its weights, and the tasks that lead to them."""

from collections.abc import Mapping

import numpy as np

from pasta_model.checkpoint import exchanged_layout, new_network
from pasta_model.config import Settings
from pasta_model.data.clinical import Standardisation
from pasta_model.exchange.contents import Parcel, TrainReport, TrainTask
from pasta_model.exchange.packing import pack
from pasta_model.exchange.steps import Step, walk
from pasta_model.exchange.vectors import digest, float_buffers

PLAIN = Standardisation((65.0, 0.0, 14.0, 0.0, 0.0, 0.0), (10.0,) * 6)
SMALLEST = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"
SMALL: Mapping[str, bool | float | str] = {
    "network__shape": SMALLEST,
    "sampling__hop": 4,
    "training__local_steps": 1,
}


class Leader:
    """A server of one site: its weights follow the site's updates."""

    def __init__(self, settings: Settings, site: str = "A") -> None:
        self.site = site
        self.layout = exchanged_layout(settings)
        self.sizes = float_buffers(self.layout)
        state = new_network(settings).state_dict()
        self.weights = pack({slot.name: state[slot.name] for slot in self.layout.slots})
        self.base = digest(self.weights.values())
        self.steps: tuple[Step, ...] = ()

    def task(self, number: int, standardisation: Standardisation = PLAIN) -> TrainTask:
        """Send the steps since the site was last told."""
        target = digest(self.weights.values())
        return TrainTask(self.site, number, standardisation, self.base, target, self.steps)

    def whole(self, number: int, standardisation: Standardisation = PLAIN) -> TrainTask:
        """Send all weights."""
        step = Step("float32", dict(self.weights))
        return TrainTask(self.site, number, standardisation, "", digest(self.weights.values()), (step,))

    def follow(self, answer: Parcel) -> np.ndarray:
        """Take a site's update as it is; return it as one vector."""
        update = TrainReport.of(answer).update
        assert update is not None
        self.base, self.steps = digest(self.weights.values()), (update,)
        moved = walk(self.weights.items(), [update], self.sizes)
        self.weights = dict(zip(self.sizes, moved, strict=True))
        return np.concatenate([update.decode(buffer, size) for buffer, size in self.sizes.items()])


def vector(answer: Parcel, settings: Settings) -> np.ndarray:
    """A site's update as one vector."""
    return Leader(settings).follow(answer)
