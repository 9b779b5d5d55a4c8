# SPDX-License-Identifier: Apache-2.0
"""Where a rival's training stands, on disk: a folder that is whole or absent, from which it goes on exactly.

`state/after-0000200/` holds every network and its optimizer's moments, the moving average and the best
weights (safetensors), and `state.json`. Random streams need no keeping: each round's follow from the seed,
its number and what they are for.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from client.memory import load_moments, save_moments
from pasta_model.config import Settings
from pasta_model.errors import CheckpointError
from pasta_model.files import atomic_directory, clear_partial, remove_folder, write_json, write_text
from simulation.rivals.pool import Pool

Weights = dict[str, Tensor]
MODEL, AVERAGE, LAST = "model.safetensors", "average.safetensors", "last.safetensors"


@dataclass
class Standing:
    """How far a training is.

    Attributes
    ----------
    step, round
        Optimizer steps done, and rounds of `training.local_steps` of them.
    best_mae
        Lowest error of the compass so far, SUVR, after `best_step` steps; None before the first.
    history
        One record a round.
    """

    step: int = 0
    round: int = 0
    best_mae: float | None = None
    best_step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Learner:
    """A network with its optimizer; a rival has one or two."""

    name: str
    network: nn.Module
    optimizer: Optimizer


def run_digest(name: str, pool: Pool, settings: Settings, steps: int) -> str:
    """SHA-256 of all that shapes the weights: rival, settings, steps, and who trains and validates."""
    people = [[store.site, e.subject, e.session, e.split] for store in pool.stores for e in store.entries]
    told = [name, settings.digest(), steps, people]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


class RunFolder:
    """The output folder of a training.

    Parameters
    ----------
    path
        The folder.
    digest
        Of the training, see `run_digest`.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path = path
        self.digest = digest

    def finished(self) -> bool:
        """Whether this very training is done.

        Raises
        ------
        CheckpointError
            When another training is in the folder.
        """
        try:
            told = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except OSError:
            return False
        except ValueError as error:
            raise CheckpointError(f"{self.path}: run.json is damaged; choose an empty folder") from error
        if told.get("digest") != self.digest:
            raise CheckpointError(
                f"{self.path}: holds a training with other settings or other data; use the same ones,"
                " or another folder"
            )
        return bool(told.get("finished")) and (self.path / MODEL).is_file()

    def mark(self, *, finished: bool) -> None:
        """Say whose folder this is, and whether all is done."""
        write_json(self.path / "run.json", {"digest": self.digest, "finished": finished})

    def keep(
        self, standing: Standing, learners: Mapping[str, Learner], average: Weights, best: Weights
    ) -> None:
        """Write where the training stands; what stood before goes."""
        with atomic_directory(self.path / "state" / f"after-{standing.step:07d}") as work:
            for name, learner in learners.items():
                _write(work / f"{name}.safetensors", learner.network.state_dict())
                save_moments(work / f"{name}-moments.safetensors", learner.optimizer)
            _write(work / "average.safetensors", average)
            _write(work / "best.safetensors", best)
            write_json(work / "state.json", asdict(standing))
        for old in self._kept()[:-1]:
            remove_folder(old)
        self.write_history(standing)

    def resume(self, learners: Mapping[str, Learner]) -> tuple[Standing, Weights, Weights] | None:
        """Bring the learners to where the training stood; return that, the average and the best weights.

        Raises
        ------
        CheckpointError
            When what was kept cannot be read.
        """
        clear_partial(self.path / "state")
        if not self._kept():
            return None
        last = self._kept()[-1]
        try:
            told = json.loads((last / "state.json").read_text(encoding="utf-8"))
            for name, learner in learners.items():
                learner.network.load_state_dict(load_file(last / f"{name}.safetensors"))
                load_moments(last / f"{name}-moments.safetensors", learner.optimizer)
            average, best = (load_file(last / f"{name}.safetensors") for name in ("average", "best"))
            return Standing(**told), average, best
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{last}: cannot be read ({error}); remove it") from error

    def write_history(self, standing: Standing) -> None:
        """Write the history, a line a round."""
        lines = [json.dumps(record, sort_keys=True) for record in standing.history]
        write_text(self.path / "history.jsonl", "".join(f"{line}\n" for line in lines))

    def finish(self) -> None:
        """Close the folder: only models and history stay."""
        self.mark(finished=True)
        if (self.path / "state").is_dir():
            remove_folder(self.path / "state")

    def _kept(self) -> list[Path]:
        return sorted((self.path / "state").glob("after-*"))


def _write(path: Path, state: Mapping[str, Tensor]) -> None:
    save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, path)
