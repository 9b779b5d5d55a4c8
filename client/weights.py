# SPDX-License-Identifier: Apache-2.0
"""What weights a site has: those it received, those that every site can make from the seed, its own."""

from collections.abc import Iterator, Mapping

from safetensors.torch import load_file

from client.memory import PERSONAL, Memory
from pasta_model.checkpoint import kept_layout, new_network, new_translator
from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES
from pasta_model.diffusion.cycle import Translator
from pasta_model.errors import ExchangeError, StaleWeightsError
from pasta_model.exchange.contents import TrainTask
from pasta_model.exchange.packing import pack, unpack
from pasta_model.exchange.steps import walk
from pasta_model.exchange.vectors import Floats, digest, float_buffers


class Weights:
    """The weights of one run at one site.

    Parameters
    ----------
    settings
        Of the run.
    memory
        What the site remembers of it.
    """

    def __init__(self, settings: Settings, memory: Memory) -> None:
        self.settings = settings
        self.memory = memory
        self.layout = memory.layout
        self.sizes = float_buffers(memory.layout)

    def holds(self) -> str:
        """SHA-256 of the shared weights that need not be sent."""
        return self.memory.holds() or digest(self._initial().values())

    def walk(self, task: TrainTask) -> Iterator[Floats]:
        """Go from weights that the site has to those that it is asked about.

        Raises
        ------
        StaleWeightsError
            When it does not have the weights that the steps start from.
        """
        columns = len(SCHEMES[self.settings.data.clinical].columns)
        if {len(task.standardisation.mean), len(task.standardisation.spread)} != {columns}:
            raise ExchangeError(f"the standardisation does not have {columns} columns; use one scheme")
        if not task.base:
            return walk(None, task.steps, self.sizes)
        held = self.memory.holding(task.base)
        if held is not None:
            return walk(held.pieces(), task.steps, self.sizes)
        initial = self._initial()
        if digest(initial.values()) != task.base:
            raise StaleWeightsError(f"site {task.site} does not have the weights {task.base[:12]}")
        return walk(initial.items(), task.steps, self.sizes)

    def translator(self, buffers: Mapping[str, Floats], task: TrainTask) -> Translator:
        """Put the network together: what was received, what is this site's own, what nobody trains."""
        state = unpack(buffers, self.layout)
        if kept_layout(self.settings).slots:
            state = new_network(self.settings).state_dict() | state
        earlier = self.memory.before(task.round)
        if earlier is not None and (earlier / PERSONAL).is_file():
            state |= load_file(earlier / PERSONAL)
        return new_translator(self.settings, state)

    def _initial(self) -> dict[str, Floats]:
        """Return the shared weights that every site can make for itself from the seed."""
        state = new_network(self.settings).state_dict()
        return pack({slot.name: state[slot.name] for slot in self.layout.slots})
