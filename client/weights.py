# SPDX-License-Identifier: Apache-2.0
"""What weights a site has: those it received, those that every site can make from the seed, its own.

A run that starts from a model (`run.initial`) sends its weights. The part of them that is not exchanged comes
once and stays in the run's folder. The name of the model's file means nothing here: a site reads no file that
a run names.
"""

from collections.abc import Iterator, Mapping

from safetensors.torch import load_file
from torch import Tensor

from client.memory import PERSONAL, Memory
from pasta_model.checkpoint import kept_layout, new_network, new_translator
from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES
from pasta_model.diffusion.cycle import Translator
from pasta_model.errors import CheckpointError, ExchangeError, StaleWeightsError
from pasta_model.exchange.contents import TrainTask
from pasta_model.exchange.packing import pack, unpack
from pasta_model.exchange.steps import walk
from pasta_model.exchange.vectors import Floats, Vector, digest, float_buffers, write_vector

START = "start.safetensors"  # what is not exchanged, beside the folders of rounds


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
        self.kept = kept_layout(settings)
        self.sent = bool(settings.run.initial and self.kept.slots)

    def holds(self) -> str:
        """SHA-256 of the shared weights that need not be sent; empty when the site has no way to any."""
        if self.sent and not (self.memory.folder / START).is_file():
            return ""
        held = self.memory.holds()
        return held or ("" if self.settings.run.initial else digest(self._initial().values()))

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
        """Put the network together: what was received, what is this site's own, what nobody trains.

        Raises
        ------
        StaleWeightsError
            When the site does not have what the run's model says of the parts that are not exchanged.
        """
        state = unpack(buffers, self.layout) | self._start(task)
        earlier = self.memory.before(task.round)
        if earlier is not None and (earlier / PERSONAL).is_file():
            state |= load_file(earlier / PERSONAL)
        return new_translator(self.settings, state)

    def _initial(self) -> dict[str, Floats]:
        """Return the shared weights that every site can make for itself from the seed."""
        state = new_network(self.settings).state_dict()
        return pack({slot.name: state[slot.name] for slot in self.layout.slots})

    def _start(self, task: TrainTask) -> dict[str, Tensor]:
        """Return what is not exchanged, as the run began with it."""
        if self.sent != bool(task.start):
            raise ExchangeError("the task does not say what the run's settings say of where it starts from")
        if not self.kept.slots:
            return {}
        if not self.sent:
            state = new_network(self.settings).state_dict()
            return {slot.name: state[slot.name] for slot in self.kept.slots}
        self._take_in(task)
        try:
            found = dict(Vector(self.memory.folder / START, self.kept).pieces())
        except CheckpointError as error:
            raise StaleWeightsError(f"site {task.site} does not have what the run starts from") from error
        if digest(found.values()) != task.start:
            raise StaleWeightsError(f"site {task.site} has something else than what the run starts from")
        return unpack(found, self.kept)

    def _take_in(self, task: TrainTask) -> None:
        """Keep what is not exchanged, if the task brings it."""
        if task.rest is None:
            return
        sizes = float_buffers(self.kept)
        task.rest.check(sizes)
        pieces = [task.rest.decode(buffer, size) for buffer, size in sizes.items()]
        if digest(pieces) != task.start:
            raise ExchangeError("the parts that are not exchanged are not those that the task names")
        self.memory.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_vector(self.memory.folder / START, self.kept, pieces)
