# SPDX-License-Identifier: Apache-2.0
"""Sites that answer constants to a real server: every number of a run can be computed by hand.

The model is one weight matrix of 2 x 2 that starts at zero; a site adds its own constant to what it gets.
A has 1 training subject and adds 4, B has 3 and adds 8, so without a cap a round adds 7.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from pasta_model.checkpoint import load_checkpoint
from pasta_model.config import Settings, settings_from_flat
from pasta_model.data.clinical import Moments
from pasta_model.exchange.contents import (
    Invitation,
    NodeReport,
    Parcel,
    SiteReport,
    TrainReport,
    TrainTask,
)
from pasta_model.exchange.packing import Layout, pack
from pasta_model.exchange.steps import encode_step, walk
from pasta_model.exchange.vectors import digest, float_buffers

SUBJECTS = {"A": 1, "B": 3, "C": 4, "D": 2}
ADDS = {"A": 4.0, "B": 8.0, "C": -2.0, "D": 6.0}
ERRORS = {"A": 0.4, "B": 0.2, "C": 0.1, "D": 0.3}
AGES = {"A": [60.0], "B": [70.0, 80.0, 90.0], "C": [70.0] * 4, "D": [65.0, 75.0]}


class OneMatrix(torch.nn.Module):
    """The smallest model."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2, 2))


LAYOUT = Layout.of(OneMatrix().state_dict())
SIZES = float_buffers(LAYOUT)
START = pack(OneMatrix().state_dict())


def parcel_of(message: Message) -> Parcel:
    """Take the parcel out of a message."""
    arrays = message.content.array_records["arrays"]
    return Parcel(dict(message.content.config_records["values"]), {k: a.numpy() for k, a in arrays.items()})


def message_of(parcel: Parcel, message: Message) -> Message:
    """Answer a message with a parcel."""
    arrays = ArrayRecord({k: Array(v) for k, v in parcel.arrays.items()})
    return Message(RecordDict({"arrays": arrays, "values": ConfigRecord(parcel.values)}), reply_to=message)


class Sites:
    """A ClientApp for node n that serves the n-th site, as real ones do: by steps to what they hold.

    Attributes
    ----------
    held
        Weights that a site has, by site and SHA-256; empty a site's to make it forget.
    trained
        (site, round) of every training, in order.
    received
        (site, round, first weight) of every training.
    tasks
        What came, task by task.
    measured
        (site, first weight) of every evaluation.
    on_train
        Is called before a site trains.
    """

    def __init__(self, names: str = "AB", *, codec: str = "float32") -> None:
        self.names = names
        self.codec = codec
        self.sizes = float_buffers(LAYOUT)
        self.start = pack(OneMatrix().state_dict())
        self.held: dict[str, dict[str, dict[str, np.ndarray]]] = {name: {} for name in names}
        self.rest: dict[str, dict[str, np.ndarray]] = {}
        self.trained: list[tuple[str, int]] = []
        self.received: list[tuple[str, int, float]] = []
        self.tasks: list[TrainTask] = []
        self.measured: list[tuple[str, float]] = []
        self.on_train: Callable[[TrainTask], None] = lambda task: None
        self.app = ClientApp()
        self.app.query("sites")(self.sites)
        self.app.query("join")(self.join)
        self.app.train()(self.train)
        self.app.evaluate()(self.evaluate)

    def adds(self, site: str, weights: float) -> float:
        """What a site adds to every weight."""
        return ADDS[site]

    def error(self, task: TrainTask, weights: float) -> float:
        """The model gets better with every round, but the third measurement is worse."""
        return ERRORS[task.site] / (task.round + 1) if task.round < 2 else 9.0

    def sites(self, message: Message, context: Context) -> Message:
        """Name the node's site."""
        return message_of(NodeReport((self.names[context.node_id - 1],)).parcel(), message)

    def join(self, message: Message, context: Context) -> Message:
        """Tell subjects and ages, and what the site holds."""
        site = Invitation.of(parcel_of(message)).site
        moments = Moments.of(np.array([[age, 0.0, 12.0] for age in AGES[site]]))
        holds = [*self.held[site], digest(self.start.values())]
        return message_of(SiteReport(site, SUBJECTS[site], 1, moments, holds[-2:][0]).parcel(), message)

    def train(self, message: Message, context: Context) -> Message:
        """Add the site's constant."""
        task = TrainTask.of(parcel_of(message))
        self.tasks.append(task)
        self.on_train(task)
        weights = self.reached(task)
        if weights is None:
            return Message(Error(100, "StaleWeightsError (reference x in the site's log)"), reply_to=message)
        self.held[task.site][task.target] = weights
        first = float(next(iter(weights.values()))[0])
        self.trained.append((task.site, task.round))
        self.received.append((task.site, task.round, first))
        rest = self.rest.get(task.site, {name: np.float32(0) for name in self.sizes})
        added = np.float32(self.adds(task.site, first))
        wanted = [(name, np.full(size, added, np.float32) + rest[name]) for name, size in self.sizes.items()]
        update, self.rest[task.site] = encode_step(self.codec, wanted)
        error = self.error(task, first)
        report = TrainReport(task.site, task.round, SUBJECTS[task.site], 1.5, error, 0.1, update)
        return message_of(report.parcel(), message)

    def evaluate(self, message: Message, context: Context) -> Message:
        """Measure what the steps lead to."""
        task = TrainTask.of(parcel_of(message))
        weights = self.reached(task)
        if weights is None:
            return Message(Error(100, "StaleWeightsError (reference x in the site's log)"), reply_to=message)
        first = float(next(iter(weights.values()))[0])
        self.measured.append((task.site, first))
        report = TrainReport(task.site, task.round, 1, None, self.error(task, first), 0.1, None)
        return message_of(report.parcel(), message)

    def reached(self, task: TrainTask) -> dict[str, np.ndarray] | None:
        """Walk the steps from what is held; None where that is something else."""
        start = {digest(self.start.values()): self.start} | self.held[task.site]
        if task.base and task.base not in start:
            return None
        base = start[task.base].items() if task.base else None
        found = dict(zip(self.sizes, walk(base, task.steps, self.sizes), strict=True))
        return found if digest(found.values()) == task.target else None


