# SPDX-License-Identifier: Apache-2.0
"""What a site remembers of a run, on its own disk: its last two rounds, each a whole folder or none.

A round's folder holds the weights that the site received, AdamW's moments after its training, what the codec
rounded off, its personal parts, and the answer that it gave. Asked the same thing twice, after a crash on
either side, it gives the same answer again and nothing is trained, or released, twice.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor

from pasta_model.checkpoint import Checkpoint, exchanged_layout
from pasta_model.config import Settings
from pasta_model.errors import CheckpointError
from pasta_model.exchange.contents import Parcel, TrainTask
from pasta_model.exchange.packing import Layout
from pasta_model.exchange.vectors import Vector
from pasta_model.files import atomic_directory, clear_partial, remove_folder, write_json

MOST_ROUNDS = 100_000  # folders are sorted by name, five digits
KEPT_ROUNDS = 2  # a server that resumes repeats at most one round
RECEIVED, MOMENTS, REST, PERSONAL = (f"{n}.safetensors" for n in ("received", "moments", "rest", "personal"))


class Memory:
    """The rounds that a site remembers.

    Parameters
    ----------
    folder
        Of one run at one site.
    layout
        Of the weights that are exchanged.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder = folder
        self.layout = layout

    def before(self, number: int) -> Path | None:
        """Return the last round before this one that the site took part in."""
        earlier = [path for path in self._rounds() if path.name < _name(number)]
        return earlier[-1] if earlier else None

    def holding(self, digest: str) -> Vector | None:
        """Return the received weights with this SHA-256, if a remembered round has them."""
        for path in reversed(self._rounds()):
            if _told(path).get("target") == digest:
                return Vector(path / RECEIVED, self.layout)
        return None

    def holds(self) -> str:
        """SHA-256 of the last received weights; empty when none are remembered."""
        rounds = self._rounds()
        return str(_told(rounds[-1])["target"]) if rounds else ""

    def answer(self, task: TrainTask) -> Parcel | None:
        """Return the answer that was given to this very task before."""
        path = self.folder / _name(task.round)
        if not path.is_dir():
            return None
        told = _told(path)
        if told["task"] != task_key(task):
            return None
        answer = Parcel(told["values"], load_arrays(path / "answer.safetensors"))
        self._clear()  # a process that was killed once the round was kept may not have come to it
        return answer

    @contextmanager
    def keep(self, task: TrainTask) -> Iterator[Path]:
        """Yield a folder for what a round leaves; it becomes the round's when the block succeeds."""
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # moments are the site's own
        clear_partial(self.folder)
        for later in self._rounds():
            if later.name > _name(task.round):
                remove_folder(later)  # of an earlier run, or of a server that went back
        with atomic_directory(self.folder / _name(task.round)) as work:
            yield work
        self._clear()

    def forget(self) -> None:
        """Begin afresh: a run starts again at round 0."""
        for path in self._rounds():
            remove_folder(path)

    def _clear(self) -> None:
        """Remove old rounds, and what a killed process left half written or half removed."""
        for old in self._rounds()[:-KEPT_ROUNDS]:
            remove_folder(old)
        clear_partial(self.folder)

    def _rounds(self) -> list[Path]:
        return sorted(self.folder.glob("round-*"))


def combined_model(checkpoint: Checkpoint, store: Path, *, run: str = "") -> tuple[Checkpoint, list[str]]:
    """Put the personal parts that a site remembers into the federation's model.

    Parameters
    ----------
    checkpoint
        The federation's; its own values of the personal parts are those of the start.
    store
        The site's prepared store.
    run
        Name of the run; by default that of the checkpoint.

    Returns
    -------
    The site's model, and the names of the tensors that are its own.

    Raises
    ------
    CheckpointError
        When the model has no personal parts, or this site took no part in its run.
    """
    settings = checkpoint.settings
    if not settings.exchange.personal_parts:
        raise CheckpointError("the model has no personal parts: every site's is the same; use it as it is")
    folder = run_folder(store, settings, run=run)
    last = Memory(folder, exchanged_layout(settings)).before(settings.federation.rounds)
    if last is None:
        raise CheckpointError(f"{folder}: this site took no part in that run; give its store and --run")
    own = load_file(last / PERSONAL)
    return replace(checkpoint, state={**checkpoint.state, **own}), sorted(own)


def run_folder(store: Path, settings: Settings, *, run: str = "") -> Path:
    """Where a site's memory of a run lies."""
    return store / "state" / run_name(settings, run=run)


def run_name(settings: Settings, *, run: str = "") -> str:
    """Return the name of a run with what tells it from others of that name."""
    return f"{run or settings.run.name}-{settings.digest()[:12]}"


def write_answer(work: Path, task: TrainTask, answer: Parcel) -> None:
    """Keep an answer with the task that it answers."""
    save_arrays(answer.arrays, work / "answer.safetensors")
    told = {"task": task_key(task), "target": task.target, "values": answer.values}
    write_json(work / "answer.json", told)


def task_key(task: TrainTask) -> str:
    """SHA-256 of what a task asks; not of the way by which its weights came."""
    s = task.standardisation
    asked = [task.site, task.round, task.target, list(s.mean), list(s.spread)]
    asked += [task.start] if task.start else []
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def save_moments(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Write an optimizer's state."""
    state = optimizer.state_dict()["state"]
    flat = {
        f"{index}.{name}": value.detach().cpu().contiguous()
        for index, values in state.items()
        for name, value in values.items()
    }
    save_file(flat, path)


def load_moments(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Bring back an optimizer's state."""
    content = optimizer.state_dict()
    content["state"] = _nested(load_file(path))
    optimizer.load_state_dict(content)
    # The fused AdamW walks raw memory: moments must lie as their parameters do.
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def _nested(flat: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    return state


def _name(number: int) -> str:
    return f"round-{number:05d}"


def _told(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((path / "answer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); remove this folder") from error
    return found