def make_settings(folder: Path, output: Path, **changes: bool | float | str) -> Settings:
    """Settings of two quick rounds without a cap; the sites' stores lie in `folder`/sites."""
    values: dict[str, bool | float | str] = {
        "run.output": str(output),
        "data.sites": str(folder / "sites"),
        "data.clinical": "demographics",
        "federation.rounds": 2,
        "federation.join-deadline": 0.01,
        "federation.weight-cap": 1.0,
        "federation.patience": 0.0,
        "training.ema-decay": 0.5,
        "training.local-steps": 1,
    }
    return settings_from_flat(
        values | {k.replace("__", ".").replace("_", "-"): v for k, v in changes.items()}
    )


def prepared(folder: Path, names: Iterable[str]) -> None:
    """Leave the trace of prepared sites in `folder`/sites: in a simulation those are invited."""
    for name in names:
        index = folder / "sites" / name / "index.json"
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_text(json.dumps({"site": name}))


def weight(path: Path) -> float:
    """The value of all four weights of a saved model."""
    (found,) = load_checkpoint(path).state["weight"].unique().tolist()
    return float(found)


def after(folder: Path, number: int, name: str = "master") -> float:
    """The value of all weights of a vector of the run after so many rounds."""
    return weight(folder / "rounds" / f"after-{number:05d}" / f"{name}.safetensors")


def spoil(
    site: str, number: int, change: Callable[[Message, Parcel], Message | None]
) -> Callable[[Message, Message], Message | None]:
    """Change what a site answers to the training of one round."""

    def tamper(message: Message, reply: Message) -> Message | None:
        if message.metadata.message_type != "train" or reply.has_error():
            return reply
        task = TrainTask.of(parcel_of(message))
        return change(message, parcel_of(reply)) if (task.site, task.round) == (site, number) else reply

    return tamper


def with_values(**values: object) -> Callable[[Message, Parcel], Message]:
    """Change values of an answer."""
    changed = {name.replace("_", "-"): value for name, value in values.items()}
    return lambda message, parcel: message_of(Parcel(parcel.values | changed, parcel.arrays), message)


def with_arrays(**buffers: object) -> Callable[[Message, Parcel], Message]:
    """Put other arrays into an answer."""
    arrays = {name.replace("_", "."): np.asarray(buffer) for name, buffer in buffers.items()}
    return lambda message, parcel: message_of(Parcel(parcel.values, arrays), message)


def refusing(message: Message, parcel: Parcel) -> Message:
    """Answer with an error."""
    return Message(Error(100, "StoreError (reference x)"), reply_to=message)
